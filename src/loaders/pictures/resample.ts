/**
 * Resizes raw RGB exactly as Pillow's `Image.resize` does: rows, then columns, antialiased where it shrinks, with
 * Pillow's fixed-point weights. Computes only the wanted part. (Pillow 13 does the columns first for some flat shapes,
 * which changes single values by one.)
 */

/** `linear`, `cubic` (a = -0.5) and `lanczos3` are Pillow's BILINEAR, BICUBIC and LANCZOS. */
export type Kernel = "nearest" | "linear" | "cubic" | "lanczos3";

/** Some neighbouring pixels of an axis. */
export interface Span {
  start: number;
  count: number;
}

/** One axis: `from` pixels become `size`, of which `count` from `start` are wanted. */
export interface ResampledAxis extends Span {
  from: number;
  size: number;
  /** The source pixels that are at hand; at least `sourceSpan()` of the axis. Default: all. */
  held?: Span;
}

/** The source pixels of each wanted pixel of an axis and their weights. */
interface Weights {
  /** First source pixel, by wanted pixel. */
  first: Int32Array;
  /** Number of source pixels, by wanted pixel. */
  taps: Int32Array;
  /** `stride` weights for each wanted pixel, in units of 2^-PRECISION; they sum up to about 1. */
  values: Int32Array;
  stride: number;
}

/** Pillow's PRECISION_BITS: a sum of 8-bit pixels with the overshoot of negative lobes still fits 32 bits. */
const PRECISION = 22;
const ONE = 1 << PRECISION;
const HALF = ONE >> 1;

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Radius and value of each kernel at scale 1, as in Pillow's Resample.c. */
const KERNELS: Record<Exclude<Kernel, "nearest">, { radius: number; at: (x: number) => number }> = {
  linear: { radius: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  cubic: {
    radius: 2,
    at(signed) {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
  lanczos3: { radius: 3, at: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/**
 * Resizes `pixels`, height × width × 3 bytes of the held rows and columns.
 * @returns the wanted part, rows.count × columns.count × 3 bytes
 */
export function resample(
  pixels: Uint8Array,
  columns: ResampledAxis,
  rows: ResampledAxis,
  kernel: Kernel,
): Uint8Array {
  const heldColumns = columns.held ?? { start: 0, count: columns.from };
  const heldRows = rows.held ?? { start: 0, count: rows.from };
  const down = weightsOf(rows, kernel);
  const needed = spanOf(down);
  const strip = pixels.subarray(
    (needed.start - heldRows.start) * heldColumns.count * 3,
    (needed.start - heldRows.start + needed.count) * heldColumns.count * 3,
  );
  const isAsWide = columns.from === columns.size && columns.count === heldColumns.count;
  const narrow = isAsWide ? strip : resizeRows(strip, heldColumns, weightsOf(columns, kernel));
  return rows.from === rows.size ? narrow : resizeColumns(narrow, columns.count * 3, needed.start, down);
}

/** The source pixels that the wanted part of an axis is made of. */
export function sourceSpan(axis: ResampledAxis, kernel: Kernel): Span {
  return spanOf(weightsOf(axis, kernel));
}

function spanOf({ first, taps }: Weights): Span {
  const start = first[0]!;
  return { start, count: first.at(-1)! + taps.at(-1)! - start };
}

function weightsOf({ from, size, start, count }: ResampledAxis, kernel: Kernel): Weights {
  const scale = from / size;
  const first = new Int32Array(count);
  const taps = new Int32Array(count).fill(1);
  if (kernel === "nearest" || from === size) {
    // Added up as Pillow does it, so that halves fall to the same side.
    for (let index = 0, at = scale / 2; index < start + count; index++, at += scale)
      if (index >= start) first[index - start] = Math.min(from - 1, Math.floor(at));
    return { first, taps, values: new Int32Array(count).fill(ONE), stride: 1 };
  }

  const { radius, at } = KERNELS[kernel];
  const stretch = Math.max(1, scale);
  const support = radius * stretch;
  const stride = Math.ceil(support) * 2 + 1;
  const values = new Int32Array(count * stride);
  const exact = new Float64Array(stride);
  for (let index = 0; index < count; index++) {
    const centre = (start + index + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - support + 0.5));
    const length = Math.min(from, Math.trunc(centre + support + 0.5)) - begin;
    let sum = 0;
    for (let tap = 0; tap < length; tap++) sum += exact[tap] = at((begin + tap - centre + 0.5) / stretch);
    for (let tap = 0; tap < length; tap++) {
      const value = (exact[tap]! / sum) * ONE;
      values[index * stride + tap] = Math.trunc(value < 0 ? value - 0.5 : value + 0.5);
    }
    first[index] = begin;
    taps[index] = length;
  }
  return { first, taps, values, stride };
}

/** Makes each row as wide as there are weights. */
function resizeRows(pixels: Uint8Array, held: Span, weights: Weights): Uint8Array {
  const { first, taps, values, stride } = weights;
  const count = first.length;
  const height = pixels.length / 3 / held.count;
  const into = new Uint8ClampedArray(count * height * 3);
  for (let row = 0, at = 0; row < height; row++) {
    const start = row * held.count - held.start;
    for (let column = 0; column < count; column++, at += 3) {
      let source = (start + first[column]!) * 3;
      let weight = column * stride;
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (const end = weight + taps[column]!; weight < end; weight++, source += 3) {
        const value = values[weight]!;
        red = (red + Math.imul(pixels[source]!, value)) | 0;
        green = (green + Math.imul(pixels[source + 1]!, value)) | 0;
        blue = (blue + Math.imul(pixels[source + 2]!, value)) | 0;
      }
      into[at] = red >> PRECISION;
      into[at + 1] = green >> PRECISION;
      into[at + 2] = blue >> PRECISION;
    }
  }
  return bytesOf(into);
}

/** Makes as many rows as there are weights; the first row of `pixels`, which are `width` bytes wide, is row `top` of the source. */
function resizeColumns(pixels: Uint8Array, width: number, top: number, weights: Weights): Uint8Array {
  const { first, taps, values, stride } = weights;
  const into = new Uint8ClampedArray(first.length * width);
  const sums = new Int32Array(width);
  for (let row = 0, at = 0; row < first.length; row++) {
    const start = (first[row]! - top) * width;
    const weight = row * stride;
    if (taps[row]! <= 2) {
      // Most of what enlarges. The second pixel of a single one has no weight.
      const [one, two] = [values[weight]!, taps[row] === 2 ? values[weight + 1]! : 0];
      const below = taps[row] === 2 ? start + width : start;
      for (let x = 0; x < width; x++, at++) {
        const sum = (Math.imul(pixels[start + x]!, one) + Math.imul(pixels[below + x]!, two) + HALF) | 0;
        into[at] = sum >> PRECISION;
      }
      continue;
    }
    sums.fill(HALF);
    for (let tap = 0; tap < taps[row]!; tap++) {
      const value = values[weight + tap]!;
      const source = start + tap * width;
      for (let x = 0; x < width; x++) sums[x] = (sums[x]! + Math.imul(pixels[source + x]!, value)) | 0;
    }
    for (let x = 0; x < width; x++, at++) into[at] = sums[x]! >> PRECISION;
  }
  return bytesOf(into);
}

const bytesOf = ({ buffer }: Uint8ClampedArray): Uint8Array => new Uint8Array(buffer);
