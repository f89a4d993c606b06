/** Image classifiers: one score for each class, from logits, probabilities or log-probabilities; one label or several. */
import { z } from "zod";
import type { TensorDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { PredictionRequest } from "../../imil/dictionaries.ts";
import { FORM_ONLY, producerOf } from "../../models/quantisation.ts";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import type { Interpretation, OutputRow, PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";
import { TOLERANCE } from "./heads/head.ts";
import { IMAGENET, type PreprocessingDefaults } from "./pictureOptions.ts";
import { suggestLoader } from "./suggestLoader.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  conf_thres: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .meta({ description: "Lowest score (0..1) of a finding where the request has no C_threshold." }),
  resize: z.enum(["stretch", "crop"]).optional().meta({
    description: "An older name of `fit`: stretch, or crop (8/7 of the input's size on the short side).",
  }),
  activation: z.enum(["auto", "softmax", "sigmoid", "none"]).default("auto").meta({
    description:
      "softmax: the model puts out logits of classes that exclude each other. sigmoid: logits of labels that don't. none: it puts out scores from 0 to 1. auto: read from the model's config.json and last operator.",
  }),
  top_k: z.int().min(1).optional().meta({
    description: "Most findings of a picture, the best ones. Default: all at or above the threshold.",
  }),
  output: z.string().optional().meta({ description: "Name of the output to read. Default: the first." }),
});

type Activation = "softmax" | "sigmoid" | "none" | "exp" | "unknown";

export class ImageClassificationModelLoader extends VisionModelLoader {
  static readonly options = options;

  readonly #options: z.output<typeof options>;
  #output = "";
  #activation: Activation = "unknown";

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#options = options.parse(this.settings);
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    const { output: named } = this.#options;
    const output = named === undefined ? outputs[0]! : outputs.find(({ name }) => name === named);
    if (!output) {
      throw new Error(`output must be one of ${outputs.map(({ name }) => name).join(", ")}, got "${named}"`);
    }
    this.#checkShape(output);
    this.readScales([output]);
    this.needScales([output]);
    this.#output = output.name;
    this.#activation = this.#findActivation();
    this.decided["activation"] = this.#activation;
    return [this.#output];
  }

