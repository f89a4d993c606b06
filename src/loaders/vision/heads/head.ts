/**
 * What a detector's head is: which outputs it reads, and how one picture's part
 * of them becomes detections. Heads are values without state, so that the right
 * one can be chosen from shapes alone, and tried on numbers that are known.
 */
import { ImplausibleOutputError } from "../../../errors.ts";
import type { ModelTask } from "../../../models/modelFacts.ts";
import type { OutputRow, RowOutput } from "../../pictures/OnnxPictureModelLoader.ts";
import type { PictureSize } from "../../pictures/picture.ts";
import type { Candidate } from "../boxes.ts";

/** A point of a pose: pixels of the canvas, and a score from 0 to 1 where the model gives one. */
export type KeyPoint = readonly [x: number, y: number, score: number];

/** A box at an angle: centre and sides in pixels of the canvas, radians clockwise from the x axis to the width. */
export interface RotatedBox {
  x: number;
  y: number;
  width: number;
  height: number;
  angle: number;
}

/** A candidate with what its task adds to the upright box. */
export interface Detection extends Candidate {
  keyPoints?: readonly KeyPoint[];
  rotated?: RotatedBox;
  /** How much of each prototype its mask has. */
  coefficients?: Float32Array;
}

/** The layouts that the loaders know, as the option `format` names them. */
export const DETECTOR_FORMATS = [
  "yolov5",
  "yolov6",
  "yolov8",
  "end-to-end",
  "yolov7-end2end",
  "yolox",
  "yolox-legacy",
  "yolo-nas",
  "yolo-nas-flat",
  "efficient-nms",
  "rt-detr",
  "rf-detr",
  "detr",
  "tensorflow",
  "torchvision",
  "ssd",
  "mmdetection",
  "paddle",
  "picodet",
  "centernet",
] as const;
export type DetectorFormat = (typeof DETECTOR_FORMATS)[number];

export type DetectionTask = Extract<ModelTask, "detect" | "segment" | "pose" | "obb">;

/** An output's name, element type and shape; undefined where a size is free. */
export interface OutputShape {
  name: string;
  type: string;
  /** Without the batch axis where there is one. */
  dims: readonly (number | undefined)[];
  /** Whether the tensor has a batch axis. */
  batched: boolean;
}

/** All that there is to choose a head by. */
export interface Evidence {
  /** Size of the model's input. */
  canvas: PictureSize;
  /** How many labels there are; 0 where nobody says it. */
  labels: number;
  task?: DetectionTask | undefined;
  /** Whether the graph picks the boxes itself, where the metadata says it. */
  endToEnd?: boolean | undefined;
  keyPointShape?: readonly [count: number, numbers: number] | undefined;
  architecture?: string | undefined;
  /** Names of the graph's inputs. */
  inputs: readonly string[];
  /** Types of the graph's operators; undefined where the file can't be read. */
  operators?: ReadonlySet<string> | undefined;
  /** Whether the graph begins by slicing the picture (YOLOX's Focus). */
  beginsWithFocus?: boolean | undefined;
  /** Whether the loader is CenterNet's, whose lists are fed otherwise and have duplicates. */
  isCenterNet?: boolean;
  /** Whether the configuration names the format, so that only what can't be is refused. */
  named?: boolean;
}

export interface HeadInput {
  row: OutputRow;
  canvas: PictureSize;
  /** Lowest score (0..1) that is wanted. */
  threshold: number;
  /** How many labels there are; 0 where nobody says it. */
  labels: number;
}

export interface Head {
  format: DetectorFormat;
  task: DetectionTask;
  /** In words: "YOLOv8: 80 classes, 8400 boxes". */
  description: string;
  /** The names of the outputs that it reads. */
  outputs: readonly string[];
  /** What is left to do about duplicates. */
  suppress: boolean;
  /** Number of classes that the shapes show; undefined where they don't. */
  classes?: number;
  /** The output that holds the prototypes of masks. */
  prototypes?: string;
  /** Class index of the first label: 1 where 0 is the background. */
  firstClass?: 0 | 1;
  /** Divides outputs that aren't divided along their first axis; the rows in the order of the batch. */
  splitBatch?(outputs: OutputRow, batch: number): OutputRow[];
  /**
   * The detections whose score is at least the threshold, in pixels of the canvas, in the order of the output.
   * @throws ImplausibleOutputError where the numbers can't be what the head takes them for
   */
  read(input: HeadInput): Detection[];
}

/** Ending of a message about an output of another layout than it was taken for. */
export const LOOK_AT_FORMAT =
  "look at format (the layout of the outputs), and at scale, mean and std (what the model gets)";

export const TOLERANCE = 1e-3;

/** A score as it is, a rounding error beyond 0..1 clipped. */
export function checkScore(score: number, output: string, where: () => string): number {
  if (!(score >= -TOLERANCE && score <= 1 + TOLERANCE)) throw implausibleScore(score, output, where());
  return score < 0 ? 0 : score > 1 ? 1 : score;
}

export function implausibleScore(score: number, output: string, where: string): ImplausibleOutputError {
  return new ImplausibleOutputError(
    `the output "${output}" has ${score} as the score of ${where}, which must be a number from 0 to 1; ` +
      `${LOOK_AT_FORMAT}, and at activation`,
  );
}

