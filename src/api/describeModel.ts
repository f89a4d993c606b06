/** What the api tells of a model: its settings, and what the live workers report of it. */
import type { Api } from "./api.ts";
import type { WorkerReport } from "../queue/workerReports.ts";
import type { ModelDescription, ModelReadiness } from "./schemas.ts";

/** The worker reports itself every two seconds, and a chunk's own timeout ends it: later than this it hangs. */
const STUCK_MARGIN_MS = 30_000;
/** A prediction that is next and waits this long while none runs is a queue that nobody consumes. */
const MAX_UNCLAIMED_MS = 10_000;

function reportsOf(reports: readonly WorkerReport[], model: string) {
  return reports.flatMap(({ id: worker, models }) => (models[model] ? [{ worker, ...models[model] }] : []));
}

export async function describeModel(
  { predictions }: Api,
  name: string,
  reports: readonly WorkerReport[],
): Promise<ModelDescription> {
  const model = predictions.model(name);
  const served = reportsOf(reports, name);
  const loaded = served.find(({ description }) => description !== null);
  const engines = served.flatMap(({ worker, engines: own }) => own.map((engine) => ({ ...engine, worker })));
  const sum = (key: "batches" | "predictions" | "succeeded" | "failed") =>
    served.reduce((total, { totals }) => total + totals[key], 0);
  const self = `/v1/models/${encodeURIComponent(name)}`;
  return {
    name,
    loader: model.loader,
    device: [model.device].flat(),
    ready: engines.some(({ state }) => state === "ready"),
    labels: loaded?.description?.labels.slice() ?? null,
    picture: loaded?.description?.picture ?? null,
    tensors: loaded?.description?.tensors ?? null,
    batch: {
      max_batch_size: model.max_batch_size,
      max_queue_delay_ms: model.max_queue_delay_ms,
      batch_limit: loaded?.batch_limit ?? null,
    },
    limits: {
      timeout_ms: model.timeout_ms,
      result_ttl_seconds: model.result_ttl_seconds,
      max_queue_length: model.max_queue_length,
      attempts: model.attempts,
    },
    engines,
    queue: await predictions.depth(name),
    totals: {
      batches: sum("batches"),
      predictions: sum("predictions"),
      succeeded: sum("succeeded"),
      failed: sum("failed"),
      mean_batch_size:
        sum("batches") > 0 ? Math.round((sum("predictions") / sum("batches")) * 100) / 100 : null,
    },
    links: { self, predictions: `${self}/predictions` },
  };
}

/** Whether a model is served, and if not, what is missing. */
export async function checkModel(
  { predictions }: Api,
  name: string,
  reports: readonly WorkerReport[],
): Promise<ModelReadiness> {
  const served = reportsOf(reports, name);
  const engines = served.flatMap(({ engines: own }) => own);
  const ready = engines.filter(({ state }) => state === "ready").length;
  const problems: string[] = [];
  if (served.length === 0) problems.push("no live worker serves it");
  else if (ready === 0) problems.push(`none of its ${engines.length} engines is ready`);
  for (const { id, state, error } of engines)
    if (state !== "ready" && error) problems.push(`engine ${id}: ${error}`);

  const stuckLimitMs = predictions.model(name).timeout_ms + STUCK_MARGIN_MS;
  for (const { worker, stuck_ms } of served) {
    if (stuck_ms >= stuckLimitMs)
      problems.push(`the worker ${worker} has finished nothing for ${seconds(stuck_ms)}`);
  }
  const waitMs = await predictions.waitOfNext(name);
  const isHeld = served.some(({ held }) => held > 0) || (await predictions.depth(name)).running > 0;
  if (waitMs > MAX_UNCLAIMED_MS && !isHeld) {
    problems.push(`the next prediction has waited for ${seconds(waitMs)} and no worker takes it`);
  }
  return { ready: ready > 0 && problems.length === 0, engines: { ready, all: engines.length }, problems };
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