  /** Refuses what is no list of scores: [N, classes], [N, classes, 1, 1] or [classes]. */
  #checkShape({ name, shape }: TensorDescription): void {
    const hasBatch = this.pictureInput.batch !== "none";
    const dims = shape.slice(hasBatch && shape.length > 1 ? 1 : 0);
    const rest = dims.filter((dim) => dim !== 1);
    const labels = this.settings.class_names.length;
    const scores = rest.find((dim) => typeof dim === "number");
    const advice = () => suggestLoader(this.facts, labels, "ImageClassificationModelLoader");
    if (rest.length > 1) {
      throw new Error(
        `ImageClassificationModelLoader reads one score for each class, [N, classes], the output "${name}" has the shape [${shape.join(", ")}]${advice()}`,
      );
    }
    if (labels > 0 && scores !== undefined && scores !== labels) {
      throw new Error(
        `the output "${name}" of shape [${shape.join(", ")}] has ${scores} scores, class_names has ${labels} labels${advice()}`,
      );
    }
  }

  #findActivation(): Activation {
    const { activation } = this.#options;
    if (activation !== "auto") return activation;
    if (this.facts.problem === "multi_label") return this.#isActivated() ? "none" : "sigmoid";
    if (this.facts.problem === "single_label") return this.#isActivated() ? "none" : "softmax";
    const last = this.#lastOperator();
    if (last === "Softmax" || last === "Sigmoid" || last === "HardSigmoid") return "none";
    if (last === "LogSoftmax") return "exp";
    return last !== undefined && LINEAR.has(last) ? "softmax" : "unknown";
  }

  #isActivated(): boolean {
    return /^(Softmax|Sigmoid|HardSigmoid)$/.test(this.#lastOperator() ?? "");
  }

  #lastOperator(): string | undefined {
    const { graph } = this.facts;
    return graph && producerOf(graph, this.#output, SKIPPED)?.opType;
  }

  protected override preprocessingDefaults({ channels }: PictureInput): PreprocessingDefaults {
    const { resize, scale } = this.#options;
    // Means of pixels from 0 to 1 don't fit other pixels.
    const numbers = channels === 3 && (scale === undefined || scale === 1 / 255) ? IMAGENET : {};
    if (resize !== undefined) return { ...numbers, fit: resize };
    // As Ultralytics prepares them: the short side to the input's, the centre, ÷ 255.
    if (this.facts.family === "ultralytics") return { fit: "cover" };
    return { ...numbers, fit: "stretch" };
  }

  override async preprocessing(
    picture: Buffer,
    request: PredictionRequest,
  ): Promise<DecodedPicture | readonly DecodedPicture[]> {
    this.confidenceThreshold(request);
    return super.preprocessing(picture, request);
  }

  /** Every wanted class whose score is at or above the threshold, best first. */
  protected override interpret(
    row: OutputRow,
    _picture: DecodedPicture,
    request: PredictionRequest,
  ): Interpretation {
    const { data, dims } = row[this.#output]!;
    const labels = this.settings.class_names.length;
    if (labels > 0 && data.length !== labels) {
      throw new ImplausibleOutputError(
        `the model's output [N, ${dims.join(", ")}] has ${data.length} scores, class_names has ${labels} labels`,
      );
    }
    const threshold = this.confidenceThreshold(request, this.#options.conf_thres);
    const scores = this.#toScores(data);
    const found: { score: number; classIndex: number }[] = [];
    for (let classIndex = 0; classIndex < scores.length; classIndex++) {
      const score = scores[classIndex]!;
      if (!(score >= -TOLERANCE && score <= 1 + TOLERANCE))
        this.#refuse(data[classIndex]!, score, classIndex);
      if (score >= threshold && this.keepsClass(classIndex)) found.push({ score, classIndex });
    }
    const findings = found
      .toSorted((a, b) => b.score - a.score)
      .slice(0, this.#options.top_k)
      .map(({ score, classIndex }) => ({
        Cs: Math.round(Math.min(1, score) * 100) / 100,
        Lb: this.labelOf(classIndex),
        Dm: {},
      }));
    return { findings };
  }

  #refuse(value: number, score: number, classIndex: number): never {
    const scored = value === score ? "" : `, which ${this.#activation} makes ${score}`;
    throw new ImplausibleOutputError(
      `the output "${this.#output}" has ${value} for class ${classIndex}${scored}, where a score is a number from 0 to 1; ` +
        `look at activation (${this.#options.activation}), and at scale, mean and std (what the model gets)`,
    );
  }

  #toScores(output: ArrayLike<number>): ArrayLike<number> {
    if (this.#activation === "none") return output;
    if (this.#activation === "sigmoid")
      return Float64Array.from(output, (value) => 1 / (1 + Math.exp(-value)));
    if (this.#activation === "exp") return Float64Array.from(output, Math.exp);
    return this.#activation === "unknown" && isDistribution(output) ? output : softmax(output);
  }
}

/** e^x ÷ Σ e^x, stable for large x. Log-probabilities become probabilities, too. */
export function softmax(logits: ArrayLike<number>): Float64Array {
  let highest = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < logits.length; index++) highest = Math.max(highest, logits[index]!);
  const scores = new Float64Array(logits.length);
  let sum = 0;
  for (let index = 0; index < logits.length; index++)
    sum += scores[index] = Math.exp(logits[index]! - highest);
  for (let index = 0; index < logits.length; index++) scores[index]! /= sum;
  return scores;
}

/** Whether no number is negative and their sum is 1: true of a softmax that the graph spells out in other operators. */
export function isDistribution(output: ArrayLike<number>): boolean {
  let sum = 0;
  for (let index = 0; index < output.length; index++) {
    if (output[index]! < 0) return false;
    sum += output[index]!;
  }
  return Math.abs(sum - 1) < 1e-3;
}

/** Operators that change the form or the type of a tensor, not its meaning. */
const SKIPPED: ReadonlySet<string> = new Set([...FORM_ONLY, "Cast", "QuantizeLinear", "DequantizeLinear"]);

/** Operators that put out numbers of any size: logits. */
const LINEAR: ReadonlySet<string> = new Set([
  "Gemm",
  "MatMul",
  "Conv",
  "Add",
  "GlobalAveragePool",
  "AveragePool",
  "QLinearMatMul",
  "QGemm",
  "QLinearConv",
]);
