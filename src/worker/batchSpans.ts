/** The spans of batches: a batch is a part of the first prediction that it ran, and linked with all of them. */
import type { Timings } from "../core/prediction.ts";
import { linkTo, startSpan, within, type Attributes, type Span } from "../tracing/tracing.ts";

/** A prediction that was run, as far as a span tells it. */
export interface TracedMember {
  span: Span;
  /** When it was handed to the engine, Unix time in ms. */
  startedAt: number;
  timings: Omit<Timings, "queue_ms">;
  batchSize: number;
}

const PHASES = ["read", "preprocess", "infer", "postprocess"] as const;

/** Records the batches that an engine has just reported. */
export function recordBatches(model: string, engine: string, members: readonly TracedMember[]): void {
  const batches = new Map<string, TracedMember[]>();
  for (const member of members) {
    const key = keyOf(member.timings, member.batchSize);
    batches.set(key, [...(batches.get(key) ?? []), member]);
  }
  for (const batch of batches.values()) recordBatch(model, engine, batch);
}

/** What ran together was measured together. */
function keyOf({ preprocess_ms, infer_ms, postprocess_ms }: TracedMember["timings"], size: number): string {
  return [size, preprocess_ms, infer_ms, postprocess_ms].join(" ");
}

function recordBatch(model: string, engine: string, batch: readonly TracedMember[]): void {
  const [first, ...others] = batch;
  const { span: parent, timings, batchSize } = first!;
  const endedAt = Date.now();
  const startedAt = Math.min(...batch.map((member) => member.startedAt));
  const span = startSpan(`batch ${model}`, {
    parent,
    links: batch.map((member) => member.span),
    startTime: startedAt,
    attributes: { "infermill.model": model, "infermill.engine": engine, "infermill.batch_size": batchSize },
  });
  if (!span) return;
  for (const other of others) other.span.addLink(linkTo(span));
  within(span, () => {
    // An engine tells how long each took: reading comes first, the others one after the other at the end.
    let time = Math.max(
      startedAt,
      endedAt - timings.preprocess_ms - timings.infer_ms - timings.postprocess_ms,
    );
    for (const phase of PHASES) {
      const ms = timings[`${phase}_ms`];
      if (ms === 0) continue;
      const from = phase === "read" ? startedAt : time;
      startSpan(phase, { startTime: from })?.end(from + ms);
      if (phase !== "read") time += ms;
    }
  });
  span.end(endedAt);
}

export function timingAttributes(timings: Timings): Attributes {
  return Object.fromEntries(Object.entries(timings).map(([name, ms]) => [`infermill.${name}`, ms]));
}
