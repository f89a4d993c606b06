/**
 * Text detectors with differentiable binarisation (DB; PaddleOCR's and RapidOCR's): a map of how likely each place is
 * text, [N, 1, height, width]. Each connected part of it becomes a box at an angle, widened to the whole letters.
 */
import { z } from "zod";
import type { TensorDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { PredictionRequest } from "../../imil/dictionaries.ts";
import type { Interpretation, OutputRow, PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import { cropPicture, type DecodedPicture } from "../pictures/picture.ts";
import { toFinding } from "./boxes.ts";
import { readField } from "./fields.ts";
import { hullOf, TOLERANCE, type RotatedBox } from "./heads/head.ts";
import { IMAGENET, type PreprocessingDefaults } from "./pictureOptions.ts";
import { toRotated } from "./rotated.ts";
import { suggestLoader } from "./suggestLoader.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  conf_thres: z.number().min(0).max(1).default(0.5).meta({
    description: "Lowest mean score (0..1) of a text where the request has no C_threshold.",
  }),
  map_thres: z
    .number()
    .min(0)
    .max(1)
    .default(0.3)
    .meta({ description: "A place whose score (0..1) is above it is text." }),
  unclip_ratio: z.number().min(0).max(10).default(1.6).meta({
    description:
      "Boxes are widened on all sides by area ÷ perimeter × it: the model is trained to mark the middle of the letters.",
  }),
  min_size: z.number().min(0).default(3).meta({
    description: "Parts whose shorter side has fewer pixels of the map are left out.",
  }),
  max_size: z.int().min(32).default(960).meta({
    description:
      "Longest side in pixels of what the model gets, where it takes any size; a multiple of 32 is made of it.",
  }),
});

/** Sides of the input are multiples of it: such models halve them five times. */
const STEP = 32;

