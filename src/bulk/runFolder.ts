/** The files of a bulk run: `<data_dir>/bulk/<id>/` with run.json, entries.ndjson and results.ndjson. */
import { access, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Config } from "../config/schema.ts";
import { BulkRunNotFoundError, InfermillError } from "../errors.ts";
import { isBulkRunId } from "../queue/names.ts";
import { readLines } from "./lines.ts";
import type { BulkEntry, BulkSpec } from "./spec.ts";

/** Text that is gathered before it is written, in characters. */
const WRITE_SIZE = 64 * 1024;

export function bulkFolder(config: Pick<Config, "data_dir">): string {
  return join(config.data_dir, "bulk");
}

export interface RunFolder {
  readonly path: string;
  readonly entriesFile: string;
  /** @throws BulkRunNotFoundError */
  readSpec(): Promise<BulkSpec>;
  writeSpec(spec: BulkSpec): Promise<void>;
  /**
   * Writes all entries, as they come, and only then gives the file its name; answers how many, or undefined where
   * `stop` was aborted on the way.
   */
  writeEntries(entries: AsyncIterable<BulkEntry>, stop?: AbortSignal): Promise<number | undefined>;
  /** The number of entries; undefined while they are not all written. */
  countEntries(): Promise<number | undefined>;
  remove(): Promise<void>;
}

/** @throws BulkRunNotFoundError where no run can have this id */
export function openRunFolder(config: Pick<Config, "data_dir">, id: string): RunFolder {
  if (!isBulkRunId(id)) throw noSuchRun(id);
  const path = join(bulkFolder(config), id);
  const entriesFile = join(path, "entries.ndjson");
  const countFile = join(path, "entries.count");
  const specFile = join(path, "run.json");
  return {
    path,
    entriesFile,

    async readSpec() {
      const text = await readFile(specFile, "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") throw noSuchRun(id);
        throw error;
      });
      return JSON.parse(text) as BulkSpec;
    },

    async writeSpec(spec) {
      await mkdir(path, { recursive: true });
      await writeWhole(specFile, `${JSON.stringify(spec, null, 2)}\n`);
    },

    async writeEntries(entries, stop) {
      await mkdir(path, { recursive: true });
      const part = `${entriesFile}.part`;
      const file = await open(part, "w");
      let count = 0;
      try {
        let text = "";
        for await (const entry of entries) {
          text += `${JSON.stringify(entry)}\n`;
          count++;
          if (text.length < WRITE_SIZE) continue;
          await file.writeFile(text);
          text = "";
        }
        await file.writeFile(text);
        // Before it gets its name: a power cut must not leave a part of it under this name.
        await file.datasync();
      } finally {
        await file.close();
      }
      if (stop?.aborted) return undefined;
      // Beside it, so that a resumed run need not read a million lines to know it.
      await writeWhole(countFile, String(count));
      await rename(part, entriesFile);
      return count;
    },

    async countEntries() {
      const isThere = await access(entriesFile).then(
        () => true,
        () => false,
      );
      return isThere ? Number(await readFile(countFile, "utf8")) : undefined;
    },

    remove: () => rm(path, { recursive: true, force: true }),
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
  await mkdir(dirname(path), { recursive: true });
  const part = `${path}.part`;
  const file = await open(part, "w");
  try {
    await file.writeFile(text);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(part, path);
}
