/**
 * Masks of segmentation models: prototypes × coefficients, cut at the box, as
 * COCO's run lengths of the upright picture and as outlines.
 */
import type { Mask } from "../../imil/dictionaries.ts";
import { compressRuns, type Bitmap } from "../../imil/runLengths.ts";
import type { RowOutput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";
import { round4 } from "./boxes.ts";
import type { Detection } from "./heads/head.ts";

/** A part of a bitmap's picture: whole pixels, right and bottom exclusive. */
interface Region {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** Outlines are drawn at most this large; more corners say no more. */
const MAX_OUTLINE_SIDE = 640;

/**
 * The mask of a detection: the logits of its prototypes, enlarged (bilinear) to the picture and cut at its box; a pixel
 * belongs to it where its logit is above 0.
 * @param prototypes [count, height, width] over the canvas
 */
export function readMask(detection: Detection, prototypes: RowOutput, picture: DecodedPicture): Mask {
  const [count = 0, height = 0, width = 0] = prototypes.dims;
  const logits = new Float32Array(width * height);
  for (let index = 0; index < count; index++) {
    const part = detection.coefficients![index]!;
    const from = index * logits.length;
    for (let at = 0; at < logits.length; at++) logits[at]! += part * prototypes.data[from + at]!;
  }
  const field = { data: logits, width, height };
  const { original } = picture;
  const region = regionOf(detection, picture, original);
  const shrink = Math.min(1, MAX_OUTLINE_SIDE / Math.max(original.width, original.height));
  const small = {
    width: Math.max(1, Math.round(original.width * shrink)),
    height: Math.max(1, Math.round(original.height * shrink)),
  };
  const part = regionOf(detection, picture, small);
  return {
    Rle: {
      size: [original.height, original.width],
      counts: encodeRunLengths(sample(field, picture, original, region), region, original),
    },
    Poly: traceOutlines(sample(field, picture, small, part)).map((outline) =>
      outline.flatMap(([x, y]) => [
        round4((x + part.left) / small.width),
        round4((y + part.top) / small.height),
      ]),
    ),
  };
}

/** The box in pixels of the picture at a size, clipped to it. */
function regionOf(
  box: Detection,
  { placement }: DecodedPicture,
  size: { width: number; height: number },
): Region {
  const x = (at: number) => ((at - placement.left) / placement.width) * size.width;
  const y = (at: number) => ((at - placement.top) / placement.height) * size.height;
  const within = (at: number, most: number) => Math.min(most, Math.max(0, Math.round(at)));
  const [left, top] = [within(x(box.left), size.width), within(y(box.top), size.height)];
  return {
    left,
    top,
    right: Math.max(left, within(x(box.right), size.width)),
    bottom: Math.max(top, within(y(box.bottom), size.height)),
  };
}

interface Field {
  data: Float32Array;
  width: number;
  height: number;
}

/** Where the field over the canvas is above 0, at each pixel of a region of the picture at a size. */
function sample(
  field: Field,
  { canvas, placement }: DecodedPicture,
  size: { width: number; height: number },
  region: Region,
): Bitmap {
  const [width, height] = [region.right - region.left, region.bottom - region.top];
  const data = new Uint8Array(width * height);
  // Centre of a pixel of the picture → canvas → field, both with centres at halves.
  const columns = interpolate(
    width,
    (index) =>
      ((((region.left + index + 0.5) / size.width) * placement.width + placement.left) / canvas.width) *
      field.width,
    field.width,
  );
  const lines = interpolate(
    height,
    (index) =>
      ((((region.top + index + 0.5) / size.height) * placement.height + placement.top) / canvas.height) *
      field.height,
    field.height,
  );
  const blended = new Float32Array(field.width);
  for (let row = 0; row < height; row++) {
    const [upper, lower, part] = [lines.from[row]!, lines.to[row]!, lines.part[row]!];
    for (let at = 0; at < field.width; at++)
      blended[at] =
        field.data[upper * field.width + at]! * (1 - part) + field.data[lower * field.width + at]! * part;
    const start = row * width;
    for (let column = 0; column < width; column++) {
      const share = columns.part[column]!;
      const value = blended[columns.from[column]!]! * (1 - share) + blended[columns.to[column]!]! * share;
      data[start + column] = value > 0 ? 1 : 0;
    }
  }
  return { width, height, data };
}

/** For each place the two neighbours in the field, and the share of the second. */
function interpolate(count: number, placeOf: (index: number) => number, size: number) {
  const from = new Uint32Array(count);
  const to = new Uint32Array(count);
  const part = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    const at = Math.min(size - 1, Math.max(0, placeOf(index) - 0.5));
    from[index] = Math.floor(at);
    to[index] = Math.min(size - 1, from[index]! + 1);
    part[index] = at - from[index]!;
  }
  return { from, to, part };
}

// Run lengths

/** COCO's run lengths, column by column, of a bitmap that lies at a region of an otherwise empty picture. */
export function encodeRunLengths(
  bitmap: Bitmap,
  region: Pick<Region, "left" | "top">,
  size: { width: number; height: number },
): string {
  const runs: number[] = [];
  let inside = 0;
  let run = 0;
  const add = (value: number, length: number) => {
    if (length === 0) return;
    if (value === inside) run += length;
    else {
      runs.push(run);
      [inside, run] = [value, length];
    }
  };
  const below = size.height - region.top - bitmap.height;
  add(0, region.left * size.height);
  for (let column = 0; column < bitmap.width; column++) {
    add(0, region.top);
    for (let row = 0; row < bitmap.height; row++) add(bitmap.data[row * bitmap.width + column]!, 1);
    add(0, below);
  }
  add(0, (size.width - region.left - bitmap.width) * size.height);
  runs.push(run);
  return compressRuns(runs);
}

// Outlines

type Corner = readonly [x: number, y: number];

/** An outline leaves out corners that are nearer than this to it, in pixels. */
const OUTLINE_TOLERANCE = 0.7;
/** Specks with fewer corners than a triangle's are no outline. */
const MIN_CORNERS = 3;

/** The outer outlines of the connected parts of a bitmap, simplified, largest first; holes are left out. */
export function traceOutlines(bitmap: Bitmap): Corner[][] {
  const { width, height, data } = bitmap;
  const at = (x: number, y: number) =>
    x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] === 1;
  // Edges of pixels with the mask to their right; from each corner at most two begin.
  const seen = new Uint8Array((width + 1) * (height + 1));
  const outlines: Corner[][] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      // The top edge of a pixel with nothing above, not walked yet.
      if (!at(x, y) || at(x, y - 1) || seen[y * (width + 1) + x]) continue;
      const outline = walk(at, x, y, (cornerX, cornerY) => (seen[cornerY * (width + 1) + cornerX] = 1));
      if (signedArea(outline) > 0) outlines.push(simplify(outline));
    }
  }
  return outlines
    .filter((outline) => outline.length >= MIN_CORNERS)
    .toSorted((a, b) => Math.abs(signedArea(b)) - Math.abs(signedArea(a)));
}

