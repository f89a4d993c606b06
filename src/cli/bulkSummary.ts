/** What came out of a bulk run, counted line by line: how many, how fast, which labels, where the time went. */
import type { BulkResult, SkippedCounts, SkippedLine } from "../core/bulkRun.ts";
import { findingsOf } from "../imil/response.ts";
import type { Timings } from "../core/prediction.ts";
import { formatDuration } from "../core/duration.ts";

const STAGES = [
  "read_ms",
  "preprocess_ms",
  "infer_ms",
  "postprocess_ms",
] as const satisfies (keyof Timings)[];
const MAX_LABELS = 10;
const MAX_LABEL = 40;

export class BulkSummary {
  succeeded = 0;
  failed = 0;
  readonly #labels = new Map<string, number>();
  readonly #stages = new Map<string, number>(STAGES.map((stage) => [stage, 0]));
  #timed = 0;
  #firstFailure: string | undefined;

  add({ status, result, timings, error, path, custom_id, index }: BulkResult): void {
    this[status]++;
    for (const { Lb } of findingsOf(result)) this.#labels.set(Lb, (this.#labels.get(Lb) ?? 0) + 1);
    if (error)
      this.#firstFailure ??= `${path ?? custom_id ?? `entry ${index}`}: ${error.detail || error.title}`;
    if (!timings) return;
    this.#timed++;
    for (const stage of STAGES) this.#stages.set(stage, this.#stages.get(stage)! + timings[stage]);
  }

  /**
   * @param total entries of the run
   * @param session what was done in how many seconds, by this command
   * @param skipped what was found in the folder and left out
   */
  format(
    total: number,
    session: { done: number; seconds: number },
    resultsFile: string,
    skipped: SkippedCounts,
  ): string {
    const done = this.succeeded + this.failed;
    const rate = session.seconds > 0 ? session.done / session.seconds : 0;
    const lines = [
      `${done} of ${total} done: ${this.succeeded} succeeded, ${this.failed} failed; ${session.done} in ${formatDuration(session.seconds)}, ${rate.toFixed(1)} images/s`,
      ...this.#labelLines(),
      ...this.#stageLines(),
      ...(this.#firstFailure ? [`first failure  ${this.#firstFailure}`] : []),
      ...(skipped.total > 0 ? [`left out       ${skippedCountsText(skipped)}`] : []),
      `results        ${resultsFile}`,
    ];
    return lines.join("\n");
  }

  #labelLines(): string[] {
    if (this.#labels.size === 0) return this.succeeded > 0 ? ["labels         nothing was found"] : [];
    const sorted = [...this.#labels].toSorted((a, b) => b[1] - a[1]);
    const shown = sorted.slice(0, MAX_LABELS).map(([label, count]) => `${shorten(label)} ${count}`);
    const others = sorted.length - shown.length;
    return [`labels         ${shown.join(", ")}${others > 0 ? ` and ${others} others` : ""}`];
  }

  /** A picture's stage takes as long as its batch's. */
  #stageLines(): string[] {
    if (this.#timed === 0) return [];
    const means = [...this.#stages].map(
      ([stage, sum]) => [stage.replace("_ms", ""), sum / this.#timed] as const,
    );
    const [slowest] = means.toSorted((a, b) => b[1] - a[1]);
    const all = means.map(([stage, ms]) => `${stage} ${ms.toFixed(1)}`).join(", ");
    return [`slowest stage  ${slowest![0]} (ms of a picture's batch on average: ${all})`];
  }
}

/** "7: hidden 2, not a picture 5" */
export function skippedCountsText({ total, by_reason }: SkippedCounts): string {
  const reasons = Object.entries(by_reason).map(
    ([reason, count]) => `${reason.replaceAll("_", " ")} ${count}`,
  );
  return `${total}: ${reasons.join(", ")}`;
}

/** One that was left out, as a line of `--list-skipped`. */
export function skippedText({ path, reason, detail }: SkippedLine): string {
  return `skipped        ${reason.replaceAll("_", " ")}: ${path}${detail ? ` (${detail})` : ""}`;
}

/** ImageNet's labels are lists of synonyms. */
function shorten(label: string): string {
  const [first = ""] = label.split(",");
  return first.length > MAX_LABEL ? `${first.slice(0, MAX_LABEL - 1)}…` : first;
}
