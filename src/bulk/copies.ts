/** Annotated copies of a run's pictures, drawn while its entries end: by its coordinator, or by the command that runs it. */
import type { Stats } from "node:fs";
import { readFile, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import type { Logger } from "pino";
import type { WriteCopy } from "../annotate/annotate.ts";
import { openBelowRoot, rootNames, type BulkRoot, type RootedPath } from "../config/bulkRoots.ts";
import type { Config } from "../config/schema.ts";
import { isStorageUrl } from "../config/storagePlace.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import type { CopyCounts } from "../core/bulkSummary.ts";
import { toFilePath } from "../core/filePaths.ts";
import { BadInputError } from "../errors.ts";
import { findingsOf } from "../imil/response.ts";
import { openStorage, placeOfUrl, type StorageConfig } from "../storage/storage.ts";
import { PATIENCE_MS, type StorageFolder } from "../storage/storageFolder.ts";
import { storageOfRun } from "./entry.ts";
import { followResults } from "./resultsFile.ts";
import type { BulkSpec } from "./spec.ts";

/** Copies that are drawn side by side. */
const PARALLEL_COPIES = 2;

/** Where copies go: a folder of this machine, or a place of object storage. */
export type CopyPlace = string | { folder: StorageFolder; below: string };

/**
 * The place into which a run of a server may write its copies.
 * @throws BadInputError where no root of that name is configured, or copies could take the place of originals
 */
export async function placeForCopies({ root, path }: RootedPath, config: StorageConfig): Promise<CopyPlace> {
  const { annotate_roots, bulk_roots } = config;
  if (!Object.hasOwn(annotate_roots, root))
    throw new BadInputError(
      `annotate must begin with a root of annotate_roots (${rootNames(annotate_roots)}), got ${JSON.stringify([root, path].filter(Boolean).join("/"))}`,
    );
  const base = await realRoot(annotate_roots[root]!);
  for (const [name, given] of Object.entries(bulk_roots))
    if (overlap(base, await realRoot(given)))
      throw new BadInputError(
        `annotate_roots.${root} and bulk_roots.${name} must be folders apart, or copies could take the place of originals`,
      );
  if (typeof base === "string") return join(base, path);
  return { folder: openStorage(base, { label: root, patienceMs: PATIENCE_MS }), below: path };
}

/** That of a run of the command line, which named it. */
export function placeForOwnCopies(name: string, config: StorageConfig): CopyPlace {
  if (!isStorageUrl(name)) return name;
  return { folder: openStorage(placeOfUrl(name, config), { patienceMs: PATIENCE_MS }), below: "" };
}

async function realRoot(root: BulkRoot): Promise<BulkRoot> {
  return typeof root === "string" ? realPlace(root) : root;
}

/** Whether one of two places is the other, or lies in it. */
export function overlap(a: BulkRoot, b: BulkRoot): boolean {
  if (typeof a === "string" || typeof b === "string")
    return typeof a === typeof b && contains(a as string, b as string, sep);
  return a.endpoint === b.endpoint && contains(a.url, b.url, "/");
}

function contains(a: string, b: string, separator: string): boolean {
  const [first, second] = [a, b].map((place) => (place.endsWith(separator) ? place : place + separator));
  return first!.startsWith(second!) || second!.startsWith(first!);
}

/** The real path of what may not be there yet. */
export async function realPlace(path: string): Promise<string> {
  const real = await realpath(path).catch(() => undefined);
  return real ?? join(await realPlace(dirname(path)), basename(path));
}

interface CopyOptions {
  config: StorageConfig & Pick<Config, "max_picture_pixels">;
  spec: BulkSpec;
  /** Of the copies. */
  place: CopyPlace;
}

/**
 * Draws the copies of some entries, unless they were made before the run was interrupted.
 * @returns for each that could not be drawn, why
 */
export async function drawCopies(results: readonly BulkResult[], options: CopyOptions): Promise<string[]> {
  const faults: string[] = [];
  for (let start = 0; start < results.length; start += PARALLEL_COPIES) {
    const some = results.slice(start, start + PARALLEL_COPIES);
    const outcomes = await Promise.all(some.map((result) => drawCopy(result, options)));
    faults.push(...outcomes.filter((fault) => fault !== undefined));
  }
  return faults;
}

async function drawCopy(
  { path, result }: BulkResult,
  { config, spec, place }: CopyOptions,
): Promise<string | undefined> {
  const { source } = spec;
  if (path === undefined || !result || source.kind !== "folder") return undefined;
  const original = originalOf(source, path, config);
  try {
    const copy =
      typeof place === "string" ? await fileToWrite(place, path) : await objectToWrite(place, path);
    if (copy.made !== undefined && copy.made > spec.created) return undefined;
    if (copy.stats && original.stat && isSameFile(copy.stats, await original.stat()))
      return `${copy.name} is the picture itself and is left as it is`;
    const { annotatePicture } = await import("../annotate/annotate.ts");
    await annotatePicture(original, findingsOf(result), copy.target, config.max_picture_pixels);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** A copy, and when one was made already. */
interface CopyToWrite {
  name: string;
  made: number | undefined;
  stats?: Stats | undefined;
  target: string | WriteCopy;
}

async function fileToWrite(folder: string, path: string): Promise<CopyToWrite> {
  const target = join(folder, path);
  const stats = await stat(toFilePath(target)).catch(() =>
    stat(toFilePath(`${target}.png`)).catch(() => undefined),
  );
  return { name: target, made: stats?.mtimeMs, stats, target };
}

async function objectToWrite(
  { folder, below }: Exclude<CopyPlace, string>,
  path: string,
): Promise<CopyToWrite> {
  const whole = [below, path].filter(Boolean).join("/");
  const found = (await folder.find(whole)) ?? (await folder.find(`${whole}.png`));
  return {
    name: folder.nameOf(whole),
    made: found?.modified,
    target: (bytes, suffix, mediaType) => folder.put(whole + suffix, bytes, mediaType),
  };
}

interface Original {
  name: string;
  read: () => Promise<Buffer>;
  /** Of a file. */
  stat?: () => Promise<Stats>;
}

function originalOf(
  source: Extract<BulkSpec["source"], { kind: "folder" }>,
  path: string,
  config: StorageConfig,
): Original {
  const { root, folder } = source;
  const stored = storageOfRun(source, config, { patienceMs: PATIENCE_MS });
  if (stored) {
    const whole = [stored.below, path].filter(Boolean).join("/");
    return { name: stored.folder.nameOf(whole), read: () => stored.folder.read(whole) };
  }
  if (root === undefined) {
    const file = toFilePath(join(folder, path));
    return { name: join(folder, path), read: () => readFile(file), stat: () => stat(file) };
  }
  const place = { root, path: [folder, path].filter(Boolean).join("/") };
  const opened = async <T>(use: (file: Awaited<ReturnType<typeof openBelowRoot>>) => Promise<T>) => {
    const file = await openBelowRoot(place, config.bulk_roots);
    try {
      return await use(file);
    } finally {
      await file.close();
    }
  };
  return {
    name: `${place.root}/${place.path}`,
    read: () => opened((file) => file.readFile()),
    stat: () => opened((file) => file.stat()),
  };
}

function isSameFile(a: Stats, b: Stats): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

export interface RunningCopies {
  /** Until a copy of every entry is drawn whose line is there. */
  finish(): Promise<CopyCounts>;
}

/**
 * Draws a copy of each entry of a server's run as it ends.
 * @param signal aborted to stop in between
 */
export function startCopies(
  { spec, resultsFile, place }: { spec: BulkSpec; resultsFile: string; place: CopyPlace },
  { config, log, signal }: { config: Config; log: Logger; signal: AbortSignal },
): RunningCopies {
  let isOver = false;
  const counts: CopyCounts = { drawn: 0, failed: 0, first_failure: null };
  const draw = async () => {
    const { canWriteLabels } = await import("../annotate/annotate.ts");
    if (!(await canWriteLabels()))
      log.warn("no font is installed: annotated copies come without labels (on Debian: fonts-dejavu-core)");
    for await (const lines of followResults(resultsFile, { hasEnded: async () => isOver, signal })) {
      const results = lines
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as BulkResult)
        .filter(({ status }) => status === "succeeded");
      for (let start = 0; start < results.length && !signal.aborted; start += PARALLEL_COPIES) {
        const some = results.slice(start, start + PARALLEL_COPIES);
        const faults = await drawCopies(some, { config, spec, place });
        counts.drawn += some.length - faults.length;
        counts.failed += faults.length;
        counts.first_failure ??= faults[0] ?? null;
      }
    }
  };
  const drawing = draw();
  // Its fault is met in finish.
  drawing.catch(() => {});
  return {
    async finish() {
      isOver = true;
      await drawing;
      if (counts.failed > 0)
        log.warn(
          { run: spec.id },
          `${counts.failed} annotated copies could not be drawn: ${counts.first_failure}`,
        );
      return counts;
    },
  };
}
