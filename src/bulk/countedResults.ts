/**
 * The results of a run, counted line by line in memory that does not grow with them: how many, how fast, which labels
 * and scores, where the time went, why entries failed.
 */
import { labelColour } from "../annotate/labelColour.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import {
  SCORE_BINS,
  STAGES,
  type BulkSummary,
  type EntryName,
  type FailureSummary,
  type StageSummary,
} from "../core/bulkSummary.ts";
import type { Timings } from "../core/prediction.ts";
import { findingsOf } from "../imil/response.ts";

const MAX_POINTS = 120;
const FIRST_INTERVAL_MS = 500;
/** Labels that are counted; models that read texts have one for each finding. */
const MAX_LABELS = 10_000;
const MAX_LABELS_SHOWN = 100;
const MAX_REASONS = 500;
const MAX_REASONS_SHOWN = 50;
const MAX_EXAMPLES = 5;
const MAX_DETAIL = 1000;
const MAX_SLOWEST = 20;

/** What a summary has from the results alone. */
export type Counted = Pick<
  BulkSummary,
  "rate" | "stages" | "labels" | "more_labels" | "scores" | "failures" | "more_failures" | "slowest"
> & { counts: Pick<BulkSummary["counts"], "succeeded" | "failed" | "findings" | "without_findings"> };

/** Milliseconds in the engine. */
export function durationOf({ read_ms, preprocess_ms, infer_ms, postprocess_ms }: Timings): number {
  return round(read_ms + preprocess_ms + infer_ms + postprocess_ms, 2);
}

export class CountedResults {
  readonly #counts = { succeeded: 0, failed: 0, findings: 0, without_findings: 0 };
  readonly #rate = new RateCounter();
  readonly #stages = STAGES.map(() => new Spread());
  readonly #labels = new Map<string, { count: number; entries: number; sum: number }>();
  #moreLabels = 0;
  readonly #bins = Array.from({ length: SCORE_BINS }, () => 0);
  readonly #scores = { count: 0, sum: 0, min: Infinity, max: -Infinity };
  readonly #failures = new Map<string, FailureSummary>();
  #moreFailures = 0;
  readonly #slowest: BulkSummary["slowest"] = [];

  add(result: BulkResult): void {
    const { status, timings, error, finished_at: at } = result;
    this.#counts[status]++;
    if (at !== undefined) this.#rate.add(Date.parse(at), status);
    if (status === "succeeded") this.#addFindings(result);
    if (error) this.#addFailure(nameOf(result), error);
    if (timings) this.#addTimings(nameOf(result), timings);
  }

