/**
 * Outputs that have a number, or several, for each place of the picture: cut to
 * the part of the canvas that is the picture, brought to its size, written as PNG.
 */
import type { Output } from "../../core/request.ts";
import type { RowOutput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";

/** Planes of numbers over the canvas: [planes, height, width]. */
export interface Field {
  data: RowOutput["data"];
  planes: number;
  height: number;
  width: number;
  /** Distance from a place to the next, and from a plane to the next. */
  step: number;
  stride: number;
}

/** Largest side of what is written; larger pictures get theirs at that size. */
const MAX_SIDE = 4096;

/**
 * Reads [planes, height, width] or [height, width, planes]; [height, width] is one plane.
 * @param planes how many there are, where that is known
 * @returns undefined where it is none of these
 */
export function readField({ data, dims }: RowOutput, planes?: number): Field | undefined {
  const sizes = dims.length === 4 && dims[0] === 1 ? dims.slice(1) : dims;
  if (sizes.length === 2) {
    const [height, width] = sizes as [number, number];
    return { data, planes: 1, height, width, step: 1, stride: height * width };
  }
  if (sizes.length !== 3) return undefined;
  const [first, second, third] = sizes as [number, number, number];
  const isLast = planes === undefined ? first > third : third === planes && first !== planes;
  return isLast
    ? { data, planes: third, height: first, width: second, step: third, stride: 1 }
    : { data, planes: first, height: second, width: third, step: 1, stride: second * third };
}

/** Width and height that a field of a picture is brought to: the picture's, within bounds. */
export function sizeFor({ original }: DecodedPicture): { width: number; height: number } {
  const shrink = Math.min(1, MAX_SIDE / Math.max(original.width, original.height));
  return {
    width: Math.max(1, Math.round(original.width * shrink)),
    height: Math.max(1, Math.round(original.height * shrink)),
  };
}

/** The numbers of one plane at each pixel of the picture at a size: bilinear, or the nearest. */
export function resample(
  field: Field,
  plane: number,
  { canvas, placement }: DecodedPicture,
  size: { width: number; height: number },
  kind: "bilinear" | "nearest" = "bilinear",
): Float32Array {
  const { data, width, height, step, stride } = field;
  const columns = places(size.width, width, placement.left, placement.width, canvas.width, kind);
  const lines = places(size.height, height, placement.top, placement.height, canvas.height, kind);
  const values = new Float32Array(size.width * size.height);
  const start = plane * stride;
  const value = (line: number, column: number) => data[start + (line * width + column) * step]!;
  for (let y = 0; y < size.height; y++) {
    const [upper, lower, share] = [lines.from[y]!, lines.to[y]!, lines.part[y]!];
    for (let x = 0; x < size.width; x++) {
      const [left, right, part] = [columns.from[x]!, columns.to[x]!, columns.part[x]!];
      const top = value(upper, left) * (1 - part) + value(upper, right) * part;
      const bottom = value(lower, left) * (1 - part) + value(lower, right) * part;
      values[y * size.width + x] = top * (1 - share) + bottom * share;
    }
  }
  return values;
}

/** For each pixel of a side the two places of the field around its centre, and the share of the second. */
function places(
  count: number,
  size: number,
  start: number,
  length: number,
  canvas: number,
  kind: "bilinear" | "nearest",
) {
  const from = new Uint32Array(count);
  const to = new Uint32Array(count);
  const part = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    const centre = ((((index + 0.5) / count) * length + start) / canvas) * size - 0.5;
    const at = Math.min(size - 1, Math.max(0, kind === "nearest" ? Math.round(centre) : centre));
    from[index] = Math.floor(at);
    to[index] = Math.min(size - 1, from[index]! + 1);
    part[index] = at - from[index]!;
  }
  return { from, to, part };
}

/** A PNG of grey values of 8 or 16 bits, or of RGB. */
export async function toPng(
  name: string,
  pixels: Uint8Array | Uint16Array,
  { width, height }: { width: number; height: number },
  channels: 1 | 3 = 1,
): Promise<Output> {
  const { default: sharp } = await import("sharp");
  const image = sharp(pixels, { raw: { width, height, channels } });
  const bytes =
    pixels instanceof Uint16Array
      ? await image.toColourspace("grey16").png().toBuffer()
      : await (channels === 1 ? image.toColourspace("b-w") : image).png().toBuffer();
  return { name, mediaType: "image/png", bytes };
}