const STEPS = [
  [1, 0],
  [0, 1],
  [-1, 0],
  [0, -1],
] as const;

/** Walks along edges with the mask to the right, from the top left corner of a pixel eastwards. */
function walk(
  at: (x: number, y: number) => boolean,
  startX: number,
  startY: number,
  markTop: (x: number, y: number) => void,
): Corner[] {
  const corners: Corner[] = [];
  let [x, y, direction] = [startX, startY, 0];
  do {
    if (direction === 0) markTop(x, y);
    const [stepX, stepY] = STEPS[direction]!;
    x += stepX;
    y += stepY;
    // The pixels ahead, to the left and to the right of the way.
    const left = [at(x, y - 1), at(x, y), at(x - 1, y), at(x - 1, y - 1)][direction]!;
    const right = [at(x, y), at(x - 1, y), at(x - 1, y - 1), at(x, y - 1)][direction]!;
    const next = !right ? (direction + 1) % 4 : left ? (direction + 3) % 4 : direction;
    if (next !== direction) corners.push([x, y]);
    direction = next;
  } while (x !== startX || y !== startY || direction !== 0);
  return corners;
}

function signedArea(outline: readonly Corner[]): number {
  let sum = 0;
  for (const [index, [x, y]] of outline.entries()) {
    const [nextX, nextY] = outline[(index + 1) % outline.length]!;
    sum += x * nextY - nextX * y;
  }
  return sum / 2;
}

/** Douglas and Peucker's way, for a closed outline. */
function simplify(outline: readonly Corner[]): Corner[] {
  let far = 0;
  const distance = (index: number) =>
    Math.hypot(outline[index]![0] - outline[0]![0], outline[index]![1] - outline[0]![1]);
  for (let index = 1; index < outline.length; index++) if (distance(index) > distance(far)) far = index;
  const keep = new Uint8Array(outline.length + 1);
  const closed = [...outline, outline[0]!];
  keep[0] = keep[far] = keep[outline.length] = 1;
  const parts: [number, number][] = [
    [0, far],
    [far, outline.length],
  ];
  for (let part = parts.pop(); part; part = parts.pop()) {
    const [from, to] = part;
    let [worst, most] = [-1, OUTLINE_TOLERANCE];
    for (let index = from + 1; index < to; index++) {
      const away = distanceToLine(closed[index]!, closed[from]!, closed[to]!);
      if (away > most) [worst, most] = [index, away];
    }
    if (worst < 0) continue;
    keep[worst] = 1;
    parts.push([from, worst], [worst, to]);
  }
  return outline.filter((_corner, index) => keep[index] === 1);
}

function distanceToLine([x, y]: Corner, [x1, y1]: Corner, [x2, y2]: Corner): number {
  const length = Math.hypot(x2 - x1, y2 - y1);
  if (length === 0) return Math.hypot(x - x1, y - y1);
  return Math.abs((x2 - x1) * (y1 - y) - (x1 - x) * (y2 - y1)) / length;
}