  #addFindings({ result }: BulkResult): void {
    if (!Array.isArray(result?.["Fs"])) return;
    const findings = findingsOf(result);
    if (findings.length === 0) this.#counts.without_findings++;
    const seen = new Set<string>();
    for (const { Lb, Cs } of findings) {
      this.#counts.findings++;
      this.#addLabel(Lb, Cs, seen);
      if (typeof Cs === "number") this.#addScore(Cs);
    }
  }

  #addLabel(label: string, score: number, seen: Set<string>): void {
    let known = this.#labels.get(label);
    if (!known) {
      if (this.#labels.size >= MAX_LABELS) {
        this.#moreLabels++;
        return;
      }
      known = { count: 0, entries: 0, sum: 0 };
      this.#labels.set(label, known);
    }
    known.count++;
    known.sum += score;
    if (!seen.has(label)) known.entries++;
    seen.add(label);
  }

  #addScore(score: number): void {
    const bin = Math.min(SCORE_BINS - 1, Math.max(0, Math.floor(score * SCORE_BINS + 1e-9)));
    this.#bins[bin]!++;
    const scores = this.#scores;
    scores.count++;
    scores.sum += score;
    scores.min = Math.min(scores.min, score);
    scores.max = Math.max(scores.max, score);
  }

  #addFailure(name: EntryName, { code, title, detail }: NonNullable<BulkResult["error"]>): void {
    const text = detail.slice(0, MAX_DETAIL);
    const reason = generalise(text, name.path);
    const key = `${code} ${reason}`;
    let known = this.#failures.get(key);
    if (!known) {
      if (this.#failures.size >= MAX_REASONS) {
        this.#moreFailures++;
        return;
      }
      known = { code, title, reason: text, count: 0, examples: [] };
      this.#failures.set(key, known);
    }
    known.count++;
    // While they are all the same, the whole text is the reason.
    if (known.reason !== text) known.reason = reason;
    if (known.examples.length < MAX_EXAMPLES) known.examples.push({ ...name, detail: text });
  }

  #addTimings(name: EntryName, timings: Timings): void {
    for (const [index, stage] of STAGES.entries()) this.#stages[index]!.add(timings[`${stage}_ms`]);
    const duration_ms = durationOf(timings);
    const slowest = this.#slowest;
    if (slowest.length === MAX_SLOWEST && duration_ms <= slowest.at(-1)!.duration_ms) return;
    const place = slowest.findIndex((other) => other.duration_ms < duration_ms);
    slowest.splice(place < 0 ? slowest.length : place, 0, { ...name, duration_ms });
    if (slowest.length > MAX_SLOWEST) slowest.pop();
  }

  read(): Counted {
    const { count, sum, min, max } = this.#scores;
    const labels = [...this.#labels].toSorted(([a, left], [b, right]) =>
      right.count === left.count ? compare(a, b) : right.count - left.count,
    );
    const failures = [...this.#failures.values()].toSorted((a, b) => b.count - a.count);
    const uncounted = (some: readonly { count: number }[]) => some.reduce((all, one) => all + one.count, 0);
    return {
      counts: { ...this.#counts },
      rate: this.#rate.read(),
      stages: this.#readStages(),
      labels: labels.slice(0, MAX_LABELS_SHOWN).map(([label, known]) => ({
        label,
        count: known.count,
        entries: known.entries,
        mean_score: round(known.sum / known.count, 4),
        colour: labelColour(label),
      })),
      more_labels: this.#moreLabels + uncounted(labels.slice(MAX_LABELS_SHOWN).map(([, known]) => known)),
      scores:
        count === 0
          ? null
          : { bins: [...this.#bins], mean: round(sum / count, 4), min: round(min, 4), max: round(max, 4) },
      failures: failures
        .slice(0, MAX_REASONS_SHOWN)
        .map((failure) => ({ ...failure, examples: [...failure.examples] })),
      more_failures: this.#moreFailures + uncounted(failures.slice(MAX_REASONS_SHOWN)),
      slowest: [...this.#slowest],
    };
  }

  #readStages(): StageSummary[] {
    if (this.#stages[0]!.count === 0) return [];
    const inEngine = this.#stages.slice(1).reduce((sum, stage) => sum + stage.sum, 0);
    return this.#stages.map((spread, index) => ({
      stage: STAGES[index]!,
      mean_ms: round(spread.sum / spread.count, 2),
      p50_ms: round(spread.quantile(0.5), 2),
      p95_ms: round(spread.quantile(0.95), 2),
      max_ms: round(spread.max, 2),
      share: STAGES[index] === "queue" ? null : inEngine > 0 ? round(spread.sum / inEngine, 4) : 0,
    }));
  }
}

export function nameOf({ index, path, custom_id }: BulkResult): EntryName {
  return { index, ...(path !== undefined && { path }), ...(custom_id !== undefined && { custom_id }) };
}

/** Counts in intervals, which are doubled whenever they would become more than MAX_POINTS. */
class RateCounter {
  #interval = FIRST_INTERVAL_MS;
  #start: number | undefined;
  #points: { succeeded: number; failed: number }[] = [];

  add(at: number, status: BulkResult["status"]): void {
    if (!Number.isFinite(at)) return;
    this.#start ??= Math.floor(at / 1000) * 1000;
    // Neighbours may end in another order than they are written in.
    let place = Math.max(0, Math.floor((at - this.#start) / this.#interval));
    while (place >= MAX_POINTS) {
      this.#double();
      place = Math.floor(place / 2);
    }
    while (this.#points.length <= place) this.#points.push({ succeeded: 0, failed: 0 });
    this.#points[place]![status]++;
  }

  #double(): void {
    const halves = this.#points;
    this.#interval *= 2;
    this.#points = [];
    for (let at = 0; at < halves.length; at += 2) {
      const [first, second = { succeeded: 0, failed: 0 }] = [halves[at]!, halves[at + 1]];
      this.#points.push({
        succeeded: first.succeeded + second.succeeded,
        failed: first.failed + second.failed,
      });
    }
  }

  read(): BulkSummary["rate"] {
    return {
      interval_seconds: this.#interval / 1000,
      points: this.#points.map((point, place) => ({
        at: new Date(this.#start! + place * this.#interval).toISOString(),
        ...point,
      })),
    };
  }
}

/** Bounds of neighbouring classes of a spread are 6 % apart. */
const STEP = Math.log(1.06);
const LEAST_MS = 0.01;
/** Up to some hours. */
const CLASSES = Math.ceil(Math.log(1e9) / STEP) + 1;

/** Milliseconds, counted in classes that grow with them. */
class Spread {
  count = 0;
  sum = 0;
  max = 0;
  readonly #classes = new Uint32Array(CLASSES);

  add(ms: number): void {
    if (!(ms >= 0)) return;
    this.count++;
    this.sum += ms;
    this.max = Math.max(this.max, ms);
    const place = Math.round(Math.log(Math.max(ms, LEAST_MS) / LEAST_MS) / STEP);
    this.#classes[Math.min(CLASSES - 1, place)]!++;
  }

  quantile(part: number): number {
    let left = Math.ceil(part * this.count);
    for (const [place, count] of this.#classes.entries()) {
      left -= count;
      if (left <= 0) return Math.min(this.max, place === 0 ? 0 : LEAST_MS * Math.exp(place * STEP));
    }
    return this.max;
  }
}

/** A detail without what is this entry's alone: its path, what is quoted, numbers. */
function generalise(detail: string, path: string | undefined): string {
  const text = path === undefined || path === "" ? detail : detail.replaceAll(path, "…");
  return text
    .replaceAll(/"(?:[^"\\]|\\.)*"?/g, '"…"')
    .replaceAll(/\/\S*…/g, "…")
    .replaceAll(/\d+(?:[.,]\d+)*/g, "…");
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function round(value: number, places: number): number {
  const factor = 10 ** places;
  return Math.round(value * factor) / factor;
}
