/** One thumbnail, in libvips' own threads. */
import type { SharpOptions } from "sharp";
import { sniffPicture } from "../core/pictureFormats.ts";

/** A JPEG is decoded at a fraction of its size; of others all pixels are. */
const MAX_PIXELS = 16_000_000;

/**
 * @param size longest side in pixels; a smaller picture stays as it is
 * @param maxPixels of a JPEG
 * @returns WebP; undefined of what is no picture that is cheap to decode
 */
export async function createThumbnail(
  bytes: Buffer,
  size: number,
  maxPixels: number,
): Promise<Buffer | undefined> {
  const format = sniffPicture(bytes);
  // libvips would draw documents and vector graphics, too; BMP it doesn't know.
  if (format === undefined || format === "BMP") return undefined;
  // Workers that make none need not load it.
  const { default: sharp } = await import("sharp");
  sharp.concurrency(1);
  sharp.cache(false);
  const options: SharpOptions = { failOn: "none", limitInputPixels: maxPixels, autoOrient: true };
  const { width, height } = await sharp(bytes, options).metadata();
  if (format !== "JPEG" && width * height > MAX_PIXELS) return undefined;
  return sharp(bytes, options)
    .resize({ width: size, height: size, fit: "inside", withoutEnlargement: true })
    .webp({ quality: 70, effort: 2 })
    .toBuffer();
}
