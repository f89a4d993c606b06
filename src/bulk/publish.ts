/** The results of a run of a server, also below one of `results_roots`: there once it is completed, whole or not at all. */
import { copyFile, mkdir, rename, rm, stat } from "node:fs/promises";
import { createReadStream } from "node:fs";
import { dirname, join } from "node:path";
import { isBelow, parseFolderName, rootNames, type RootedPath } from "../config/bulkRoots.ts";
import { BadInputError } from "../errors.ts";
import { MissingBucketError } from "../storage/objectStore.ts";
import { openStorage, type PlacedObject, type StorageConfig } from "../storage/storage.ts";
import { PATIENCE_MS } from "../storage/storageFolder.ts";
import { realPlace } from "./copies.ts";

const MEDIA_TYPE = "application/x-ndjson";
const ENDING = /\.(ndjson|jsonl)$/;

/** A file of this machine, or an object. */
type ResultsPlace = string | PlacedObject;

/**
 * Reads `<root>/<path>`, the way clients name the file of the results.
 * @throws BadInputError where no such root is configured, or something is there already
 */
export async function readResultsName(text: string, config: StorageConfig): Promise<RootedPath> {
  const place = parseFolderName(text, config.results_roots, { key: "results", setting: "results_roots" });
  if (!ENDING.test(place.path))
    throw new BadInputError(
      `results must name a file that ends in .ndjson, such as ${place.root}/results.ndjson, got ${JSON.stringify(text.slice(0, 200))}`,
    );
  const found = await placeForResults(place, config);
  const isThere =
    typeof found === "string" ? await stat(found).catch(() => undefined) : await findObject(found);
  if (isThere) throw new BadInputError(`results: ${text} is there already; name another, or remove it`);
  return place;
}

/** Whether it may be written to is seen only at the end. @throws MissingBucketError */
async function findObject({ folder, path }: PlacedObject) {
  const found = await folder.find(path);
  // An object that is missing doesn't say that its bucket is, and a list may be refused.
  if (!found)
    await folder.hasObjects().catch((error: unknown) => {
      if (error instanceof MissingBucketError) throw error;
    });
  return found;
}

/** Copies them there; again where it was done before. @throws BadInputError, StorageUnavailableError */
export async function publishResults(file: string, name: RootedPath, config: StorageConfig): Promise<void> {
  const place = await placeForResults(name, config, PATIENCE_MS);
  if (typeof place !== "string") {
    await place.folder.put(place.path, () => createReadStream(file), MEDIA_TYPE);
    return;
  }
  const part = `${place}.part`;
  try {
    await mkdir(dirname(place), { recursive: true });
    await copyFile(file, part);
    await rename(part, place);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}

async function placeForResults(
  { root, path }: RootedPath,
  { results_roots: roots }: StorageConfig,
  patienceMs = 0,
): Promise<ResultsPlace> {
  const name = `${root}/${path}`;
  if (!Object.hasOwn(roots, root))
    throw new BadInputError(
      `results must begin with a root of results_roots (${rootNames(roots)}), got ${JSON.stringify(name)}`,
    );
  const base = roots[root]!;
  if (typeof base !== "string") return { folder: openStorage(base, { label: root, patienceMs }), path };
  const file = await realPlace(join(base, path));
  if (!isBelow(file, await realPlace(base))) throw new BadInputError(`${name} leads out of its root`);
  return file;
}
