/** Copies of pictures with what was found in them drawn over, upright and in the format that they had. */
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import sharp from "sharp";
import { BadInputError } from "../errors.ts";
import type { Finding } from "../imil/dictionaries.ts";
import { drawOverlay } from "./overlay.ts";

/** Smaller pictures are enlarged to this long side, or a label would cover what it names. */
const MIN_LONG_SIDE = 640;
const MAX_ENLARGED = 4;
const QUALITY = 90;

/**
 * Writes the annotated copy of one picture, whole or not at all.
 * @param maxPixels most pixels that it may decode to
 * @throws BadInputError where it is no picture that can be decoded
 */
export async function annotatePicture(
  source: string,
  findings: readonly Finding[],
  target: string,
  maxPixels: number,
): Promise<void> {
  const part = `${target}.part`;
  await mkdir(dirname(target), { recursive: true });
  try {
    const image = sharp(source, { limitInputPixels: maxPixels, autoOrient: true });
    const { autoOrient, format } = await image.metadata();
    const size = enlarge(autoOrient);
    const overlay = drawOverlay(findings, size);
    await image
      .resize(size.width, size.height, { fit: "fill" })
      .composite(overlay === undefined ? [] : [{ input: Buffer.from(overlay) }])
      .toFormat(format, format === "png" ? {} : { quality: QUALITY })
      .toFile(part);
    await rename(part, target);
  } catch (error) {
    await rm(part, { force: true });
    throw new BadInputError(`${source} can't be annotated: ${(error as Error).message}`, { cause: error });
  }
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
