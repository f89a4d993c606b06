/**
 * What decoding a picture costs, found out from its header: a few hundred kilobytes can hold pixels of gigabytes. The
 * limit of a request is the configuration's; an engine decodes only so much side by side, and small pictures pass large
 * ones that wait.
 */
import { BadInputError } from "../../errors.ts";
import { sniffPicture, type PictureFormat } from "../../core/pictureFormats.ts";
import { isProgressiveJpeg, pngFormat, readUprightSize } from "./pictureHeader.ts";
import type { PictureSize } from "./pictureSize.ts";

/** Bytes that are decoded side by side in one process; a picture of more is decoded alone. */
const MAX_AT_ONCE = 384 * 1024 ** 2;
/** Up to here a picture waits for no other. */
const SMALL = 16 * 1024 ** 2;

/**
 * Bytes that a decoder handles: pixels × channels × bytes of a channel, twice where the whole picture must be held
 * before its first row is known (interlaced PNG, progressive JPEG, and every format but those two).
 */
export function decodedBytes(
  bytes: Buffer,
  format: PictureFormat,
  size: PictureSize,
  depth: 8 | 16 | 32,
): number {
  const pixels = size.width * size.height;
  if (format === "PNG") {
    const { channels, isInterlaced } = pngFormat(bytes);
    return pixels * channels * (depth / 8) * (isInterlaced ? 2 : 1);
  }
  const isStreamed = format === "JPEG" && !isProgressiveJpeg(bytes);
  return pixels * 3 * (depth / 8) * (isStreamed ? 1 : 2);
}

/**
 * @param pictures of one request
 * @throws BadInputError where they decode to more than `maxBytes` together, as far as their headers tell without a decoder
 */
export function checkDecodedBytes(pictures: readonly Buffer[], maxBytes: number): void {
  let sum = 0;
  for (const bytes of pictures) {
    const format = sniffPicture(bytes);
    const size = format && readUprightSize(bytes, format);
    if (size) sum += decodedBytes(bytes, format, size, format === "PNG" ? pngFormat(bytes).depth : 8);
  }
  if (sum > maxBytes)
    throw tooMuch(pictures.length === 1 ? "the picture decodes" : "the pictures decode", sum, maxBytes);
}

export function tooMuch(what: string, bytes: number, maxBytes: number): BadInputError {
  return new BadInputError(
    `${what} to ${bytes} bytes, more than max_decoded_bytes (${maxBytes}); 16 bits a channel count twice, and so does what must be held as a whole, such as an interlaced PNG`,
  );
}

let inUse = 0;
const waiting: { bytes: number; begin: () => void }[] = [];

/** Runs a decoder once there is room for what it decodes. */
export async function withinBudget<T>(bytes: number, decode: () => Promise<T>): Promise<T> {
  if (bytes <= SMALL) return decode();
  if (inUse > 0 && inUse + bytes > MAX_AT_ONCE)
    await new Promise<void>((begin) => waiting.push({ bytes, begin }));
  else inUse += bytes;
  try {
    return await decode();
  } finally {
    inUse -= bytes;
    // In their order, but for those that fit beside what runs.
    for (let at = 0; at < waiting.length;) {
      const next = waiting[at]!;
      if (inUse > 0 && inUse + next.bytes > MAX_AT_ONCE) at++;
      else {
        waiting.splice(at, 1);
        inUse += next.bytes;
        next.begin();
      }
    }
  }
}