/** A class index as it is. */
export function checkClass(index: number, labels: number, output: string, where: string): number {
  if (!Number.isInteger(index) || index < 0 || (labels > 0 && index >= labels)) {
    throw new ImplausibleOutputError(
      `the output "${output}" has ${index} as the class of ${where}, which must be ${
        labels > 0 ? `one of the ${labels} in class_names (0 to ${labels - 1})` : "a whole number"
      }; look at class_names and at format`,
    );
  }
  return index;
}

/** A box may reach over the picture, but not as far as so many of its sides. */
const MAX_SIDES = 16;

/** A box that can be one: four numbers, the right side not left of the left one, some of it on the canvas. */
export function checkBox<T extends Candidate>(box: T, canvas: PictureSize, output: string, where: string): T {
  const { left, top, right, bottom } = box;
  const sides = [left, top, right, bottom];
  const seen = `[${sides.map((side) => Number(side.toPrecision(6))).join(", ")}] (left, top, right, bottom in pixels of the ${canvas.width}×${canvas.height} input)`;
  if (!sides.every(Number.isFinite))
    throw new ImplausibleOutputError(
      `the output "${output}" has ${seen} as ${where}, which is no box; ${LOOK_AT_FORMAT}`,
    );
  if (right < left || bottom < top) {
    throw new ImplausibleOutputError(
      `the output "${output}" has ${seen} as ${where}, whose sides are the wrong way round; look at format and at box_format`,
    );
  }
  if (right - left > MAX_SIDES * canvas.width || bottom - top > MAX_SIDES * canvas.height) {
    throw new ImplausibleOutputError(
      `the output "${output}" has ${seen} as ${where}, which is far larger than the picture; look at format, box_format and box_units`,
    );
  }
  if (right < 0 || bottom < 0 || left > canvas.width || top > canvas.height) {
    throw new ImplausibleOutputError(
      `the output "${output}" has ${seen} as ${where}, which lies off the picture; look at format, box_format and box_units`,
    );
  }
  return box;
}

/** How the four numbers of a box lie, and what they count. */
export interface BoxForm {
  /** `xyxy`: corners; `cxcywh`: centre and size; `xywh`: top left corner and size; `yxyx`: corners, y first. */
  order: "xyxy" | "cxcywh" | "xywh" | "yxyx";
  units: "pixels" | "fractions";
}

export function toSides(
  [a, b, c, d]: readonly [number, number, number, number],
  { order, units }: BoxForm,
  canvas: PictureSize,
): { left: number; top: number; right: number; bottom: number } {
  const [left, top, right, bottom] =
    order === "xyxy"
      ? [a, b, c, d]
      : order === "yxyx"
        ? [b, a, d, c]
        : order === "xywh"
          ? [a, b, a + c, b + d]
          : [a - c / 2, b - d / 2, a + c / 2, b + d / 2];
  const [x, y] = units === "pixels" ? [1, 1] : [canvas.width, canvas.height];
  return { left: left * x, top: top * y, right: right * x, bottom: bottom * y };
}

/**
 * Whether boxes are in other units than they were taken for: pixels that are all below 2 are fractions, fractions far
 * beyond 1 are pixels.
 */
export function checkUnits(
  boxes: readonly (readonly number[])[],
  { units }: BoxForm,
  canvas: PictureSize,
  output: string,
): void {
  if (boxes.length === 0 || Math.min(canvas.width, canvas.height) < 16) return;
  const largest = Math.max(...boxes.flat().map(Math.abs));
  const wrong = units === "pixels" ? largest <= 2 : largest > 4;
  if (wrong && Number.isFinite(largest)) {
    throw new ImplausibleOutputError(
      `the output "${output}" has boxes of numbers up to ${Number(largest.toPrecision(6))}, which can't be ${units}; ` +
        `look at box_units ("${units === "pixels" ? "fractions" : "pixels"}"), format and box_format`,
    );
  }
}

/** Whether the numbers of an output are quantised ones whose scale nobody knows is the loader's concern, not the head's. */
export type Numbers = RowOutput["data"];

/** Cells of grids of these strides on a canvas, one for each stride. */
export function countCells(canvas: PictureSize, strides: readonly number[]): number {
  return strides.reduce(
    (sum, stride) => sum + Math.ceil(canvas.width / stride) * Math.ceil(canvas.height / stride),
    0,
  );
}

/** The strides that the families use: plain, P6, P2. */
export const STRIDES: readonly (readonly number[])[] = [
  [8, 16, 32],
  [8, 16, 32, 64],
  [4, 8, 16, 32],
  [16, 32],
];

/** Upright box around a rotated one. */
export function hullOf({ x, y, width, height, angle }: RotatedBox): {
  left: number;
  top: number;
  right: number;
  bottom: number;
} {
  const [cos, sin] = [Math.abs(Math.cos(angle)), Math.abs(Math.sin(angle))];
  const halfWidth = (width * cos + height * sin) / 2;
  const halfHeight = (width * sin + height * cos) / 2;
  return { left: x - halfWidth, top: y - halfHeight, right: x + halfWidth, bottom: y + halfHeight };
}
