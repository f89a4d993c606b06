/** Copies of pictures with what was found in them drawn over, upright and in the format that they had. */
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import sharp, { type Sharp, type SharpOptions } from "sharp";
import { toFilePath } from "../core/filePaths.ts";
import { sniffPicture, type PictureFormat } from "../core/pictureFormats.ts";
import { BadInputError } from "../errors.ts";
import type { Finding } from "../imil/dictionaries.ts";
import { decodePicture } from "../loaders/pictures/picture.ts";
import { drawOverlay } from "./overlay.ts";

/** Smaller pictures are enlarged to this long side, or a label would cover what it names. */
const MIN_LONG_SIDE = 640;
const MAX_ENLARGED = 4;
const QUALITY = 90;
/** What sharp writes each format as; copies of the others are PNGs, whose name gets ".png" behind the picture's. */
const WRITABLE: Partial<Record<PictureFormat, "jpeg" | "png" | "webp" | "gif" | "tiff" | "avif">> = {
  JPEG: "jpeg",
  PNG: "png",
  WebP: "webp",
  GIF: "gif",
  TIFF: "tiff",
  AVIF: "avif",
};

/** Of a thumbnail: letters stay sharp, and it is a few KB. */
const THUMBNAIL_QUALITY = 76;
const THUMBNAIL_TAGS = 3;

/** A picture by its name, for messages, and what is in it. */
export interface NamedPicture {
  name: string;
  read: () => Promise<Buffer>;
}

export type WriteCopy = (bytes: Buffer, suffix: string, mediaType: string) => Promise<void>;

/**
 * Writes the annotated copy of one picture, whole or not at all; that of a BMP or HEIC as a PNG beside `target`, named
 * `<target>.png`.
 * @param source its path, or what reads it
 * @param target a path, or what writes the copy, with what its name gets behind the picture's
 * @param maxPixels most pixels that it may decode to
 * @throws BadInputError where it is no picture that can be decoded
 */
export async function annotatePicture(
  source: string | NamedPicture,
  findings: readonly Finding[],
  target: string | WriteCopy,
  maxPixels: number,
): Promise<void> {
  const { name, read } =
    typeof source === "string" ? { name: source, read: () => readFile(toFilePath(source)) } : source;
  let part: string | Buffer | undefined;
  if (typeof target === "string") await mkdir(toFilePath(dirname(target)), { recursive: true });
  try {
    const bytes = await read();
    const format = writableFormat(bytes);
    const image = await openPicture(bytes, maxPixels);
    const { autoOrient } = await image.metadata();
    const size = enlarge(autoOrient);
    const overlay = drawOverlay(findings, size);
    const copy = await image
      .resize(size.width, size.height, { fit: "fill" })
      .composite(overlay === undefined ? [] : [{ input: Buffer.from(overlay) }])
      .toFormat(format ?? "png", !format || format === "png" ? {} : { quality: QUALITY })
      .toBuffer();
    const suffix = format ? "" : ".png";
    if (typeof target === "function") return await target(copy, suffix, `image/${format ?? "png"}`);
    const place = target + suffix;
    part = toFilePath(`${place}.part`);
    await writeFile(part, copy);
    await rename(part, toFilePath(place));
  } catch (error) {
    if (part) await rm(part, { force: true });
    throw new BadInputError(`${name} can't be annotated: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * A small copy as a JPEG, upright; of a picture that is cut off, what is there.
 * @param size of its long side, in pixels; a smaller picture is enlarged up to it
 * @throws BadInputError where it is no picture that can be decoded
 */
export async function annotatedThumbnail(
  bytes: Buffer,
  findings: readonly Finding[],
  size: number,
  maxPixels: number,
): Promise<Buffer> {
  try {
    const image = await openPicture(bytes, maxPixels, { failOn: "none" });
    const { autoOrient } = await image.metadata();
    const factor = Math.min(MAX_ENLARGED, size / Math.max(autoOrient.width, autoOrient.height));
    const width = Math.max(1, Math.round(autoOrient.width * factor));
    const height = Math.max(1, Math.round(autoOrient.height * factor));
    const overlay = drawOverlay(findings, { width, height }, THUMBNAIL_TAGS);
    return await image
      .resize(width, height, { fit: "fill" })
      .composite(overlay === undefined ? [] : [{ input: Buffer.from(overlay) }])
      .flatten({ background: "#fff" })
      .jpeg({ quality: THUMBNAIL_QUALITY, chromaSubsampling: "4:4:4" })
      .toBuffer();
  } catch (cause) {
    throw new BadInputError(`the picture can't be drawn: ${(cause as Error).message}`, { cause });
  }
}

/**
 * The picture as a JPEG, upright, as large as it is.
 * @throws BadInputError where it is no picture that can be decoded
 */
export async function uprightJpeg(bytes: Buffer, maxPixels: number): Promise<Buffer> {
  try {
    const image = await openPicture(bytes, maxPixels);
    return await image.flatten({ background: "#fff" }).jpeg({ quality: QUALITY }).toBuffer();
  } catch (cause) {
    throw new BadInputError(`the picture can't be decoded: ${(cause as Error).message}`, { cause });
  }
}

/** Undefined for what sharp can't write; what is no picture is left to sharp, which says so. */
function writableFormat(bytes: Buffer) {
  return WRITABLE[sniffPicture(bytes) ?? "JPEG"];
}

/** Upright; what sharp can't read is decoded before. */
async function openPicture(
  bytes: Buffer,
  maxPixels: number,
  options?: Pick<SharpOptions, "failOn">,
): Promise<Sharp> {
  if (writableFormat(bytes))
    return sharp(bytes, { limitInputPixels: maxPixels, autoOrient: true, ...options });
  const whole = { width: Infinity, height: Infinity };
  const { pixels, width, height } = await decodePicture(bytes, { size: whole, fit: "inside", maxPixels });
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

function enlarge({ width, height }: { width: number; height: number }): { width: number; height: number } {
  const factor = Math.min(MAX_ENLARGED, Math.max(1, MIN_LONG_SIDE / Math.max(width, height)));
  return { width: Math.round(width * factor), height: Math.round(height * factor) };
}

/** Whether this machine has a font to write labels with; slim containers have none. */
export async function canWriteLabels(): Promise<boolean> {
  const letter = `<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text x="4" y="32" font-size="32" font-family="sans-serif">A</text></svg>`;
  const { channels } = await sharp(Buffer.from(letter)).stats();
  return (channels.at(-1)?.max ?? 0) > 0;
}
