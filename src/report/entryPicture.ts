/** The picture of an entry, as far as this process can reach it: below a root, in a folder of the command line, or in a manifest. */
import { open } from "node:fs/promises";
import { openBelowRoot, OPEN_FLAGS } from "../config/bulkRoots.ts";
import { placeOfFile } from "../bulk/entry.ts";
import { readEntries, type RunFolder } from "../bulk/runFolder.ts";
import type { BulkEntry, BulkSpec } from "../bulk/spec.ts";
import { toFilePath } from "../core/filePaths.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import { sniffPicture, type PictureFormat } from "../core/pictureFormats.ts";
import { BadInputError, NotFoundError } from "../errors.ts";
import { decodeBase64 } from "../imil/requestPictures.ts";
import { readUprightSize, type UprightSize } from "../loaders/pictures/pictureHeader.ts";
import { locateObject, type PlacedObject, type StorageConfig } from "../storage/storage.ts";

/** Larger files are no pictures to show. */
const MAX_BYTES = 256 * 1024 * 1024;
/** Where most formats have said their size, behind a camera's notes. */
const HEADER_BYTES = 64 * 1024;

export interface EntryPicture {
  bytes: Buffer;
  format: PictureFormat;
}

type Place = ReturnType<typeof placeOfFile> | { bytes: Buffer };

/** @throws NotFoundError with the reason why it can't be reached from here, or is none */
export async function readEntryPicture(
  spec: BulkSpec,
  folder: RunFolder,
  result: Pick<BulkResult, "index" | "path">,
  config: StorageConfig,
): Promise<EntryPicture> {
  const bytes = await readPlace(await placeOf(spec, folder, result), config);
  const format = sniffPicture(bytes);
  if (!format) throw new NotFoundError(`entry ${result.index} is no picture`);
  return { bytes, format };
}

/**
 * TIFF and HEIC, which most browsers can't show, as a JPEG; all else as it is.
 * @throws BadInputError where it can't be decoded
 */
export async function forBrowsers(picture: EntryPicture, maxPixels: number): Promise<EntryPicture> {
  if (picture.format !== "TIFF" && picture.format !== "HEIC") return picture;
  const { uprightJpeg } = await import("../annotate/annotate.ts");
  return { format: "JPEG", bytes: await uprightJpeg(picture.bytes, maxPixels) };
}

/**
 * The upright size of an entry's picture, from its header where that says it.
 * @throws NotFoundError as above
 */
export async function readEntrySize(
  spec: BulkSpec,
  folder: RunFolder,
  result: Pick<BulkResult, "index" | "path">,
  config: StorageConfig,
): Promise<UprightSize> {
  const place = await placeOf(spec, folder, result);
  const head = await readPlace(place, config, HEADER_BYTES);
  const format = sniffPicture(head);
  const size = format && readUprightSize(head, format);
  if (size) return size;
  const { default: sharp } = await import("sharp");
  const { autoOrient } = await sharp(await readPlace(place, config)).metadata();
  return autoOrient;
}

async function placeOf(
  spec: BulkSpec,
  folder: RunFolder,
  { index, path }: Pick<BulkResult, "index" | "path">,
): Promise<Place> {
  if (spec.source.kind === "manifest") return placeInManifest(folder, index);
  // The results may be a user's own file, and are no reason to read another folder.
  if (path === undefined || path.startsWith("/") || path.split(/[/\\]/).includes(".."))
    throw new NotFoundError(`entry ${index} names no file of its folder`);
  return placeOfFile(spec, path);
}

async function placeInManifest(folder: RunFolder, index: number): Promise<Place> {
  for await (const entry of readEntries(folder.entriesFile)) {
    if (entry.index !== index) continue;
    const parsed = JSON.parse(entry.text) as BulkEntry;
    if (typeof parsed === "string") break;
    const [base64] = parsed.base64 ?? [];
    if (base64 !== undefined) return { bytes: decodeBase64(base64, "image") };
    const [ref] = parsed.refs ?? [];
    if (ref && "root" in ref) return ref;
    if (ref && "url" in ref)
      throw new NotFoundError(`the picture of entry ${index} is at ${ref.url} and is not kept here`);
    break;
  }
  throw new NotFoundError(`entry ${index} brought no picture that is kept`);
}

/** @param first so many bytes only */
async function readPlace(place: Place, config: StorageConfig, first?: number): Promise<Buffer> {
  if ("bytes" in place) return place.bytes;
  const stored = locateObject(place, config);
  if (stored) return readObject(stored, first);
  const { bulk_roots } = config;
  const name = "root" in place ? `${place.root}/${place.path}` : "path" in place ? place.path : place.object;
  try {
    const file =
      "root" in place ? await openBelowRoot(place, bulk_roots) : await open(toFilePath(name), OPEN_FLAGS);
    try {
      const stats = await file.stat();
      if (!stats.isFile()) throw new NotFoundError(`${name} is no file`);
      if (stats.size > MAX_BYTES) throw new NotFoundError(`${name} is larger than ${MAX_BYTES} bytes`);
      if (first === undefined) return await file.readFile();
      const { buffer, bytesRead } = await file.read(Buffer.alloc(first), 0, first, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof NotFoundError) throw cause;
    const why = cause instanceof BadInputError ? cause.message : (cause as NodeJS.ErrnoException).code;
    throw new NotFoundError(`${name} can't be read from here: ${why}`, { cause });
  }
}

async function readObject({ folder, path }: PlacedObject, first: number | undefined): Promise<Buffer> {
  const name = folder.nameOf(path);
  const mayHold = (bytes: number) => {
    if (bytes > MAX_BYTES) throw new NotFoundError(`${name} is larger than ${MAX_BYTES} bytes`);
    return undefined;
  };
  try {
    return await folder.read(path, first === undefined ? { mayHold } : { first });
  } catch (cause) {
    if (cause instanceof NotFoundError) throw cause;
    throw new NotFoundError(`${name} can't be read from here: ${(cause as Error).message}`, { cause });
  }
}
