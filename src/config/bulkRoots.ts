/**
 * Every rule of `bulk_roots`: how clients name what lies below a root, and what must not be reached through one. A name
 * is `<root>/<path>`; it never leads upwards, and no link leads out of its root, whenever it is made.
 */
import { closeSync, constants, fstatSync, openSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { open, realpath, stat, type FileHandle } from "node:fs/promises";
import { join, sep } from "node:path";
import { decodeFileName, toFilePath } from "../core/filePaths.ts";
import { BadInputError } from "../errors.ts";
import type { StoragePlace } from "./storagePlace.ts";

/** An absolute folder, or a place of object storage. */
export type BulkRoot = string | StoragePlace;

/** By the name of the root. */
export type BulkRoots = Readonly<Record<string, BulkRoot>>;

/** Those that are folders: all that an engine reads by itself. */
export function folderRoots(roots: BulkRoots): Record<string, string> {
  return Object.fromEntries(
    Object.entries(roots).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}

/** The place of object storage that a root is; undefined where it is a folder, or there is none of this name. */
export function placeOfRoot(root: string | undefined, roots: BulkRoots): StoragePlace | undefined {
  if (root === undefined || !Object.hasOwn(roots, root)) return undefined;
  const found = roots[root]!;
  return typeof found === "string" ? undefined : found;
}

/** Something below a root; the path is empty for the root itself. */
export interface RootedPath {
  root: string;
  path: string;
}

/** The names of the roots, for messages. */
export function rootNames(roots: BulkRoots): string {
  return Object.keys(roots).join(", ") || "none is configured";
}

/** Whether a text names something below a root that there is. */
export function namesRoot(text: string, roots: BulkRoots): boolean {
  return text.includes("/") && Object.hasOwn(roots, text.slice(0, text.indexOf("/")));
}

/**
 * Reads `<root>/<path>`, the way clients name a file.
 * @throws BadInputError where the root is unknown or the path is absolute or leads upwards.
 */
export function parseFileName(text: string, roots: BulkRoots): RootedPath {
  const slash = text.indexOf("/");
  const path = text.slice(slash + 1);
  if (path === "" || !namesRoot(text, roots)) {
    throw new BadInputError(
      `image must be <root>/<path> with a root of bulk_roots (${rootNames(roots)}), got ${shown(text)}`,
    );
  }
  if (path.startsWith("/") || leadsUpwards(path))
    throw new BadInputError(`image must stay below its root, got ${shown(text)}`);
  return { root: text.slice(0, slash), path };
}

/**
 * Reads `<root>` or `<root>/<path>`, the way clients name a folder.
 * @param setting names the roots
 * @throws BadInputError where it is absolute or leads upwards; whether the root is known is `realFolder`'s to say
 */
export function parseFolderName(
  text: string,
  roots: BulkRoots,
  { key, setting } = { key: "folder", setting: "bulk_roots" },
): RootedPath {
  const [root, ...path] = text.split("/").filter((part) => part !== "" && part !== ".");
  if (root === undefined || text.startsWith("/") || leadsUpwards(path.join("/"))) {
    throw new BadInputError(
      `${key} must be <root>/<path> with a root of ${setting} (${rootNames(roots)}), got ${shown(text)}`,
    );
  }
  return { root, path: path.join("/") };
}

function leadsUpwards(path: string): boolean {
  return path.includes("\0") || path.split(/[/\\]/).includes("..");
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}

/**
 * The real folder that a name leads to, and the real root that what is found in it must not leave.
 * @throws BadInputError where there is none, or a link leads out of its root
 */
export async function realFolder(
  { root, path }: RootedPath,
  roots: BulkRoots,
): Promise<{ folder: string; within: string }> {
  const name = [root, path].filter(Boolean).join("/");
  if (!Object.hasOwn(roots, root)) {
    throw new BadInputError(
      `folder must begin with a root of bulk_roots (${rootNames(roots)}), got ${JSON.stringify(name)}`,
    );
  }
  const missing = (cause: unknown) => {
    throw new BadInputError(`there is no folder ${name}`, { cause });
  };
  const base = roots[root]!;
  if (typeof base !== "string") throw new BadInputError(`${name} is no folder of this machine`);
  const within = await realpath(base).catch(missing);
  const folder = await realpath(join(within, path)).catch(missing);
  if (folder !== within && !isBelow(folder, within))
    throw new BadInputError(`${name} leads out of its bulk root`);
  return { folder, within };
}

/** Whether a real path lies below a real folder. */
export function isBelow(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/** A pipe that nobody writes to would hold up a plain open for ever. */
export const OPEN_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

/**
 * Opens a file below a root, and checks what was opened: a link that is made or changed in between leads nowhere.
 * @throws BadInputError where it lies outside; the error of the file system where it can't be opened
 */
export async function openBelowRoot({ root, path }: RootedPath, roots: BulkRoots): Promise<FileHandle> {
  const base = roots[root];
  if (typeof base !== "string") throw new BadInputError(`there is no bulk root "${root}" that is a folder`);
  const name = join(base, path);
  const within = realPathOf(base);
  // Side by side with the open; where both fail, the file's own fault is told.
  within.catch(() => {});
  const file = await open(toFilePath(name), OPEN_FLAGS);
  try {
    if (isBelow(await realPathOfOpened(file, name), await within)) return file;
    throw new BadInputError(`${root}/${path} leads out of its bulk root`);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The same, in this thread: for files that are at hand. @returns the file's descriptor */
export function openBelowRootNow({ root, path }: RootedPath, roots: BulkRoots): number {
  const base = roots[root];
  if (typeof base !== "string") throw new BadInputError(`there is no bulk root "${root}" that is a folder`);
  const name = join(base, path);
  const file = openSync(toFilePath(name), OPEN_FLAGS);
  try {
    if (isBelow(realPathOfOpenedNow(file, name), realPathNow(base))) return file;
    throw new BadInputError(`${root}/${path} leads out of its bulk root`);
  } catch (error) {
    closeSync(file);
    throw error;
  }
}

function realPathOfOpenedNow(file: number, name: string): string {
  try {
    return decodeFileName(readlinkSync(`/proc/self/fd/${file}`, { encoding: "buffer" }));
  } catch {
    const real = realPathNow(name);
    const [opened, named] = [fstatSync(file), statSync(toFilePath(real))];
    if (opened.dev === named.dev && opened.ino === named.ino) return real;
    throw new BadInputError(`${name} was changed while it was opened`);
  }
}

function realPathNow(path: string): string {
  return decodeFileName(realpathSync.native(toFilePath(path), { encoding: "buffer" }));
}

/** Linux knows where an open file lies; elsewhere its name is resolved once more, and must still lead to the same file. */
async function realPathOfOpened(file: FileHandle, name: string): Promise<string> {
  try {
    return decodeFileName(readlinkSync(`/proc/self/fd/${file.fd}`, { encoding: "buffer" }));
  } catch {
    const real = await realPathOf(name);
    const [opened, named] = await Promise.all([file.stat(), stat(toFilePath(real))]);
    if (opened.dev === named.dev && opened.ino === named.ino) return real;
    throw new BadInputError(`${name} was changed while it was opened`);
  }
}

async function realPathOf(path: string): Promise<string> {
  return decodeFileName(await realpath(toFilePath(path), { encoding: "buffer" }));
}
