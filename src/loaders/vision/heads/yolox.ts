/** YOLOX's head: objectness and class scores for each cell, the boxes relative to their cells or decoded by the graph. */
import { ImplausibleOutputError } from "../../../errors.ts";
import type { PictureSize } from "../../pictures/picture.ts";
import type { Detection, HeadInput, Numbers } from "./head.ts";
import { readRaw, type RawLayout } from "./raw.ts";

export interface YoloxLayout extends RawLayout {
  strides: readonly number[];
  /** Whether the graph has decoded the boxes (`decode_in_inference`); undefined where the numbers are to say it. */
  decoded: boolean | undefined;
}

/** Relative to a cell a centre is a few cells away and a size is a small power of e; in pixels no box is that small. */
const MAX_RELATIVE_CENTRE = 10;
const MAX_RELATIVE_SIZE = 7;

export function readYolox(layout: YoloxLayout, input: HeadInput): Detection[] {
  const output = input.row[layout.output]!;
  checkObjectness(output.data, layout, input.threshold);
  const decoded = layout.decoded ?? isDecoded(output.data, layout, input.threshold);
  if (decoded) return readRaw(layout, input);
  const data = decodeGrids(output.data, layout, input.canvas, input.threshold);
  return readRaw(layout, { ...input, row: { [layout.output]: { ...output, data } } });
}

/**
 * Whether the boxes whose score reaches the threshold are pixels. Only these are asked: of the others nobody knows what
 * they hold.
 */
export function isDecoded(data: Numbers, layout: RawLayout, threshold: number): boolean {
  const { boxes, boxStep, output } = layout;
  let relative = 0;
  let total = 0;
  for (let box = 0; box < boxes; box++) {
    const at = box * boxStep;
    const objectness = data[at + 4]!;
    if (!(objectness >= threshold)) continue;
    const score = objectness * bestClassOf(data, layout, box);
    if (!(score >= threshold)) continue;
    const [x, y, width, height] = [data[at]!, data[at + 1]!, data[at + 2]!, data[at + 3]!];
    total += score;
    const isRelative =
      Math.max(Math.abs(x), Math.abs(y)) <= MAX_RELATIVE_CENTRE &&
      Math.max(width, height) <= MAX_RELATIVE_SIZE;
    if (isRelative) relative += score;
  }
  // With no box there is nothing to decode.
  if (relative <= 0.1 * total) return true;
  if (relative >= 0.9 * total) return false;
  throw new ImplausibleOutputError(
    `the output "${output}" has boxes that are relative to their cells beside others in pixels; look at format, which says what the head is`,
  );
}

/** Share of the boxes that is looked at for whether their classes are near nothing. */
const SAMPLED_BOXES = 64;
const NEAR_NOTHING = 0.01;

/**
 * YOLOX trains the classes of objects only: on the background they are anything but nothing (0.15 is usual), and an
 * object has both an objectness and a class. A head whose fifth column is a class, or YOLOv6's 1, has neither.
 *
 * @throws ImplausibleOutputError where the fifth column can't be an objectness
 */
function checkObjectness(data: Numbers, layout: RawLayout, threshold: number): void {
  const { boxes, boxStep, output } = layout;
  const look = "look at loader and format (YoloModelLoader reads YOLOv6 and YOLOv8), and at class_names";
  let isOne = true;
  for (let box = 0; box < boxes && isOne; box++) isOne = data[box * boxStep + 4] === 1;
  if (isOne)
    throw new ImplausibleOutputError(
      `the output "${output}" has an objectness of 1 in every box, as YOLOv6 has it; ${look}`,
    );
  if (hasClassesOnBackground(data, layout)) return;
  for (let box = 0; box < boxes; box++) {
    const objectness = data[box * boxStep + 4]!;
    const best = bestClassOf(data, layout, box);
    const [low, high] = objectness < best ? [objectness, best] : [best, objectness];
    if (high < threshold || low >= NEAR_NOTHING) continue;
    throw new ImplausibleOutputError(
      `the output "${output}" has an objectness of ${objectness} beside a class score of ${best} in box ${box}, which YOLOX never has: the fifth column may be a class; ${look}`,
    );
  }
}

function hasClassesOnBackground(data: Numbers, layout: RawLayout): boolean {
  const step = Math.max(1, Math.floor(layout.boxes / SAMPLED_BOXES));
  let some = 0;
  let seen = 0;
  for (let box = 0; box < layout.boxes; box += step, seen++)
    if (bestClassOf(data, layout, box) > NEAR_NOTHING) some++;
  return 2 * some >= seen;
}

function bestClassOf(data: Numbers, { boxStep, classes }: RawLayout, box: number): number {
  const first = box * boxStep + 5;
  let best = 0;
  for (let at = first; at < first + classes; at++) best = Math.max(best, data[at]!);
  return best;
}

/** As YOLOX's `demo_postprocess`: centre = (output + cell) × stride, size = e^output × stride, rows first. */
function decodeGrids(data: Numbers, layout: YoloxLayout, canvas: PictureSize, threshold: number): Numbers {
  const { boxStep } = layout;
  const decoded = Float32Array.from(data);
  let at = 0;
  for (const stride of layout.strides) {
    const columns = Math.ceil(canvas.width / stride);
    const count = columns * Math.ceil(canvas.height / stride);
    for (let cell = 0; cell < count; cell++, at += boxStep) {
      if (data[at + 4]! < threshold) continue;
      decoded[at] = (data[at]! + (cell % columns)) * stride;
      decoded[at + 1] = (data[at + 1]! + Math.floor(cell / columns)) * stride;
      decoded[at + 2] = Math.exp(data[at + 2]!) * stride;
      decoded[at + 3] = Math.exp(data[at + 3]!) * stride;
    }
  }
  return decoded;
}
