/** The files of a bulk run: `<data_dir>/bulk/<id>/` with run.json, entries.ndjson and results.ndjson. */
import { access, mkdir, open, readFile, rename, rm, stat, truncate } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Config } from "../config/schema.ts";
import { BulkRunNotFoundError, InfermillError } from "../errors.ts";
import { isBulkRunId } from "../queue/names.ts";
import { readLines } from "./lines.ts";
import type { BulkRun, SkippedCounts, SkippedLine } from "../core/bulkRun.ts";
import type { CopyCounts, UsedModel } from "../core/bulkSummary.ts";
import type { BulkEntry, BulkSpec } from "./spec.ts";
import { Skipped } from "./walk.ts";
import { Listed } from "./walkObjects.ts";

/** Text that is gathered before it is written, in characters. */
const WRITE_SIZE = 64 * 1024;
/** How often it is kept how far a listing came, while it comes; its end, good or bad, always is. */
const CHECKPOINT_MS = 1000;

export function bulkFolder(config: Pick<Config, "data_dir">): string {
  return join(config.data_dir, "bulk");
}

export interface EntryCounts {
  total: number;
  skipped: SkippedCounts;
}

export interface RunEnd {
  run: BulkRun;
  /** Time that was worked. */
  seconds: number | null;
}

export interface RunFolder {
  readonly path: string;
  readonly entriesFile: string;
  /** @throws BulkRunNotFoundError */
  readSpec(): Promise<BulkSpec>;
  writeSpec(spec: BulkSpec): Promise<void>;
  /** The model as it was configured when the run began; null where that was not written down. */
  readUsedModel(): Promise<UsedModel | null>;
  /** Writes it down where it isn't yet: a resumed run keeps the first. */
  writeUsedModel(used: UsedModel): Promise<void>;
  /** How many annotated copies were made; null before the end, and where none were asked for. */
  readCopies(): Promise<CopyCounts | null>;
  writeCopies(counts: CopyCounts): Promise<void>;
  /** How the run ended, for who finds it without what Redis knew of it; null before the end. */
  readEnd(): Promise<RunEnd | null>;
  writeEnd(end: RunEnd): Promise<void>;
  /** The run continues. */
  removeEnd(): Promise<void>;
  /** What was left out of the folder, a `SkippedLine` each; not there before the walk has ended. */
  readonly skippedFile: string;
  /**
   * Writes all entries, and what is left out, as they come, and only then gives the files their names; answers how
   * many, or undefined where `stop` was aborted on the way. A listing that was interrupted behind a mark continues there.
   */
  writeEntries(
    list: (after: string | undefined) => AsyncIterable<BulkEntry | Skipped | Listed>,
    options?: { stop?: AbortSignal; onFound?: (found: EntryCounts) => void },
  ): Promise<EntryCounts | undefined>;
  /** The number of entries; undefined while they are not all written. */
  countEntries(): Promise<EntryCounts | undefined>;
  remove(): Promise<void>;
}

