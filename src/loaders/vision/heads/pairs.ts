/**
 * Heads of two outputs: boxes [n, 4], and the scores or logits of every class
 * for each of them ([n, classes], or [classes, n] as PaddlePaddle has them).
 */
import { ImplausibleOutputError } from "../../../errors.ts";
import {
  checkBox,
  checkScore,
  checkUnits,
  implausibleScore,
  toSides,
  type BoxForm,
  type Detection,
  type HeadInput,
} from "./head.ts";

export type Activation = "none" | "sigmoid" | "softmax";

export interface PairLayout {
  boxes: string;
  scores: string;
  /** Boxes of a picture, and classes of a box. */
  count: number;
  classes: number;
  /** Distance in `scores` from a box to the next, and from a class to the next. */
  boxStep: number;
  classStep: number;
  activation: Activation;
  /** Whether the last class means that there is nothing (DETR). */
  lastIsNothing: boolean;
  form: BoxForm;
}

/** The boxes whose best class scores at least `threshold`. */
export function readPair(layout: PairLayout, { row, canvas, threshold }: HeadInput): Detection[] {
  const { count, classes, boxStep, classStep, activation, form, lastIsNothing } = layout;
  const scores = row[layout.scores]!.data;
  const boxes = row[layout.boxes]!.data;
  const named = lastIsNothing ? classes - 1 : classes;
  let lastWins = 0;
  const found: Detection[] = [];
  const seen: number[][] = [];
  for (let box = 0; box < count; box++) {
    let best = Number.NEGATIVE_INFINITY;
    let classIndex = 0;
    let highest = Number.NEGATIVE_INFINITY;
    for (let index = 0, at = box * boxStep; index < classes; index++, at += classStep) {
      const value = scores[at]!;
      if (!Number.isFinite(value) && !(value === Number.NEGATIVE_INFINITY && activation !== "none"))
        throw implausibleScore(value, layout.scores, `class ${index} of box ${box}`);
      if (index === classes - 1 && value > highest && (lastIsNothing || value > 0)) lastWins++;
      if (value > highest) highest = value;
      if (index < named && value > best) {
        best = value;
        classIndex = index;
      }
    }
    let score = best;
    if (activation === "sigmoid") score = 1 / (1 + Math.exp(-best));
    else if (activation === "softmax") {
      let sum = 0;
      for (let index = 0, at = box * boxStep; index < classes; index++, at += classStep)
        sum += Math.exp(scores[at]! - highest);
      score = Math.exp(best - highest) / sum;
    }
    score = checkScore(score, layout.scores, () => `class ${classIndex} of box ${box}`);
    if (score < threshold) continue;
    const where = `box ${box} (class ${classIndex}, score ${score.toFixed(3)})`;
    const numbers = [0, 1, 2, 3].map((each) => boxes[4 * box + each]!) as [number, number, number, number];
    seen.push(numbers);
    const sides = { ...toSides(numbers, form, canvas), score, classIndex };
    found.push(checkBox(sides, canvas, layout.boxes, where));
  }
  checkUnits(seen, form, canvas, layout.boxes);
  checkNothing(layout, lastWins);
  return found;
}

/**
 * Of a DETR's queries most find nothing. Where the last class says so, it wins most of them; where it is a class like
 * the others, it doesn't.
 */
function checkNothing(
  { count, classes, activation, lastIsNothing, scores }: PairLayout,
  lastWins: number,
): void {
  if (count < 20 || classes < 2) return;
  const share = lastWins / count;
  if (lastIsNothing ? share < 0.2 : activation === "sigmoid" && share > 0.5) {
    throw new ImplausibleOutputError(
      `the output "${scores}" has its last class as the best one of ${lastWins} of ${count} boxes, so it ${
        lastIsNothing ? "can't stand" : "seems to stand"
      } for "nothing"; look at class_names (their number says whether there is such a class) and at format`,
    );
  }
}

/** Peaks of CenterNet's heat maps: [classes, h, w], sizes [2, h, w] and offsets [2, h, w] in cells. */
export interface HeatMapLayout {
  heat: string;
  size: string;
  offset: string | undefined;
  classes: number;
  height: number;
  width: number;
  activation: Activation;
}

export function readHeatMaps(layout: HeatMapLayout, { row, canvas, threshold }: HeadInput): Detection[] {
  const { classes, height, width, activation } = layout;
  const heat = row[layout.heat]!.data;
  const sizes = row[layout.size]!.data;
  const offsets = layout.offset === undefined ? undefined : row[layout.offset]!.data;
  const plane = height * width;
  if (heat.length !== classes * plane)
    throw new ImplausibleOutputError(
      `the output "${layout.heat}" has ${heat.length} numbers, expected ${classes} × ${height} × ${width}; look at format`,
    );
  if (activation === "sigmoid" && heat.every((value) => value >= 0 && value <= 1))
    throw new ImplausibleOutputError(
      `the output "${layout.heat}" has nothing but numbers from 0 to 1, which are scores already and no logits; set activation to none`,
    );
  const [scaleX, scaleY] = [canvas.width / width, canvas.height / height];
  const found: Detection[] = [];
  for (let classIndex = 0; classIndex < classes; classIndex++) {
    for (let cell = 0; cell < plane; cell++) {
      const value = heat[classIndex * plane + cell]!;
      const raw = activation === "sigmoid" ? 1 / (1 + Math.exp(-value)) : value;
      const score = checkScore(raw, layout.heat, () => `class ${classIndex} of cell ${cell}`);
      if (score < threshold || !isPeak(heat, classIndex * plane, cell, width, height)) continue;
      const x = ((cell % width) + (offsets?.[cell] ?? 0.5)) * scaleX;
      const y = (Math.floor(cell / width) + (offsets?.[plane + cell] ?? 0.5)) * scaleY;
      const [halfWidth, halfHeight] = [(sizes[cell]! * scaleX) / 2, (sizes[plane + cell]! * scaleY) / 2];
      const box = {
        left: x - halfWidth,
        top: y - halfHeight,
        right: x + halfWidth,
        bottom: y + halfHeight,
        score,
        classIndex,
      };
      found.push(checkBox(box, canvas, layout.size, `cell ${cell} (class ${classIndex})`));
    }
  }
  return found;
}

/** Whether no neighbour of a cell is higher. */
function isPeak(
  heat: ArrayLike<number>,
  start: number,
  cell: number,
  width: number,
  height: number,
): boolean {
  const [column, line] = [cell % width, Math.floor(cell / width)];
  const value = heat[start + cell]!;
  for (let y = Math.max(0, line - 1); y <= Math.min(height - 1, line + 1); y++) {
    for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
      if (heat[start + y * width + x]! > value) return false;
    }
  }
  return true;
}
