/** One entry of a bulk run: from the folder or the manifest to what is sent of it. */
import { realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { placeOfRoot, realFolder, type BulkRoots, type RootedPath } from "../config/bulkRoots.ts";
import type { Config } from "../config/schema.ts";
import { isStorageUrl } from "../config/storagePlace.ts";
import { BadInputError } from "../errors.ts";
import { decodeBase64 } from "../imil/requestPictures.ts";
import type { BulkEntryData } from "../queue/bulkChunks.ts";
import type { BulkEntry, BulkSpec } from "./spec.ts";
import { openStorage, placeOfUrl, type StorageConfig } from "../storage/storage.ts";
import { PATIENCE_MS, type StorageFolder, type StorageOptions } from "../storage/storageFolder.ts";
import { walkFolder, type Skipped } from "./walk.ts";
import { walkObjects, type Listed } from "./walkObjects.ts";

/** An entry that is to be sent, or was. */
export interface Entry extends BulkEntryData {
  /** What its line is recognised by: the key `path` or `custom_id` as JSON, behind a comma. */
  label: string;
  /** Pictures that came inside the manifest: stored while it is in the queue only. */
  ownPictures: Buffer[];
  /** Of it in the list of the run, its pictures as bytes. */
  bytes: number;
}

const NONE: Buffer[] = [];

/** @param text its line of `entries.ndjson` */
export function readEntry(index: number, text: string, spec: BulkSpec): Entry {
  const entry = JSON.parse(text) as BulkEntry;
  if (typeof entry === "string")
    return {
      index,
      inputs: [placeOfFile(spec, entry)],
      label: `,"path":${text}`,
      ownPictures: NONE,
      bytes: text.length,
    };
  const { custom_id, request, refs = [], base64 = [] } = entry;
  const ownPictures = base64.length > 0 ? base64.map((each) => decodeBase64(each, "image")) : NONE;
  return {
    index,
    ...(request && { request }),
    inputs: [...refs],
    label: custom_id === undefined ? "" : `,"custom_id":${JSON.stringify(custom_id)}`,
    ownPictures,
    bytes: text.length - sumOfLengths(base64) + sumOfLengths(ownPictures),
  };
}

function sumOfLengths(list: readonly { length: number }[]): number {
  return list.reduce((sum, { length }) => sum + length, 0);
}

/** Where a file of the run's folder is. */
export function placeOfFile(
  { source }: BulkSpec,
  path: string,
): { object: string } | { path: string } | RootedPath {
  if (source.kind !== "folder") throw new Error("a manifest's entries name their files themselves");
  if (isStorageUrl(source.folder) && source.root === undefined) return { object: `${source.folder}/${path}` };
  if (source.root === undefined) return { path: join(source.folder, path) };
  return { root: source.root, path: source.folder === "" ? path : `${source.folder}/${path}` };
}

/**
 * The files of the run's folder, and what is left out, as they are found, until `stop`.
 * @param after the mark behind which an interrupted listing is resumed
 * @param onAway is told whenever object storage is waited for
 */
export async function* listFolder(
  { source }: BulkSpec,
  config: Config,
  stop: AbortSignal,
  { after, onAway }: { after?: string | undefined; onAway?: StorageOptions["onAway"] } = {},
): AsyncGenerator<string | Skipped | Listed> {
  if (source.kind !== "folder") throw new Error("a manifest's entries are written when it arrives");
  const { glob } = source;
  const stored = storageOfRun(source, config, { patienceMs: PATIENCE_MS, signal: stop, onAway });
  const found = stored
    ? walkObjects(stored.folder, stored.below, { glob, after })
    : walkFiles(await folderOfRun(source, config.bulk_roots), glob);
  for await (const each of found) {
    if (stop.aborted) return;
    yield each;
  }
}

function walkFiles({ folder, within }: Awaited<ReturnType<typeof folderOfRun>>, glob: string | undefined) {
  return walkFolder(folder, { glob, within });
}

/** The place of object storage that a run goes over, and the path in it; undefined for a folder. */
export function storageOfRun(
  { root, folder }: { root?: string | undefined; folder: string },
  config: StorageConfig,
  options?: StorageOptions,
): { folder: StorageFolder; below: string } | undefined {
  const place = placeOfRoot(root, config.bulk_roots);
  if (place) return { folder: openStorage(place, { ...options, label: root }), below: folder };
  if (root !== undefined || !isStorageUrl(folder)) return undefined;
  return { folder: openStorage(placeOfUrl(folder, config), options), below: "" };
}

/** @throws BadInputError where there is nothing below the path that a run is to go over, StorageUnavailableError */
export async function checkFolderOfRun(
  source: { root?: string | undefined; folder: string },
  config: StorageConfig,
): Promise<void> {
  const stored = storageOfRun(source, config);
  if (!stored) return void (await folderOfRun(source, config.bulk_roots));
  if (await stored.folder.hasObjects(stored.below)) return;
  throw new BadInputError(`there are no objects below ${stored.folder.nameOf(stored.below)}`);
}

/**
 * The real folder that a run is to walk, and the one that it must not leave.
 * @throws BadInputError where there is none, or a link leads out of its root
 */
export async function folderOfRun(
  { root, folder }: { root?: string | undefined; folder: string },
  roots: BulkRoots,
): Promise<{ folder: string; within: string | undefined }> {
  const found =
    root === undefined
      ? { folder: await realpath(folder).catch(() => folder), within: undefined }
      : await realFolder({ root, path: folder }, roots);
  const name = root === undefined ? folder : [root, folder].filter(Boolean).join("/");
  const stats = await stat(found.folder).catch((cause: unknown) => {
    throw new BadInputError(`there is no folder ${name}`, { cause });
  });
  if (!stats.isDirectory()) throw new BadInputError(`${name} must be a folder, it is a file`);
  return found;
}
