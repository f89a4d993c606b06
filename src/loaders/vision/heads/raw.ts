/**
 * Raw heads of YOLO detectors: a box for each cell of the grids (or three), as
 * centre and size, the scores of all classes, and what the task adds behind
 * them. Duplicates are still in.
 */
import { ImplausibleOutputError } from "../../../errors.ts";
import type { PictureSize } from "../../pictures/picture.ts";
import {
  checkBox,
  checkScore,
  hullOf,
  implausibleScore,
  LOOK_AT_FORMAT,
  TOLERANCE,
  type DetectionTask,
  type Detection,
  type HeadInput,
  type KeyPoint,
  type Numbers,
} from "./head.ts";

/** How the numbers of a raw head lie. */
export interface RawLayout {
  output: string;
  boxes: number;
  classes: number;
  hasObjectness: boolean;
  /** Distance from a box to the next, and from a feature of a box to the next. */
  boxStep: number;
  featureStep: number;
  task: DetectionTask;
  /** Numbers behind the class scores: coefficients of a mask, an angle, or key points. */
  extras: number;
  /** Numbers of each key point: x, y, and a score where there are three. */
  pointSize?: 2 | 3;
}

/** The boxes whose best class scores at least `threshold`; score = objectness × class score, where there is objectness. */
export function readRaw(layout: RawLayout, { row, canvas, threshold }: HeadInput): Detection[] {
  const { data } = row[layout.output]!;
  const found =
    layout.boxStep === 1 && !layout.hasObjectness
      ? readByClass(data, layout, threshold)
      : readByBox(data, layout, threshold);
  return found.map((best) => toDetection(data, layout, best, canvas));
}

interface Best {
  box: number;
  classIndex: number;
  score: number;
}

/** One class after the other, as they lie: three times as fast as box by box. */
function readByClass(data: Numbers, { output, boxes, classes }: RawLayout, threshold: number): Best[] {
  // Scores below the threshold are only looked at, which makes nearly every comparison come out alike.
  const best = new Float32Array(boxes).fill(Math.max(0, threshold - 1e-6));
  const bestClass = new Uint16Array(boxes);
  let bad = -1;
  for (let classIndex = 0, at = 4 * boxes; classIndex < classes; classIndex++) {
    for (let box = 0; box < boxes; box++, at++) {
      const score = data[at]!;
      if (score > best[box]!) {
        best[box] = score;
        bestClass[box] = classIndex;
        // NaN fails the first comparison and the second, below.
      } else if (!(score >= -TOLERANCE)) bad = at;
    }
  }
  if (bad >= 0) {
    const where = `class ${Math.floor(bad / boxes) - 4} of box ${bad % boxes}`;
    throw implausibleScore(data[bad]!, output, where);
  }
  const found: Best[] = [];
  for (let box = 0; box < boxes; box++) {
    const score = best[box]!;
    if (score > 1 + TOLERANCE)
      throw implausibleScore(score, output, `class ${bestClass[box]!} of box ${box}`);
    if (score >= threshold) found.push({ box, classIndex: bestClass[box]!, score: Math.min(1, score) });
  }
  return found;
}

function readByBox(data: Numbers, layout: RawLayout, threshold: number): Best[] {
  const { output, boxes, classes, hasObjectness, boxStep, featureStep } = layout;
  const firstClass = hasObjectness ? 5 : 4;
  const found: Best[] = [];
  for (let box = 0; box < boxes; box++) {
    const at = box * boxStep;
    const objectness = hasObjectness
      ? checkScore(data[at + 4 * featureStep]!, output, () => `box ${box} (its objectness)`)
      : 1;
    if (objectness < threshold) continue;
    let classIndex = 0;
    let best = 0;
    for (let index = 0, from = at + firstClass * featureStep; index < classes; index++, from += featureStep) {
      const score = data[from]!;
      if (score > best) {
        best = score;
        classIndex = index;
      } else if (!(score >= -TOLERANCE))
        throw implausibleScore(score, output, `class ${index} of box ${box}`);
    }
    if (best > 1 + TOLERANCE) throw implausibleScore(best, output, `class ${classIndex} of box ${box}`);
    const score = Math.min(1, best) * objectness;
    if (score >= threshold) found.push({ box, classIndex, score });
  }
  return found;
}

function toDetection(
  data: Numbers,
  layout: RawLayout,
  { box, classIndex, score }: Best,
  canvas: PictureSize,
): Detection {
  const { output, boxStep, featureStep, classes, hasObjectness, task, extras } = layout;
  const at = box * boxStep;
  const feature = (index: number) => data[at + index * featureStep]!;
  const [x, y, width, height] = [feature(0), feature(1), feature(2), feature(3)];
  const first = (hasObjectness ? 5 : 4) + classes;
  const where = `box ${box} (class ${classIndex}, score ${score.toFixed(3)})`;
  if (task === "obb") {
    const rotated = { x, y, width, height, angle: checkAngle(feature(first), output, where) };
    if (width < 0 || height < 0)
      checkBox(centred(x, y, width, height, score, classIndex), canvas, output, where);
    return checkBox({ ...hullOf(rotated), score, classIndex, rotated }, canvas, output, where);
  }
  const detection: Detection = checkBox(
    centred(x, y, width, height, score, classIndex),
    canvas,
    output,
    where,
  );
  if (task === "segment")
    detection.coefficients = Float32Array.from({ length: extras }, (_, index) => feature(first + index));
  if (task === "pose")
    detection.keyPoints = readKeyPoints(layout.pointSize!, extras, (index) => feature(first + index), {
      output,
      where,
    });
  return detection;
}

function centred(x: number, y: number, width: number, height: number, score: number, classIndex: number) {
  return {
    left: x - width / 2,
    top: y - height / 2,
    right: x + width / 2,
    bottom: y + height / 2,
    score,
    classIndex,
  };
}

/** The angle in radians; more than a whole turn is none. */
export function checkAngle(angle: number, output: string, where: string): number {
  if (Math.abs(angle) <= 2 * Math.PI) return angle;
  throw new ImplausibleOutputError(
    `the output "${output}" has ${angle} as the angle of ${where}, which must be radians; ${LOOK_AT_FORMAT}, and at task`,
  );
}

/** Key points as they lie behind each other; 1 is the score of one that has none. */
export function readKeyPoints(
  pointSize: 2 | 3,
  extras: number,
  feature: (index: number) => number,
  { output, where }: { output: string; where: string },
): KeyPoint[] {
  return Array.from({ length: extras / pointSize }, (_, point) => {
    const at = point * pointSize;
    const [x, y] = [feature(at), feature(at + 1)];
    if (!Number.isFinite(x) || !Number.isFinite(y)) {
      throw new ImplausibleOutputError(
        `the output "${output}" has [${x}, ${y}] as key point ${point + 1} of ${where}; ${LOOK_AT_FORMAT}, and at kpt_shape`,
      );
    }
    const score =
      pointSize === 3
        ? checkScore(feature(at + 2), output, () => `key point ${point + 1} of ${where} (kpt_shape)`)
        : 1;
    return [x, y, score] as const;
  });
}