/** @throws BulkRunNotFoundError where no run can have this id */
export function openRunFolder(config: Pick<Config, "data_dir">, id: string): RunFolder {
  if (!isBulkRunId(id)) throw noSuchRun(id);
  const path = join(bulkFolder(config), id);
  const entriesFile = join(path, "entries.ndjson");
  const countFile = join(path, "entries.count");
  const skippedFile = join(path, "skipped.ndjson");
  const skippedCountFile = join(path, "skipped.json");
  const specFile = join(path, "run.json");
  const copiesFile = join(path, "copies.json");
  const endFile = join(path, "end.json");
  const modelFile = join(path, "model.json");
  const listingFile = join(path, "listing.json");
  return {
    path,
    entriesFile,
    skippedFile,

    async readSpec() {
      const text = await readFile(specFile, "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") throw noSuchRun(id);
        throw error;
      });
      return JSON.parse(text) as BulkSpec;
    },

    async writeSpec(spec) {
      await mkdir(path, { recursive: true, mode: 0o700 });
      await writeWhole(specFile, `${JSON.stringify(spec, null, 2)}\n`);
    },

    readUsedModel: () => readJson<UsedModel>(modelFile),
    readEnd: () => readJson<RunEnd>(endFile),
    writeEnd: (end) => writeWhole(endFile, JSON.stringify(end)),
    removeEnd: () => rm(endFile, { force: true }),
    readCopies: () => readJson<CopyCounts>(copiesFile),
    writeCopies: (counts) => writeWhole(copiesFile, JSON.stringify(counts)),

    async writeUsedModel(used) {
      if ((await this.readUsedModel()) === null)
        await writeWhole(modelFile, `${JSON.stringify(used, null, 2)}\n`);
    },

    async writeEntries(list, { stop, onFound } = {}) {
      await mkdir(path, { recursive: true, mode: 0o700 });
      const [entryPart, skippedPart] = [`${entriesFile}.part`, `${skippedFile}.part`];
      const begun = await readCheckpoint(listingFile, entryPart, skippedPart);
      const counts: EntryCounts = begun?.counts ?? { total: 0, skipped: { total: 0, by_reason: {} } };
      const { skipped } = counts;
      const entryLines = await openLines(entryPart, begun?.entryBytes);
      const skippedLines = await openLines(skippedPart, begun?.skippedBytes);
      let reached: Checkpoint | undefined;
      let keptAt = Date.now();
      const keepReached = async () => {
        if (!reached) return;
        await entryLines.sync();
        await skippedLines.sync();
        await writeWhole(listingFile, JSON.stringify(reached));
        keptAt = Date.now();
      };
      try {
        for await (const entry of list(begun?.mark)) {
          if (entry instanceof Listed) {
            const [entryBytes, skippedBytes] = [entryLines.bytes(), skippedLines.bytes()];
            reached = { mark: entry.mark, counts: structuredClone(counts), entryBytes, skippedBytes };
            if (Date.now() - keptAt >= CHECKPOINT_MS) await keepReached();
            continue;
          }
          if (entry instanceof Skipped) {
            skipped.total++;
            skipped.by_reason[entry.reason] = (skipped.by_reason[entry.reason] ?? 0) + 1;
            const { path: name, reason, detail } = entry;
            await skippedLines.add({ path: name, reason, ...(detail && { detail }) } satisfies SkippedLine);
          } else {
            counts.total++;
            await entryLines.add(entry);
          }
          onFound?.(counts);
        }
        // Before they get their names: a power cut must not leave a part of them under these names.
        await entryLines.sync();
        await skippedLines.sync();
      } catch (error) {
        await keepReached();
        throw error;
      } finally {
        if (stop?.aborted) await keepReached();
        await entryLines.close();
        await skippedLines.close();
      }
      if (stop?.aborted) return undefined;
      await rename(skippedPart, skippedFile);
      // Beside it, so that a resumed run need not read a million lines to know it.
      await writeWhole(skippedCountFile, JSON.stringify(skipped));
      await writeWhole(countFile, String(counts.total));
      await rename(entryPart, entriesFile);
      await rm(listingFile, { force: true });
      return counts;
    },

    async countEntries() {
      const isThere = await access(entriesFile).then(
        () => true,
        () => false,
      );
      if (!isThere) return undefined;
      const skipped = await readFile(skippedCountFile, "utf8").then(
        (text) => JSON.parse(text) as SkippedCounts,
        () => ({ total: 0, by_reason: {} }),
      );
      return { total: Number(await readFile(countFile, "utf8")), skipped };
    },

    remove: () => rm(path, { recursive: true, force: true }),
  };
}

/** null where there is no such file. */
async function readJson<T>(path: string): Promise<T | null> {
  return readFile(path, "utf8").then(
    (text) => JSON.parse(text) as T,
    () => null,
  );
}

/** How far a listing came that was interrupted, and what of its files belongs to that. */
interface Checkpoint {
  mark: string;
  counts: EntryCounts;
  entryBytes: number;
  skippedBytes: number;
}

/** Undefined where there is none, or its files are not what it says. */
async function readCheckpoint(
  listingFile: string,
  entryPart: string,
  skippedPart: string,
): Promise<Checkpoint | undefined> {
  const kept = await readJson<Checkpoint>(listingFile);
  const sizeOf = (file: string) =>
    stat(file).then(
      ({ size }) => size,
      () => -1,
    );
  if (!kept || (await sizeOf(entryPart)) < kept.entryBytes || (await sizeOf(skippedPart)) < kept.skippedBytes)
    return undefined;
  return kept;
}

/**
 * Gathers lines of JSON into large writes.
 * @param kept so many bytes that the file has already are kept
 */
async function openLines(path: string, kept = 0) {
  await (await open(path, "a", 0o600)).close();
  await truncate(path, kept);
  const file = await open(path, "a", 0o600);
  let text = "";
  let written = kept;
  const flush = async () => {
    const bytes = Buffer.from(text);
    await file.writeFile(bytes);
    written += bytes.length;
    text = "";
  };
  return {
    async add(value: unknown): Promise<void> {
      text += `${JSON.stringify(value)}\n`;
      if (text.length >= WRITE_SIZE) await flush();
    },
    /** Of all lines, also of those that are not written yet. */
    bytes: () => written + Buffer.byteLength(text),
    async sync(): Promise<void> {
      await flush();
      await file.datasync();
    },
    close: () => file.close(),
  };
}

/** The entries with their indices. */
export async function* readEntries(file: string): AsyncGenerator<{ index: number; text: string }> {
  for await (const { text, number, isWhole } of readLines(file)) {
    if (!isWhole) throw new InfermillError(`${file} was cut off in its line ${number}`);
    yield { index: number - 1, text };
  }
}

export function noSuchRun(id: string): BulkRunNotFoundError {
  return new BulkRunNotFoundError(`there is no bulk run ${JSON.stringify(id.slice(0, 100))}`);
}

/** Whoever reads the file sees all of it or nothing, after a power cut, too. */
async function writeWhole(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const part = `${path}.part`;
  const file = await open(part, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(part, path);
}
