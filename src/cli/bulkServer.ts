/** A bulk run on a server, seen from the command line: followed, its results written to a file here. */
import { open, truncate } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { readLines } from "../bulk/lines.ts";
import { hasEnded, type BulkResult, type BulkRun } from "../core/bulkRun.ts";
import type { InfermillClient } from "../client/client.ts";
import { showBulkProgress } from "./bulkProgress.ts";
import { CountedResults } from "../bulk/countedResults.ts";
import { writeFilesBeside, type FilesBeside } from "./bulkFiles.ts";
import { formatSummary, skippedText } from "./bulkSummary.ts";
import { EXIT_FAILED, EXIT_INTERRUPTED, UsageError } from "./exit.ts";
import { explain } from "./server.ts";

const LOOK_INTERVAL_MS = 1000;
/** How often a server that can't be reached is tried again before giving up. */
const MAX_FAILURES = 30;

/** Resumes a run that failed or was cancelled; what has not ended continues by itself. */
export async function resumeOnServer(client: InfermillClient, id: string): Promise<void> {
  const { status } = await client.getBulkRun(id).catch(explain);
  if (status === "failed" || status === "cancelled") await client.resumeBulkRun(id).catch(explain);
}

/** @returns the exit code */
export async function followOnServer(
  client: InfermillClient,
  id: string,
  out: string,
  signal: AbortSignal,
  listsSkipped: boolean,
  beside: FilesBeside,
): Promise<number> {
  const written: Written = { file: out, lines: 0, summary: new CountedResults() };
  await readWritten(written);
  const before = written.lines;
  const startedAt = performance.now();
  const run = await followToItsEnd(client, id, written, signal);
  if (!run) return EXIT_INTERRUPTED;
  const session = { done: written.lines - before, seconds: (performance.now() - startedAt) / 1000 };
  console.log(formatSummary(written.summary, run.counts.total, session, out, run.skipped));
  if (listsSkipped) for await (const line of client.bulkSkipped(id)) console.log(skippedText(line));
  if (run.error) console.error(`infermill: the run can't continue: ${run.error.detail}`);
  const isWhole = await writeFilesBeside(beside, out, {
    report: () => client.bulkReport(id),
    results: async (format) => client.bulkResultsAs(id, format),
  });
  return run.status === "completed" && run.counts.failed === 0 && isWhole ? 0 : EXIT_FAILED;
}

/** The results as far as they are in the file here. */
interface Written {
  file: string;
  lines: number;
  summary: CountedResults;
}

/** @returns the run as it ended, undefined where `signal` was aborted before */
async function followToItsEnd(
  client: InfermillClient,
  id: string,
  written: Written,
  signal: AbortSignal,
): Promise<BulkRun | undefined> {
  const progress = showBulkProgress();
  const show = async () => {
    const { status, counts, images_per_second: rate } = await client.getBulkRun(id);
    progress.update({ status, ...counts, rate: rate ?? 0 });
  };
  const watching = setInterval(() => void show().catch(() => {}), LOOK_INTERVAL_MS);
  let failures = 0;
  try {
    while (!signal.aborted) {
      const { lines } = written;
      try {
        await appendResults(client, id, written, signal);
        const run = await client.getBulkRun(id).catch(explain);
        if (hasEnded(run.status)) return run;
      } catch (error) {
        if (signal.aborted) break;
        failures = written.lines > lines ? 0 : failures + 1;
        if (error instanceof UsageError || failures > MAX_FAILURES) throw error;
      }
      await sleep(LOOK_INTERVAL_MS, undefined, { signal }).catch(() => {});
    }
    return undefined;
  } finally {
    clearInterval(watching);
    progress.end();
  }
}

/** Appends what comes after the lines that are there, until the run has ended or the connection breaks. */
async function appendResults(
  client: InfermillClient,
  id: string,
  written: Written,
  signal: AbortSignal,
): Promise<void> {
  const file = await open(written.file, "a");
  try {
    for await (const line of client.bulkResultLines(id, { after: written.lines }, signal)) {
      await file.writeFile(`${line}\n`);
      written.lines++;
      written.summary.add(JSON.parse(line) as BulkResult);
    }
  } catch (error) {
    explain(error);
  } finally {
    await file.close();
  }
}

/** Counts what an interrupted command wrote, and cuts off a line that it did not finish. */
async function readWritten(written: Written): Promise<void> {
  await (await open(written.file, "a")).close();
  let size = 0;
  for await (const { text, end, isWhole } of readLines(written.file)) {
    if (!isWhole) break;
    written.lines++;
    written.summary.add(JSON.parse(text) as BulkResult);
    size = end;
  }
  await truncate(written.file, size);
}
