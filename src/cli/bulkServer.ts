/** A bulk run on a server, seen from the command line: started, followed, its results written to a file here. */
import { open, truncate } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { readLines, splitLines } from "../bulk/lines.ts";
import { hasEnded, type BulkResult, type BulkRun } from "../bulk/spec.ts";
import { InfermillError } from "../errors.ts";
import type { PredictionRequest } from "../loaders/dictionaries.ts";
import { showBulkProgress } from "./bulkProgress.ts";
import { BulkSummary } from "./bulkSummary.ts";
import { EXIT_FAILED, EXIT_INTERRUPTED, UsageError } from "./exit.ts";

const LOOK_INTERVAL_MS = 1000;
/** How often a server that can't be reached is tried again before giving up. */
const MOST_FAILURES = 30;

interface Folder {
  model: string;
  /** `<root>/<path>` as the server knows it. */
  folder: string;
  glob?: string | undefined;
  request: PredictionRequest;
}

/**
 * @returns the run's id
 * @throws UsageError where the server refuses it
 */
export async function startOnServer(server: string, body: Folder): Promise<string> {
  const { id } = await callJson<BulkRun>(new URL("/v1/bulk", server), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  console.error(`${id}: ${body.model} over ${body.folder} on ${server}`);
  return id;
}

/** Goes on with a run that failed or was cancelled; what has not ended goes on by itself. */
export async function resumeOnServer(server: string, id: string): Promise<void> {
  const url = new URL(`/v1/bulk/${encodeURIComponent(id)}`, server);
  const { status } = await callJson<BulkRun>(url);
  if (status !== "failed" && status !== "cancelled") return;
  await call(new URL(`${url.pathname}/resume`, url), { method: "POST" });
}

/** @returns the exit code */
export async function followOnServer(
  server: string,
  id: string,
  out: string,
  signal: AbortSignal,
): Promise<number> {
  const url = new URL(`/v1/bulk/${id}`, server);
  const written: Written = { file: out, lines: 0, summary: new BulkSummary() };
  await readWritten(written);
  const before = written.lines;
  const startedAt = performance.now();
  const run = await followToItsEnd(url, written, signal);
  if (!run) return EXIT_INTERRUPTED;
  const session = { done: written.lines - before, seconds: (performance.now() - startedAt) / 1000 };
  console.log(written.summary.format(run.counts.total, session, out));
  if (run.error) console.error(`infermill: the run can't go on: ${run.error.detail}`);
  return run.status === "completed" && run.counts.failed === 0 ? 0 : EXIT_FAILED;
}

/** The results as far as they are in the file here. */
interface Written {
  file: string;
  lines: number;
  summary: BulkSummary;
}

/** @returns the run as it ended, undefined where `signal` was aborted before */
async function followToItsEnd(url: URL, written: Written, signal: AbortSignal): Promise<BulkRun | undefined> {
  const progress = showBulkProgress();
  const show = async () => {
    const { status, counts, images_per_second: rate } = await callJson<BulkRun>(url);
    progress.update({ status, ...counts, rate: rate ?? 0 });
  };
  const watching = setInterval(() => void show().catch(() => {}), LOOK_INTERVAL_MS);
  let failures = 0;
  try {
    while (!signal.aborted) {
      const { lines } = written;
      try {
        await appendResults(url, written, signal);
        const run = await callJson<BulkRun>(url);
        if (hasEnded(run.status)) return run;
      } catch (error) {
        if (signal.aborted) break;
        failures = written.lines > lines ? 0 : failures + 1;
        if (error instanceof UsageError || failures > MOST_FAILURES) throw error;
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
async function appendResults(url: URL, written: Written, signal: AbortSignal): Promise<void> {
  const answer = await call(new URL(`${url.pathname}/results?after=${written.lines}`, url), { signal });
  const file = await open(written.file, "a");
  try {
    for await (const { text, isWhole } of splitLines(chunksOf(answer))) {
      // The connection broke; the line comes whole the next time.
      if (!isWhole) return;
      await file.writeFile(`${text}\n`);
      written.lines++;
      written.summary.add(JSON.parse(text) as BulkResult);
    }
  } finally {
    await file.close();
  }
}

async function* chunksOf({ body }: Response): AsyncGenerator<Buffer> {
  for await (const chunk of body ?? []) yield Buffer.from(chunk as Uint8Array);
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

async function callJson<T>(url: URL, init?: RequestInit): Promise<T> {
  return (await (await call(url, init)).json()) as T;
}

/** @throws UsageError where the server refuses, InfermillError where it can't be reached */
async function call(url: URL, init?: RequestInit): Promise<Response> {
  const key = process.env["INFERMILL_API_KEY"];
  const headers = new Headers(init?.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const answer = await fetch(url, { ...init, headers }).catch((error: Error) => {
    const { message } = error.cause instanceof Error ? error.cause : error;
    throw new InfermillError(`${url.origin} can't be reached: ${message}`, { cause: error });
  });
  if (answer.ok) return answer;
  const { detail } = (await answer.json().catch(() => ({}))) as { detail?: string };
  if (answer.status === 401)
    throw new UsageError(
      `${url.origin} takes requests with a key only: set INFERMILL_API_KEY to one of its api_keys`,
    );
  const reason = `${url.origin} answered ${answer.status}: ${detail ?? answer.statusText}`;
  throw answer.status < 500 ? new UsageError(reason) : new InfermillError(reason);
}
