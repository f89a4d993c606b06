/**
 * The files of a folder as they are found, never all names at once. Dot-files
 * and dot-folders are skipped, links to folders are not followed, and only
 * regular files count.
 */
import type { Dirent } from "node:fs";
import { opendir, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import picomatch from "picomatch";
import { BadInputError } from "../errors.ts";

/** What a folder's pictures are called where no pattern says otherwise. */
const PICTURES = "**/*.{jpg,jpeg,png,webp}";

/** A pattern with more of them between two slashes can take for ever on a long name. */
const MAX_STARS = 5;

export interface WalkOptions {
  /** Which files, by their path below the folder; one without a slash is matched with the name alone. Default: pictures. */
  glob?: string | undefined;
  /** Links to files that lead out of this real folder are skipped. Default: they are followed. */
  within?: string | undefined;
}

/**
 * Paths below the folder, with "/". A subfolder that can't be opened comes as a path that ends in "/", so that it
 * shows in the results.
 */
export async function* walkFolder(folder: string, options: WalkOptions = {}): AsyncGenerator<string> {
  yield* walk(folder, "", createMatcher(options.glob), options.within);
}

/** @throws BadInputError where it is no pattern */
export function createMatcher(glob: string | undefined): (path: string) => boolean {
  if (glob === undefined) return picomatch(PICTURES, { nocase: true });
  if (glob === "" || glob.startsWith("/") || glob.split("/").includes("..")) {
    throw new BadInputError(
      `glob must be a pattern for paths below the folder, such as "2024/**/*.jpg", got ${JSON.stringify(glob)}`,
    );
  }
  for (const part of glob.split("/")) {
    const stars = part.match(/\*+|[!+]\(/g)?.length ?? 0;
    if (stars > MAX_STARS)
      throw new BadInputError(
        `glob may have up to ${MAX_STARS} * between two slashes, got ${stars} in ${JSON.stringify(part.slice(0, 100))}`,
      );
  }
  return picomatch(glob, { basename: !glob.includes("/") });
}

async function* walk(
  folder: string,
  below: string,
  matches: (path: string) => boolean,
  within: string | undefined,
): AsyncGenerator<string> {
  const entries = await opendir(join(folder, below), { bufferSize: 256 }).catch((error: unknown) => {
    if (below === "") throw error;
    return undefined;
  });
  if (!entries) {
    yield `${below}/`;
    return;
  }
  for await (const entry of entries) {
    if (entry.name.startsWith(".")) continue;
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) yield* walk(folder, path, matches, within);
    else if (matches(path) && (await isFile(entry, join(folder, path), within))) yield path;
  }
}

async function isFile(entry: Dirent, path: string, within: string | undefined): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isFile();
  const target = await realpath(path).catch(() => undefined);
  if (target === undefined || (within !== undefined && !target.startsWith(within + sep))) return false;
  return (await stat(target)).isFile();
}