export class TextDetectionModelLoader extends VisionModelLoader {
  static readonly options = options;
  readonly #options = options.parse(this.settings);
  #output = "";

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    const [output] = outputs;
    if (output?.shape.length !== 4 || (typeof output.shape[1] === "number" && output.shape[1] !== 1)) {
      const seen = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
      throw new Error(
        `TextDetectionModelLoader reads [N, 1, height, width], this model has ${seen}${suggestLoader(this.facts, this.settings.class_names.length, this.constructor.name)}`,
      );
    }
    this.readScales([output]);
    this.needScales([output]);
    this.#output = output.name;
    return [output.name];
  }

  protected override preprocessingDefaults(_input: PictureInput): PreprocessingDefaults {
    return { channels: "bgr", ...IMAGENET, fit: "stretch" };
  }

  /** The picture at a size of its own ratio, where the model takes any. */
  override async preprocessing(
    picture: Buffer,
    request: PredictionRequest,
  ): Promise<DecodedPicture | readonly DecodedPicture[]> {
    this.confidenceThreshold(request, this.#options.conf_thres);
    const { width, height } = this.pictureInput;
    const isFree =
      width === undefined && height === undefined && this.settings.input_image_size === undefined;
    if (!isFree) return super.preprocessing(picture, request);
    const { max_size: most } = this.#options;
    const whole = await this.decode(picture, "inside", { size: { width: most, height: most } });
    const side = (length: number) => Math.max(STEP, Math.round(length / STEP) * STEP);
    const region = { left: 0, top: 0, width: whole.width, height: whole.height };
    const fitted = await cropPicture(whole, region, {
      width: side(whole.width),
      height: side(whole.height),
    });
    return { ...fitted, original: whole.original };
  }

  protected override interpret(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Interpretation {
    const threshold = this.confidenceThreshold(request, this.#options.conf_thres);
    const field = readField(row[this.#output]!, 1);
    if (field?.planes !== 1) {
      throw new ImplausibleOutputError(
        `the output "${this.#output}" has the shape [${row[this.#output]!.dims.join(", ")}], which is no map; look at how the model was exported`,
      );
    }
    const { data, width, height } = field;
    for (let at = 0; at < width * height; at++) {
      const score = data[at]!;
      if (!(score >= -TOLERANCE && score <= 1 + TOLERANCE)) {
        throw new ImplausibleOutputError(
          `the output "${this.#output}" has ${score} as the score of a place, which must be from 0 to 1; look at scale, mean and std (what the model gets)`,
        );
      }
    }
    const { map_thres, unclip_ratio, min_size } = this.#options;
    const [scaleX, scaleY] = [picture.canvas.width / width, picture.canvas.height / height];
    const findings = findParts(data, width, height, map_thres).flatMap(({ points, score }) => {
      if (score < threshold) return [];
      const box = smallestBox(points);
      if (Math.min(box.width, box.height) < min_size) return [];
      const wider = widen(box, unclip_ratio);
      const rotated = {
        ...wider,
        x: wider.x * scaleX,
        y: wider.y * scaleY,
        width: wider.width * scaleX,
        height: wider.height * scaleY,
      };
      const finding = toFinding({ ...hullOf(rotated), score, classIndex: 0 }, picture, this.labelOf(0));
      return finding ? [{ ...finding, Rb: toRotated(rotated, picture) }] : [];
    });
    // As one reads: lines from the top, in a line from the left.
    return { findings: findings.toSorted((a, b) => yOf(a.Dm) - yOf(b.Dm) || xOf(a.Dm) - xOf(b.Dm)) };
  }

  protected override defaultLabels(): readonly string[] {
    return ["text"];
  }

  protected override mayVary(): boolean {
    return true;
  }
}

const xOf = (box: object) => ("X" in box ? (box.X as number) : 0);
const yOf = (box: object) => ("Y" in box ? Math.round((box.Y as number) * 100) : 0);

type Point = readonly [x: number, y: number];

/** The connected parts (8 neighbours) above a threshold: the corners of their pixels, and the mean of their scores. */
export function findParts(
  data: ArrayLike<number>,
  width: number,
  height: number,
  threshold: number,
): { points: Point[]; score: number }[] {
  const seen = new Uint8Array(width * height);
  const parts: { points: Point[]; score: number }[] = [];
  for (let start = 0; start < seen.length; start++) {
    if (seen[start] || !(data[start]! > threshold)) continue;
    const stack = [start];
    seen[start] = 1;
    const ends = new Map<number, [first: number, last: number]>();
    let sum = 0;
    let count = 0;
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      const [x, y] = [at % width, Math.floor(at / width)];
      sum += data[at]!;
      count++;
      const [first, last] = ends.get(y) ?? [x, x];
      ends.set(y, [Math.min(first, x), Math.max(last, x)]);
      for (let line = Math.max(0, y - 1); line <= Math.min(height - 1, y + 1); line++) {
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
          const next = line * width + column;
          if (seen[next] || !(data[next]! > threshold)) continue;
          seen[next] = 1;
          stack.push(next);
        }
      }
    }
    // Of a line of pixels only its ends can be corners of the hull.
    const points = [...ends].flatMap(([y, [first, last]]): Point[] => [
      [first, y],
      [first, y + 1],
      [last + 1, y],
      [last + 1, y + 1],
    ]);
    parts.push({ points, score: Math.min(1, sum / count) });
  }
  return parts;
}

/** The smallest box at any angle around points: one of its sides lies on a side of their hull. Its width is the longer way. */
export function smallestBox(points: readonly Point[]): RotatedBox {
  const hull = convexHull(points);
  let best: RotatedBox | undefined;
  for (const [index, [x, y]] of hull.entries()) {
    const [nextX, nextY] = hull[(index + 1) % hull.length]!;
    const angle = Math.atan2(nextY - y, nextX - x);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const along = hull.map(([px, py]) => px * cos + py * sin);
    const across = hull.map(([px, py]) => py * cos - px * sin);
    const [left, right] = [Math.min(...along), Math.max(...along)];
    const [top, bottom] = [Math.min(...across), Math.max(...across)];
    const [u, v] = [(left + right) / 2, (top + bottom) / 2];
    const box = {
      width: right - left,
      height: bottom - top,
      angle,
      x: u * cos - v * sin,
      y: u * sin + v * cos,
    };
    if (!best || box.width * box.height < best.width * best.height - 1e-9) best = box;
  }
  return upright(best!);
}

/** The same box with its angle between −45° and 45°, as lines of text lie. */
function upright(box: RotatedBox): RotatedBox {
  const quarters = Math.round(box.angle / (Math.PI / 2));
  const angle = box.angle - (quarters * Math.PI) / 2;
  return quarters % 2 === 0 ? { ...box, angle } : { ...box, angle, width: box.height, height: box.width };
}

/** Andrew's monotone chain. */
function convexHull(points: readonly Point[]): Point[] {
  const sorted = points.toSorted((a, b) => a[0] - b[0] || a[1] - b[1]);
  const half = (side: readonly Point[]) => {
    const chain: Point[] = [];
    for (const point of side) {
      while (chain.length > 1 && turn(chain.at(-2)!, chain.at(-1)!, point) <= 0) chain.pop();
      chain.push(point);
    }
    return chain.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.toReversed())];
}

const turn = (a: Point, b: Point, c: Point) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);

function widen(box: RotatedBox, ratio: number): RotatedBox {
  const { width, height } = box;
  const distance = ((width * height) / (2 * (width + height))) * ratio;
  return { ...box, width: width + 2 * distance, height: height + 2 * distance };
}
