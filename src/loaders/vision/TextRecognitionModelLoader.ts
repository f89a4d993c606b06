/**
 * Text recognisers that read one line of text (CRNN, PaddleOCR's and RapidOCR's): for each step along the line a score
 * for each character, joined by CTC: repeats are one character, blanks are none.
 */
import { z } from "zod";
import type { TensorDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { PredictionRequest } from "../../imil/dictionaries.ts";
import { FORM_ONLY, producerOf } from "../../models/quantisation.ts";
import type { Interpretation, OutputRow } from "../pictures/OnnxPictureModelLoader.ts";
import { cropPicture, type DecodedPicture, type PictureSize } from "../pictures/picture.ts";
import { round4 } from "./boxes.ts";
import { TOLERANCE } from "./heads/head.ts";
import { softmax } from "./ImageClassificationModelLoader.ts";
import type { PreprocessingDefaults } from "./pictureOptions.ts";
import { suggestLoader } from "./suggestLoader.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  conf_thres: z.number().min(0).max(1).default(0).meta({
    description: "Lowest mean score (0..1) of a text where the request has no C_threshold.",
  }),
  blank: z.enum(["first", "last"]).default("first").meta({
    description: "Which class is CTC's blank: 0, or the one behind the last character.",
  }),
  width_step: z.int().min(1).default(32).meta({
    description: "Where the model takes lines of any width: their width in pixels is a multiple of it.",
  }),
  max_width: z.int().min(32).default(3200).meta({
    description: "Where the model takes lines of any width: longest line in pixels.",
  }),
});

/** Longest side of the picture before its line is brought to the model's height. */
const MAX_SIDE = 8192;

export class TextRecognitionModelLoader extends VisionModelLoader {
  static readonly options = options;
  readonly #options = options.parse(this.settings);
  #output = "";
  #isLogits = false;

  protected override get defaultInputSize(): PictureSize {
    return { width: 320, height: 48 };
  }

  protected override defaultLabels(): readonly string[] {
    return this.facts.characters ?? this.facts.labels ?? [];
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    const output = outputs.find(({ shape }) => shape.length === 3);
    const seen = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
    if (!output) {
      throw new Error(
        `TextRecognitionModelLoader reads [N, steps, characters], this model has ${seen}${suggestLoader(this.facts, this.settings.class_names.length, this.constructor.name)}`,
      );
    }
    if (this.settings.class_names.length === 0) {
      throw new Error(
        `the file doesn't say which characters its classes are; set class_names to a file with a character on each line (without the blank)`,
      );
    }
    const classes = output.shape[2];
    if (typeof classes === "number") this.#charactersOf(classes);
    this.readScales([output]);
    this.needScales([output]);
    this.#output = output.name;
    const last = this.facts.graph && producerOf(this.facts.graph, output.name, FORM_ONLY)?.opType;
    this.#isLogits = last !== "Softmax";
    return [output.name];
  }

  /** The character of each class, "" for the blank. PaddleOCR adds a space behind the characters of its lists. */
  #charactersOf(classes: number): readonly string[] {
    const { class_names: given } = this.settings;
    const known =
      given.length + 1 === classes ? given : given.length + 2 === classes ? [...given, " "] : undefined;
    if (!known) {
      throw new ImplausibleOutputError(
        `the output has ${classes} classes, which must be one (the blank) or two (a space, too) more than the ${given.length} characters; look at class_names`,
      );
    }
    return this.#options.blank === "first" ? ["", ...known] : [...known, ""];
  }

  protected override preprocessingDefaults(): PreprocessingDefaults {
    return { channels: "bgr", mean: [0.5], std: [0.5], fit: "stretch" };
  }

  /** The line at the model's height, as wide as it is then, where the width is free. */
  override async preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture> {
    this.confidenceThreshold(request, this.#options.conf_thres);
    const isFree = this.pictureInput.width === undefined && this.settings.input_image_size === undefined;
    if (!isFree) return (await super.preprocessing(picture, request)) as DecodedPicture;
    const whole = await this.decode(picture, "inside", { size: { width: MAX_SIDE, height: MAX_SIDE } });
    const { height } = this.inputSize;
    const { width_step: step, max_width: most } = this.#options;
    const wanted = Math.ceil((whole.width / whole.height) * (height / step)) * step;
    const size = { width: Math.min(Math.max(step, wanted), most), height };
    return cropPicture(whole, { left: 0, top: 0, width: whole.width, height: whole.height }, size);
  }

  protected override mayVary(): boolean {
    return true;
  }

  protected override interpret(
    row: OutputRow,
    _picture: DecodedPicture,
    request: PredictionRequest,
  ): Interpretation {
    const { data, dims } = row[this.#output]!;
    const [steps = 0, classes = 0] = dims.slice(-2);
    const characters = this.#charactersOf(classes);
    const { text, score } = readCtc(data, steps, characters, this.#isLogits, this.#output);
    const threshold = this.confidenceThreshold(request, this.#options.conf_thres);
    return { findings: text === "" || score < threshold ? [] : [{ Cs: round4(score), Lb: text, Dm: {} }] };
  }
}

/** The most likely character of each step, joined; the score is the mean of those that are read. */
export function readCtc(
  data: ArrayLike<number>,
  steps: number,
  characters: readonly string[],
  isLogits: boolean,
  output: string,
): { text: string; score: number } {
  const classes = characters.length;
  let text = "";
  let sum = 0;
  let read = 0;
  let previous = -1;
  for (let step = 0; step < steps; step++) {
    const start = step * classes;
    let best = 0;
    for (let index = 0; index < classes; index++) {
      const value = data[start + index]!;
      if (value > data[start + best]!) best = index;
      else if (Number.isNaN(value)) throw implausible(value, step, output);
    }
    if (characters[best] !== "" && best !== previous) {
      const value = data[start + best]!;
      const score = isLogits
        ? softmax(Array.from({ length: classes }, (_, at) => data[start + at]!))[best]!
        : value;
      if (!(score >= 0 && score <= 1 + TOLERANCE)) throw implausible(value, step, output);
      text += characters[best]!;
      sum += score;
      read++;
    }
    previous = best;
  }
  return { text, score: read === 0 ? 0 : Math.min(1, sum / read) };
}

function implausible(value: number, step: number, output: string): ImplausibleOutputError {
  return new ImplausibleOutputError(
    `the output "${output}" has ${value} as a score of step ${step}; look at scale, mean and std (what the model gets)`,
  );
}
