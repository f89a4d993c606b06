/**
 * Heads whose graph has picked the boxes: a list of rows with box, score and
 * class, or separate outputs for each of these. No duplicates are left.
 */
import { ImplausibleOutputError } from "../../../errors.ts";
import type { OutputRow } from "../../pictures/OnnxPictureModelLoader.ts";
import {
  checkBox,
  checkClass,
  checkScore,
  checkUnits,
  hullOf,
  toSides,
  type BoxForm,
  type Detection,
  type DetectionTask,
  type HeadInput,
} from "./head.ts";
import { checkAngle, readKeyPoints } from "./raw.ts";

/** Columns of a list of detections. */
export interface ListLayout {
  output: string;
  columns: number;
  box: number;
  score: number;
  classIndex: number;
  form: BoxForm;
  task: DetectionTask;
  /** Numbers behind box, score and class. */
  extras: number;
  pointSize?: 2 | 3;
}

/** Reads [rows, columns]. */
export function readList(layout: ListLayout, { row, canvas, threshold, labels }: HeadInput): Detection[] {
  const { output, columns, form, task, extras } = layout;
  const { data } = row[output]!;
  const found: Detection[] = [];
  const boxes: number[][] = [];
  for (let index = 0, at = 0; at < data.length; index++, at += columns) {
    const score = checkScore(data[at + layout.score]!, output, () => `row ${index}`);
    if (score < threshold) {
      // Fractions in the column of classes say that the columns mean something else, whatever the scores are.
      if (!Number.isInteger(data[at + layout.classIndex]!))
        checkClass(data[at + layout.classIndex]!, 0, output, `row ${index}`);
      continue;
    }
    const where = `row ${index} (score ${score.toFixed(3)})`;
    const numbers = [0, 1, 2, 3].map((each) => data[at + layout.box + each]!) as Four;
    if (isFiller(score, numbers)) continue;
    const classIndex = checkClass(data[at + layout.classIndex]!, labels, output, where);
    boxes.push(numbers);
    const extra = (each: number) => data[at + columns - extras + each]!;
    if (task === "obb") {
      // A rotated box is centre and size, whatever the upright ones are.
      const [x, y, width, height] = numbers;
      const rotated = { x, y, width, height, angle: checkAngle(extra(0), output, where) };
      if (width < 0 || height < 0)
        checkBox(
          { left: x, top: y, right: x + width, bottom: y + height, score, classIndex },
          canvas,
          output,
          where,
        );
      found.push(checkBox({ ...hullOf(rotated), score, classIndex, rotated }, canvas, output, where));
      continue;
    }
    const box: Detection = checkBox(
      { ...toSides(numbers, form, canvas), score, classIndex },
      canvas,
      output,
      where,
    );
    if (task === "segment")
      box.coefficients = Float32Array.from({ length: extras }, (_, each) => extra(each));
    if (task === "pose") box.keyPoints = readKeyPoints(layout.pointSize!, extras, extra, { output, where });
    found.push(box);
  }
  checkUnits(boxes, form, canvas, output);
  return found;
}

type Four = [number, number, number, number];

/** Lists of a fixed length are filled up with zeros. */
const isFiller = (score: number, box: Four) => score === 0 && box.every((side) => side === box[0]);

/** Outputs that hold the parts of the detections side by side. */
export interface PartsLayout {
  boxes: string;
  scores: string;
  classes: string;
  /** How many of the list are detections; the rest fills it up. */
  count?: string;
  form: BoxForm;
}

/** Reads boxes [n, 4], scores [n] and classes [n]. */
export function readParts(layout: PartsLayout, { row, canvas, threshold, labels }: HeadInput): Detection[] {
  const { form } = layout;
  const [boxes, scores, classes] = [layout.boxes, layout.scores, layout.classes].map(
    (name) => row[name]!.data,
  );
  if (boxes!.length !== 4 * scores!.length || classes!.length !== scores!.length) {
    throw new ImplausibleOutputError(
      `expected four numbers of a box and a class for each of ${scores!.length} scores in "${layout.scores}", ` +
        `got ${boxes!.length} in "${layout.boxes}" and ${classes!.length} in "${layout.classes}"; look at format`,
    );
  }
  const given = layout.count === undefined ? undefined : row[layout.count]!.data[0]!;
  const count = given === undefined ? scores!.length : checkCount(given, scores!.length, layout.count!);
  const found: Detection[] = [];
  const seen: number[][] = [];
  for (let index = 0; index < count; index++) {
    const score = checkScore(scores![index]!, layout.scores, () => `detection ${index}`);
    if (score < threshold) continue;
    const where = `detection ${index} (score ${score.toFixed(3)})`;
    const numbers = [0, 1, 2, 3].map((each) => boxes![4 * index + each]!) as Four;
    if (isFiller(score, numbers)) continue;
    const classIndex = checkClass(classes![index]!, labels, layout.classes, where);
    seen.push(numbers);
    const box = { ...toSides(numbers, form, canvas), score, classIndex };
    found.push(checkBox(box, canvas, layout.boxes, where));
  }
  checkUnits(seen, form, canvas, layout.boxes);
  return found;
}

function checkCount(count: number, most: number, output: string): number {
  if (Number.isInteger(count) && count >= 0 && count <= most) return count;
  throw new ImplausibleOutputError(
    `the output "${output}" has ${count} as the number of detections, of which there is room for ${most}; look at format`,
  );
}

/** Divides a list whose rows bring the number of their picture in a column. */
export function splitByColumn(
  output: string,
  column: number,
): (outputs: OutputRow, batch: number) => OutputRow[] {
  return (outputs, batch) => {
    const { data, dims } = outputs[output]!;
    const columns = dims.at(-1)!;
    const rows: number[][] = Array.from({ length: batch }, () => []);
    for (let at = 0; at < data.length; at += columns) {
      const picture = data[at + column]!;
      const own = rows[picture];
      if (!own || !Number.isInteger(picture)) {
        // Some graphs fill up with -1.
        if (picture === -1) continue;
        throw new ImplausibleOutputError(
          `the output "${output}" has ${picture} as the picture's number in column ${column}, in a batch of ${batch}; look at format`,
        );
      }
      // The number has served; alone or in a batch, the rows are the same from here on.
      for (let each = 0; each < columns; each++) own.push(each === column ? 0 : data[at + each]!);
    }
    return rows.map((own) => ({
      [output]: { data: Float32Array.from(own), dims: [own.length / columns, columns] },
    }));
  };
}

/** Divides a list of the detections of all pictures by the number that each picture has. */
export function splitByCounts(
  output: string,
  counts: string,
): (outputs: OutputRow, batch: number) => OutputRow[] {
  return (outputs, batch) => {
    const { data, dims } = outputs[output]!;
    const columns = dims.at(-1)!;
    const given = Array.from(outputs[counts]!.data);
    const total = given.reduce((sum, each) => sum + each, 0);
    if (given.length !== batch || total * columns !== data.length) {
      throw new ImplausibleOutputError(
        `the output "${counts}" has [${given.join(", ")}] as the numbers of detections of ${batch} pictures, ` +
          `"${output}" has ${data.length / columns} rows; look at format and at max_batch_size`,
      );
    }
    let start = 0;
    return given.map((count) => {
      const part = data.slice(start * columns, (start + count) * columns);
      start += count;
      return {
        [output]: { data: part, dims: [count, columns] },
        [counts]: { data: Float32Array.of(count), dims: [1] },
      };
    });
  };
}
