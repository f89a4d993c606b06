/** Small pictures of entries with what was found drawn in, made when they are asked for and kept with the run's files. */
import { mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { RunFolder } from "../bulk/runFolder.ts";
import type { BulkSpec } from "../bulk/spec.ts";
import type { Config } from "../config/schema.ts";
import type { StorageConfig } from "../storage/storage.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import { findingsOf } from "../imil/response.ts";
import { readEntryPicture } from "./entryPicture.ts";

/** Of the long side, in pixels: sharp on a dense screen at half the size. */
const THUMBNAIL_SIZE = 320;
/** Drawn side by side in this process. */
const MAX_PARALLEL = 2;
/** Kept for a run: a newer one takes the place of an older one of the same slot. About 60 MB. */
const SLOTS = 4096;

export interface ThumbnailOptions {
  spec: BulkSpec;
  folder: RunFolder;
  config: StorageConfig & Pick<Config, "max_picture_pixels">;
  /** Whether findings are drawn in. Default: true. */
  annotated?: boolean;
}

let running = 0;
const waiting: (() => void)[] = [];

/**
 * A JPEG.
 * @throws NotFoundError where the entry's picture can't be reached from here
 * @throws BadInputError where it can't be decoded
 */
export async function readThumbnail(result: BulkResult, options: ThumbnailOptions): Promise<Buffer> {
  const { folder, annotated = true } = options;
  const place = join(folder.path, "thumbnails", String(result.index % SLOTS));
  const name = `${result.index}${annotated ? "" : "-plain"}.jpg`;
  const kept = await readFile(join(place, name)).catch(() => undefined);
  if (kept) return kept;
  const made = await drawThumbnail(result, options);
  await keep(place, name, made).catch(() => {});
  return made;
}

/** The same, always drawn anew. */
export async function drawThumbnail(
  result: BulkResult,
  { spec, folder, config, annotated = true }: ThumbnailOptions,
): Promise<Buffer> {
  // Whoever ends gives its place to the next one.
  if (running >= MAX_PARALLEL) await new Promise<void>((resolve) => waiting.push(resolve));
  else running++;
  try {
    const { bytes } = await readEntryPicture(spec, folder, result, config);
    const findings = annotated ? findingsOf(result.result) : [];
    // Only a process that draws needs sharp.
    const { annotatedThumbnail } = await import("../annotate/annotate.ts");
    return await annotatedThumbnail(bytes, findings, THUMBNAIL_SIZE, config.max_picture_pixels);
  } finally {
    const next = waiting.shift();
    if (next) next();
    else running--;
  }
}

async function keep(place: string, name: string, bytes: Buffer): Promise<void> {
  await mkdir(place, { recursive: true });
  const [index] = name.split(/[-.]/);
  for (const other of await readdir(place))
    if (other.split(/[-.]/)[0] !== index) await rm(join(place, other), { force: true });
  await writeFile(join(place, `${name}.part`), bytes);
  await rename(join(place, `${name}.part`), join(place, name));
}
