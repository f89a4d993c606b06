/** Annotated copies of a run's pictures, drawn while its entries end: by its coordinator, or by the command that runs it. */
import type { Stats } from "node:fs";
import { readFile, realpath, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Logger } from "pino";
import { isBelow, openBelowRoot, rootNames, type RootedPath } from "../config/bulkRoots.ts";
import type { Config } from "../config/schema.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import type { CopyCounts } from "../core/bulkSummary.ts";
import { toFilePath } from "../core/filePaths.ts";
import { BadInputError } from "../errors.ts";
import { findingsOf } from "../imil/response.ts";
import { followResults } from "./resultsFile.ts";
import type { BulkSpec } from "./spec.ts";

/** Copies that are drawn side by side. */
const PARALLEL_COPIES = 2;

/**
 * The folder into which a run of a server may write its copies.
 * @throws BadInputError where no root of that name is configured, or copies could take the place of originals
 */
export async function folderForCopies(
  { root, path }: RootedPath,
  { annotate_roots, bulk_roots }: Pick<Config, "annotate_roots" | "bulk_roots">,
): Promise<string> {
  if (!Object.hasOwn(annotate_roots, root))
    throw new BadInputError(
      `annotate must begin with a root of annotate_roots (${rootNames(annotate_roots)}), got ${JSON.stringify([root, path].filter(Boolean).join("/"))}`,
    );
  const base = await realPlace(annotate_roots[root]!);
  for (const [name, folder] of Object.entries(bulk_roots)) {
    const originals = await realPlace(folder);
    if (base === originals || isBelow(base, originals) || isBelow(originals, base))
      throw new BadInputError(
        `annotate_roots.${root} and bulk_roots.${name} must be folders apart, or copies could take the place of originals`,
      );
  }
  return join(base, path);
}

/** The real path of what may not be there yet. */
export async function realPlace(path: string): Promise<string> {
  const real = await realpath(path).catch(() => undefined);
  return real ?? join(await realPlace(dirname(path)), basename(path));
}

interface CopyOptions {
  config: Pick<Config, "bulk_roots" | "max_picture_pixels">;
  spec: BulkSpec;
  /** Of the copies. */
  folder: string;
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
  { config, spec, folder }: CopyOptions,
): Promise<string | undefined> {
  const { source } = spec;
  if (path === undefined || !result || source.kind !== "folder") return undefined;
  const copy = join(folder, path);
  const made = await stat(toFilePath(copy)).catch(() =>
    stat(toFilePath(`${copy}.png`)).catch(() => undefined),
  );
  if (made && made.mtimeMs > spec.created) return undefined;
  const original = originalOf(source, path, config);
  const { annotatePicture } = await import("../annotate/annotate.ts");
  try {
    if (made && isSameFile(made, await original.stat()))
      return `${copy} is the picture itself and is left as it is`;
    await annotatePicture(original, findingsOf(result), copy, config.max_picture_pixels);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function originalOf(
  { root, folder }: Extract<BulkSpec["source"], { kind: "folder" }>,
  path: string,
  { bulk_roots }: Pick<Config, "bulk_roots">,
) {
  if (root === undefined) {
    const file = toFilePath(join(folder, path));
    return { name: join(folder, path), read: () => readFile(file), stat: () => stat(file) };
  }
  const place = { root, path: [folder, path].filter(Boolean).join("/") };
  const opened = async <T>(use: (file: Awaited<ReturnType<typeof openBelowRoot>>) => Promise<T>) => {
    const file = await openBelowRoot(place, bulk_roots);
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
  { spec, resultsFile, folder }: { spec: BulkSpec; resultsFile: string; folder: string },
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
        const faults = await drawCopies(some, { config, spec, folder });
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
