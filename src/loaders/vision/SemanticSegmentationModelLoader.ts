/**
 * Semantic segmentation: a class for each place of the picture. Every class that is there is a finding with its mask;
 * the attached output `classes` is a PNG whose grey values are class indices.
 */
import { z } from "zod";
import type { TensorDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import type { Interpretation, OutputRow, PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";
import { round4 } from "./boxes.ts";
import { readField, resample, sizeFor, toPng } from "./fields.ts";
import { encodeRunLengths, traceOutlines } from "./masks.ts";
import { IMAGENET, type PreprocessingDefaults } from "./pictureOptions.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  output: z.string().optional().meta({ description: "Name of the output to read. Default: the first." }),
  background: z.int().min(0).optional().meta({
    description: "Class index that is no finding. Default: 0 where its label is background.",
  }),
  activation: z.enum(["auto", "none", "sigmoid"]).default("auto").meta({
    description:
      "For a model of one class: sigmoid where it puts out logits, none where it puts out scores. auto: the numbers of each picture say it where they leave 0..1.",
  }),
  min_area: z.number().min(0).max(1).default(0.0005).meta({
    description: "Smallest part of the picture (0..1) that a class must cover to be a finding.",
  }),
});

export class SemanticSegmentationModelLoader extends VisionModelLoader {
  static readonly options = options;
  readonly #options = options.parse(this.settings);
  #output = "";

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    this.#output = this.chooseMap(
      outputs,
      this.#options.output,
      "[N, classes, height, width] or [N, height, width]",
    );
    return [this.#output];
  }

  protected override preprocessingDefaults({ channels }: PictureInput): PreprocessingDefaults {
    return { ...(channels === 3 && IMAGENET), fit: "stretch" };
  }

  protected override async interpret(
    row: OutputRow,
    picture: DecodedPicture,
    _request: PredictionRequest,
  ): Promise<Interpretation> {
    const labels = this.settings.class_names;
    const output = row[this.#output]!;
    const field = readField(output, labels.length || undefined);
    if (!field) throw this.#implausible(`the shape [${output.dims.join(", ")}]`, "output");
    const size = sizeFor(picture);
    const classes =
      field.planes === 1
        ? this.#readOnePlane(resample(field, 0, picture, size, isWhole(output.data) ? "nearest" : "bilinear"))
        : this.#readPlanes(field.planes, (plane) => resample(field, plane, picture, size));
    const findings = this.#toFindings(classes, size, picture);
    return { findings, outputs: [await toPng("classes", classes, size)] };
  }

  /** The best class of each pixel. */
  #readPlanes(planes: number, planeOf: (plane: number) => Float32Array): Uint8Array {
    const labels = this.settings.class_names.length;
    if (planes > 256)
      throw this.#implausible(`${planes} classes, more than a PNG's 256 grey values`, "output");
    if (labels > 0 && labels !== planes)
      throw this.#implausible(`${planes} classes, class_names has ${labels} labels`, "class_names");
    let best: Float32Array | undefined;
    let classes = new Uint8Array();
    for (let plane = 0; plane < planes; plane++) {
      const values = planeOf(plane);
      if (!best) [best, classes] = [values.slice(), new Uint8Array(values.length)];
      for (let at = 0; at < values.length; at++) {
        const value = values[at]!;
        if (value > best[at]!) {
          best[at] = value;
          classes[at] = plane;
        } else if (Number.isNaN(value)) throw this.#implausible("NaN as a score", "scale, mean and std");
      }
    }
    return classes;
  }

  /** Class indices as they are, or whether the only class is there. */
  #readOnePlane(values: Float32Array): Uint8Array {
    const labels = this.settings.class_names.length;
    let [lowest, highest] = [Infinity, -Infinity];
    for (const value of values) {
      if (!Number.isFinite(value))
        throw this.#implausible(`${value} as a class or score`, "scale, mean and std");
      if (value < lowest) lowest = value;
      if (value > highest) highest = value;
    }
    if (isWhole(values) && (labels > 1 || highest > 1)) {
      const most = labels > 0 ? labels - 1 : 255;
      if (lowest < 0 || highest > most)
        throw this.#implausible(
          `classes from ${lowest} to ${highest}, there are 0 to ${most}`,
          "class_names",
        );
      return Uint8Array.from(values);
    }
    const { activation } = this.#options;
    if (activation === "none" && (lowest < -1e-3 || highest > 1 + 1e-3))
      throw this.#implausible(`scores from ${lowest} to ${highest}`, "activation");
    const isLogits = activation === "sigmoid" || (activation === "auto" && (lowest < 0 || highest > 1));
    return Uint8Array.from(values, (value) => (value > (isLogits ? 0 : 0.5) ? 1 : 0));
  }

  #implausible(seen: string, setting: string): ImplausibleOutputError {
    return new ImplausibleOutputError(`the output "${this.#output}" has ${seen}; look at ${setting}`);
  }

  #toFindings(
    classes: Uint8Array,
    size: { width: number; height: number },
    { original }: DecodedPicture,
  ): Finding[] {
    const { width, height } = size;
    const labels = this.settings.class_names;
    const counts = new Map<number, number>();
    for (const each of classes) counts.set(each, (counts.get(each) ?? 0) + 1);
    // A model of one class says 1 where it is.
    const isBinary = labels.length === 1;
    const background =
      this.#options.background ?? (isBinary || /^_*background_*$/i.test(labels[0] ?? "") ? 0 : undefined);
    const findings: [area: number, finding: Finding][] = [];
    for (const [classIndex, count] of counts) {
      const area = count / classes.length;
      const labelIndex = isBinary ? classIndex - 1 : classIndex;
      if (classIndex === background || !this.keepsClass(labelIndex) || area < this.#options.min_area)
        continue;
      const data = Uint8Array.from(classes, (each) => (each === classIndex ? 1 : 0));
      const bitmap = { width, height, data };
      const [left, top, right, bottom] = boundsOf(data, width);
      findings.push([
        area,
        {
          Cs: 1,
          Lb: this.labelOf(labelIndex),
          Dm: {
            X: round4(left / width),
            Y: round4(top / height),
            W: round4((right - left) / width),
            H: round4((bottom - top) / height),
          },
          Msk: {
            Rle: { size: [height, width], counts: encodeRunLengths(bitmap, { left: 0, top: 0 }, size) },
            Poly: traceOutlines(bitmap).map((outline) =>
              outline.flatMap(([x, y]) => [round4(x / width), round4(y / height)]),
            ),
          },
          Info: `covers ${round4(area)} of the picture${width === original.width ? "" : `, at ${width}×${height}`}`,
        },
      ]);
    }
    return findings.toSorted(([a], [b]) => b - a).map(([, finding]) => finding);
  }
}

function isWhole(values: ArrayLike<number>): boolean {
  for (let at = 0; at < values.length; at++) if (!Number.isInteger(values[at]!)) return false;
  return true;
}

function boundsOf(
  data: Uint8Array,
  width: number,
): [left: number, top: number, right: number, bottom: number] {
  let [left, top, right, bottom] = [width, data.length, 0, 0];
  for (let at = 0; at < data.length; at++) {
    if (data[at] === 0) continue;
    const [x, y] = [at % width, Math.floor(at / width)];
    if (x < left) left = x;
    if (x >= right) right = x + 1;
    if (y < top) top = y;
    bottom = y + 1;
  }
  return [left, top, right, bottom];
}
