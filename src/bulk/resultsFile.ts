/**
 * results.ndjson: one line for each entry that has ended, in the order in which
 * they ended, appended only. The file itself says what is done, so that whoever
 * resumes a run neither misses nor doubles a line.
 */
import { createReadStream } from "node:fs";
import { open, truncate, type FileHandle } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { InfermillError } from "../errors.ts";
import { readLines, splitLines } from "./lines.ts";
import type { BulkCounts, BulkResult } from "../core/bulkRun.ts";
import { diskFaultOf } from "../core/diskFaults.ts";
import { restoreNumbers } from "../core/json.ts";
import type { EntryOutcome } from "../queue/bulkChunks.ts";

/** What was found in pictures is nobody else's on this machine. */
const OWN_FILE = 0o600;
/** Lines are given to the disk itself at most this often: a power cut costs what ended in this time, to be run again. */
const SYNC_INTERVAL_MS = 1000;
/** How often a reader looks for new lines. */
const LOOK_INTERVAL_MS = 250;

/** Of every line: index, status and number of the line, which are read without the rest. */
export const LINE_BEGINNING = /^\{"index":(\d+),"status":"(succeeded|failed)","line":(\d+)/;

/** Another process appended to the file: this one must let go of the run. */
export class RunTakenOverError extends InfermillError {
  override readonly code = "run_taken_over";
}

export interface ResultsFile {
  isDone(index: number): boolean;
  counts(): Omit<BulkCounts, "total">;
  /**
   * Appends a line for each, all in one write.
   * @throws RunTakenOverError where the file isn't as this process left it
   */
  append(outcomes: readonly EntryOutcome[]): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens the results of a run of `total` entries to append to; cuts off what a killed process wrote of a line.
 * @throws InfermillError where the file holds something else
 */
export async function openResults(path: string, total: number): Promise<ResultsFile> {
  const done = new Uint8Array(Math.ceil(total / 8));
  const counts = { succeeded: 0, failed: 0 };
  let lines = 0;
  let size = 0;

  const note = (index: number, status: BulkResult["status"]) => {
    done[index >> 3]! |= 1 << (index & 7);
    counts[status]++;
    lines++;
  };
  const isDone = (index: number) => (done[index >> 3]! & (1 << (index & 7))) !== 0;

  await (await open(path, "a", OWN_FILE)).close();
  for await (const { text, number, end, isWhole } of readLines(path)) {
    const [, index, status] = LINE_BEGINNING.exec(text) ?? [];
    if (!isWhole) break;
    if (status === undefined || Number(index) >= total || isDone(Number(index))) {
      throw new InfermillError(
        `${path}: line ${number} is none of this run's results; give the file back as it was, or remove it and start the run anew`,
      );
    }
    note(Number(index), status as BulkResult["status"]);
    size = end;
  }
  await truncate(path, size);
  const file = await open(path, "a");
  let syncedAt = Date.now();

  return {
    isDone,
    counts: () => ({ ...counts }),

    async append(outcomes) {
      await refuseForeignSize(file, size, path);
      const text = outcomes.map(
        ({ index, status, rest }, at) =>
          `{"index":${index},"status":"${status}","line":${lines + 1 + at}${rest}}\n`,
      );
      const bytes = Buffer.from(restoreNumbers(text.join("")));
      try {
        await file.writeFile(bytes);
      } catch (error) {
        // A full disk takes a part of it.
        await file.truncate(size);
        throw diskFaultOf(error) ?? error;
      }
      for (const { index, status } of outcomes) note(index, status);
      size += bytes.length;
      if (Date.now() - syncedAt > SYNC_INTERVAL_MS) {
        syncedAt = Date.now();
        await file.datasync();
      }
    },

    async close() {
      await file.datasync();
      await file.close();
    },
  };
}

async function refuseForeignSize(file: FileHandle, expected: number, path: string): Promise<void> {
  const { size, nlink } = await file.stat();
  if (size === expected && nlink > 0) return;
  throw new RunTakenOverError(
    `${path} should be ${expected} bytes long, it is ${nlink === 0 ? "gone" : size}: another process works on it`,
  );
}

/** A run's results in the order in which they stand, from the byte `from` on, each with its place; whole lines only. */
export async function* readResults(
  file: string,
  from = 0,
): AsyncGenerator<{ text: string; at: number; end: number }> {
  let at = from;
  try {
    const bytes = createReadStream(file, { start: from, highWaterMark: 256 * 1024 });
    for await (const { text, end, isWhole } of splitLines(bytes as AsyncIterable<Buffer>)) {
      if (!isWhole) return;
      yield { text, at, end: from + end };
      at = from + end;
    }
  } catch (error) {
    // Of a run that no one has begun.
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

export interface FollowOptions {
  /** Lines to skip. */
  after?: number | undefined;
  /** Only entries that ended like this. */
  status?: BulkResult["status"] | undefined;
  /** Whether the run has ended, so that no lines will follow. */
  hasEnded: () => Promise<boolean>;
  signal?: AbortSignal | undefined;
}

/** The lines that are there and, until the run has ended, those that follow; some at a time, each with its break. */
export async function* followResults(path: string, options: FollowOptions): AsyncGenerator<string> {
  const { after = 0, status, hasEnded, signal } = options;
  let line = 0;
  for await (const block of followBlocks(path, hasEnded, signal)) {
    const lines = block.split("\n");
    lines.pop();
    const wanted = lines.filter((text) => {
      line++;
      return line > after && (status === undefined || LINE_BEGINNING.exec(text)?.[2] === status);
    });
    if (wanted.length > 0) yield `${wanted.join("\n")}\n`;
  }
}

const BLOCK_BYTES = 256 * 1024;

/** Whole lines of a file that grows, in blocks. */
async function* followBlocks(
  path: string,
  hasEnded: () => Promise<boolean>,
  signal: AbortSignal | undefined,
): AsyncGenerator<string> {
  let file: FileHandle | undefined;
  let buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  let position = 0;
  let isLast = false;
  try {
    while (!signal?.aborted) {
      file ??= await openIfThere(path);
      const bytesRead = (await file?.read(buffer, 0, buffer.length, position))?.bytesRead ?? 0;
      // What a killed process wrote of a line is cut off later, so that only whole lines count.
      const end = buffer.subarray(0, bytesRead).lastIndexOf(10) + 1;
      if (end > 0) {
        position += end;
        yield buffer.toString("utf8", 0, end);
      } else if (bytesRead === buffer.length) {
        buffer = Buffer.allocUnsafe(2 * buffer.length);
      } else if (isLast) {
        return;
      } else {
        // Asked before the last look, since lines may come until the end is known.
        isLast = await hasEnded();
        if (!isLast) await sleep(LOOK_INTERVAL_MS, undefined, { signal }).catch(() => {});
      }
    }
  } finally {
    await file?.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  return open(path, "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
}
