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
  checkObjectness(output.data, layout);
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
  const { boxes, boxStep, classes, output } = layout;
  let relative = 0;
  let total = 0;
  for (let box = 0; box < boxes; box++) {
    const at = box * boxStep;
    const objectness = data[at + 4]!;
    if (!(objectness >= threshold)) continue;
    let best = 0;
    for (let index = at + 5; index < at + 5 + classes; index++) best = Math.max(best, data[index]!);
    const score = objectness * best;
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

/** @throws ImplausibleOutputError where every objectness is 1, which is YOLOv6's way */
function checkObjectness(data: Numbers, { boxes, boxStep, output }: RawLayout): void {
  for (let at = 0; at < boxes * boxStep; at += boxStep) if (data[at + 4] !== 1) return;
  throw new ImplausibleOutputError(
    `the output "${output}" has an objectness of 1 in every box, as YOLOv6 has it; look at loader (YoloModelLoader) and format`,
  );
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
