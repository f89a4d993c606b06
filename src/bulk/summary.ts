/**
 * The summary of a run, read from its files. That of a run which continues is read on from where the last one ended,
 * that of a run which has ended is kept beside its other files.
 */
import { readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hasEnded, type BulkResult, type BulkRun, type SkippedLine } from "../core/bulkRun.ts";
import type { BulkSummary } from "../core/bulkSummary.ts";
import { formatDuration } from "../core/duration.ts";
import { CountedResults, round, type Counted } from "./countedResults.ts";
import { readLines } from "./lines.ts";
import { readResults } from "./resultsFile.ts";
import type { RunFolder } from "./runFolder.ts";
import { folderName, type BulkSpec } from "./spec.ts";

/** Runs that continue and are kept in mind at a time. */
const MAX_READERS = 16;
const MAX_EXAMPLES = 5;
/** Of what was left out; examples of a reason that comes later only are none. */
const MAX_SKIPPED_LINES = 100_000;

interface RunFiles {
  spec: BulkSpec;
  folder: RunFolder;
  resultsFile: string;
}

interface Reader {
  counted: CountedResults;
  /** Bytes that are counted. */
  position: number;
  reading: Promise<unknown>;
}

export class BulkSummaries {
  readonly #readers = new Map<string, Reader>();

  /** @param seconds that were worked on the run; null before it is begun */
  async read(run: BulkRun, seconds: number | null, files: RunFiles): Promise<BulkSummary> {
    const counted = hasEnded(run.status) ? await readEnded(files) : await this.#readOn(files);
    return summaryOf(run, seconds, files, counted);
  }

  async #readOn({ spec, resultsFile }: RunFiles): Promise<Counted> {
    const reader = this.#readerOf(spec.id);
    // One after the other: two would count the same lines.
    const reading = reader.reading.then(async () => {
      const { size } = await stat(resultsFile).catch(() => ({ size: 0 }));
      // Cut off, or begun anew.
      if (size < reader.position) Object.assign(reader, { counted: new CountedResults(), position: 0 });
      reader.position = await count(reader.counted, resultsFile, reader.position);
    });
    reader.reading = reading.catch(() => {});
    await reading;
    return reader.counted.read();
  }

  #readerOf(id: string): Reader {
    const reader = this.#readers.get(id) ?? {
      counted: new CountedResults(),
      position: 0,
      reading: Promise.resolve(),
    };
    // The one that was asked for least recently goes first.
    this.#readers.delete(id);
    this.#readers.set(id, reader);
    if (this.#readers.size > MAX_READERS) this.#readers.delete(this.#readers.keys().next().value!);
    return reader;
  }
}

/** @returns where the counted lines end */
async function count(counted: CountedResults, file: string, from: number): Promise<number> {
  let position = from;
  for await (const { text, end } of readResults(file, from)) {
    counted.add(JSON.parse(text) as BulkResult);
    position = end;
  }
  return position;
}

/** Of the results as they are, kept until they are other ones: a run that has ended may be resumed. */
async function readEnded({ folder, resultsFile }: RunFiles): Promise<Counted> {
  const cache = join(folder.path, "summary.json");
  const version = await stat(resultsFile).then(
    ({ size, mtimeMs }) => `1 ${size} ${mtimeMs}`,
    () => "none",
  );
  const kept = await readFile(cache, "utf8")
    .then((text) => JSON.parse(text) as { version: string; counted: Counted })
    .catch(() => undefined);
  if (kept?.version === version) return kept.counted;
  const results = new CountedResults();
  await count(results, resultsFile, 0);
  const counted = results.read();
  // The folder may be another machine's, or gone by now.
  await writeFile(`${cache}.part`, JSON.stringify({ version, counted }))
    .then(() => rename(`${cache}.part`, cache))
    .catch(() => {});
  return counted;
}

async function summaryOf(
  run: BulkRun,
  seconds: number | null,
  { spec, folder }: RunFiles,
  { counts, ...counted }: Counted,
): Promise<BulkSummary> {
  const done = counts.succeeded + counts.failed;
  const perSecond = seconds !== null && seconds > 0 ? round(done / seconds, 2) : null;
  const total = Math.max(run.counts.total, done);
  return {
    run,
    verdict: verdictOf(run, { ...counts, total }, seconds, perSecond),
    counts: { total, done, ...counts, skipped: run.skipped.total },
    seconds: seconds === null ? null : round(seconds, 2),
    per_second: perSecond,
    ...counted,
    left_out: await readLeftOut(run, folder),
    copies: await folder.readCopies(),
    configuration: {
      model: spec.model,
      used: await folder.readUsedModel(),
      folder: folderName(spec),
      glob: run.glob,
      request: spec.request,
      annotate: annotateName(spec),
      from_command_line: spec.results_file !== undefined,
    },
  };
}

function verdictOf(
  { status, error, counts }: BulkRun,
  { succeeded, failed, total }: { succeeded: number; failed: number; total: number },
  seconds: number | null,
  perSecond: number | null,
): string {
  if (status === "queued" && succeeded + failed === 0) return "not begun yet";
  if (status === "walking") return `${counts.total} files found so far`;
  const how = {
    completed: [],
    cancelled: ["cancelled"],
    failed: [`could not continue: ${error?.detail ?? "no reason is known"}`],
    running: ["still running"],
    queued: ["waits to continue"],
  }[status];
  return [
    `${succeeded} of ${total}`,
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...how,
    ...(seconds === null ? [] : [formatDuration(seconds)]),
    ...(perSecond === null ? [] : [`${perSecond.toFixed(1)}/s`]),
  ].join(", ");
}

async function readLeftOut({ skipped }: BulkRun, folder: RunFolder): Promise<BulkSummary["left_out"]> {
  const left = new Map(
    Object.entries(skipped.by_reason).map(([reason, number]) => [
      reason,
      { reason: reason as SkippedLine["reason"], count: number, examples: [] as SkippedLine[] },
    ]),
  );
  let missing = [...left.values()].reduce((sum, each) => sum + Math.min(MAX_EXAMPLES, each.count), 0);
  try {
    for await (const { text, number } of readLines(folder.skippedFile)) {
      if (missing === 0 || number > MAX_SKIPPED_LINES) break;
      const line = JSON.parse(text) as SkippedLine;
      const examples = left.get(line.reason)?.examples;
      if (!examples || examples.length === MAX_EXAMPLES) continue;
      examples.push(line);
      missing--;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  return [...left.values()].toSorted((a, b) => b.count - a.count);
}

function annotateName({ annotate, annotate_folder }: BulkSpec): string | null {
  if (annotate) return [annotate.root, annotate.path].filter(Boolean).join("/");
  return annotate_folder ?? null;
}
