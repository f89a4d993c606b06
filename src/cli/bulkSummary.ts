/** What came out of a bulk run, in the lines that a command ends with. */
import type { CountedResults } from "../bulk/countedResults.ts";
import type { SkippedCounts, SkippedLine } from "../core/bulkRun.ts";
import type { BulkSummary, FailureSummary } from "../core/bulkSummary.ts";
import { formatDuration } from "../core/duration.ts";

const MAX_LABELS = 10;
const MAX_LABEL = 40;

/**
 * @param results those of the run so far, and what earlier commands wrote
 * @param total entries of the run
 * @param session what was done in how many seconds, by this command
 * @param skipped what was found in the folder and left out
 */
export function formatSummary(
  results: CountedResults,
  total: number,
  session: { done: number; seconds: number },
  resultsFile: string,
  skipped: SkippedCounts,
): string {
  const { counts, labels, more_labels, stages, failures } = results.read();
  const { succeeded, failed } = counts;
  const rate = session.seconds > 0 ? session.done / session.seconds : 0;
  return [
    `${succeeded + failed} of ${total} done: ${succeeded} succeeded, ${failed} failed; ${session.done} in ${formatDuration(session.seconds)}, ${rate.toFixed(1)} images/s`,
    ...labelLines(labels, more_labels, succeeded),
    ...stageLines(stages),
    ...failureLines(failures),
    ...(skipped.total > 0 ? [`left out       ${skippedCountsText(skipped)}`] : []),
    `results        ${resultsFile}`,
  ].join("\n");
}

function labelLines(labels: BulkSummary["labels"], more: number, succeeded: number): string[] {
  if (labels.length === 0) return succeeded > 0 ? ["labels         nothing was found"] : [];
  const shown = labels.slice(0, MAX_LABELS).map(({ label, count }) => `${shorten(label)} ${count}`);
  const others = labels.length - shown.length;
  const rest = more > 0 ? " and many others" : others > 0 ? ` and ${others} others` : "";
  return [`labels         ${shown.join(", ")}${rest}`];
}

/** A picture's stage takes as long as its batch's. */
function stageLines(stages: BulkSummary["stages"]): string[] {
  const inEngine = stages.filter(({ share }) => share !== null);
  const [slowest] = inEngine.toSorted((a, b) => b.mean_ms - a.mean_ms);
  if (!slowest) return [];
  const all = inEngine.map(({ stage, mean_ms }) => `${stage} ${mean_ms.toFixed(1)}`).join(", ");
  return [`slowest stage  ${slowest.stage} (ms of a picture's batch on average: ${all})`];
}

/** The first that failed, of the most frequent reason. */
function failureLines([failure]: readonly FailureSummary[]): string[] {
  const example = failure?.examples[0];
  if (!failure || !example) return [];
  const { path, custom_id, index, detail } = example;
  return [`first failure  ${path ?? custom_id ?? `entry ${index}`}: ${detail || failure.title}`];
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
