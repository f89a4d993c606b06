/**
 * Opens places of object storage. What a kind of storage needs is loaded only once something there is asked for, so
 * that those who have none pay nothing.
 */
import { createReadStream } from "node:fs";
import { placeOfRoot, type BulkRoot } from "../config/bulkRoots.ts";
import { splitStorageUrl, toStoragePlace, type StoragePlace } from "../config/storagePlace.ts";
import type { Config } from "../config/schema.ts";
import type { ObjectStore } from "./objectStore.ts";
import { PATIENCE_MS, StorageFolder, type StorageOptions } from "./storageFolder.ts";

/** By the scheme of their URLs. */
const STORES: Readonly<Record<string, (place: StoragePlace) => Promise<ObjectStore>>> = {
  s3: async (place) => (await import("./s3.ts")).openS3(place),
};

/** What says where objects are and how they are reached. */
export type StorageConfig = Pick<Config, "bulk_roots" | "annotate_roots" | "results_roots" | "s3">;

/** An object in its place. */
export interface PlacedObject {
  folder: StorageFolder;
  path: string;
}

export function openStorage(place: StoragePlace, options?: StorageOptions): StorageFolder {
  return new StorageFolder(place, openLater(place), options);
}

/** A place by its URL, as it stands on a command line: reached as a root of the same bucket is, if there is one. */
export function placeOfUrl(
  url: string,
  { s3, bulk_roots, annotate_roots, results_roots }: StorageConfig,
): StoragePlace {
  const { bucket } = splitStorageUrl(url);
  const same = [bulk_roots, annotate_roots, results_roots]
    .flatMap(Object.values<BulkRoot>)
    .find((root) => typeof root !== "string" && splitStorageUrl(root.url).bucket === bucket);
  return toStoragePlace({ ...(same as StoragePlace | undefined), url }, s3);
}

/** Where something that is named by reference lies in object storage; undefined where it is none. */
export function locateObject(
  ref: object | { root: string; path: string } | { object: string },
  config: StorageConfig,
  options?: StorageOptions,
): PlacedObject | undefined {
  if ("root" in ref) {
    const place = placeOfRoot(ref.root, config.bulk_roots);
    return place && { folder: openStorage(place, { ...options, label: ref.root }), path: ref.path };
  }
  if (!("object" in ref)) return undefined;
  const { bucket, key } = splitStorageUrl(ref.object);
  return { folder: openStorage(placeOfUrl(`s3://${bucket}`, config), options), path: key };
}

/** An object by its URL, as it stands on a command line. */
export function objectOfUrl(url: string, config: StorageConfig, options?: StorageOptions): PlacedObject {
  return locateObject({ object: url }, config, options)!;
}

/** Uploads a file, which is seen whole or not at all. */
export async function putFile(
  file: string,
  url: string,
  mediaType: string,
  config: StorageConfig,
): Promise<void> {
  const { folder, path } = objectOfUrl(url, config, { patienceMs: PATIENCE_MS });
  await folder.put(path, () => createReadStream(file), mediaType);
}

const opened = new Map<string, Promise<ObjectStore>>();

/** One store for all places of a bucket that are reached alike, with its connections. */
function openLater(place: StoragePlace): ObjectStore {
  const open = () => {
    const { url, region, endpoint, path_style } = place;
    const bucket = url.split("/", 3).join("/");
    const key = JSON.stringify([bucket, region, endpoint, path_style]);
    const known = opened.get(key);
    if (known) return known;
    const store = STORES[url.slice(0, url.indexOf(":"))]!({ ...place, url: bucket });
    opened.set(key, store);
    return store;
  };
  return {
    list: async (...call) => (await open()).list(...call),
    open: async (...call) => (await open()).open(...call),
    find: async (...call) => (await open()).find(...call),
    put: async (...call) => (await open()).put(...call),
    remove: async (...call) => (await open()).remove(...call),
  };
}
