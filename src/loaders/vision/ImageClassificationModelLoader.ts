/** Image classifiers: one score for each class, from logits, probabilities or log-probabilities. */
import { open } from "node:fs/promises";
import { z } from "zod";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import type { TensorDescription } from "../../core/description.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import {
  OnnxPictureModelLoader,
  type NormalisationFormat,
  type OutputRow,
  type PictureInput,
} from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";

const numberForEachChannel = z.union([z.tuple([z.number()]), z.tuple([z.number(), z.number(), z.number()])]);

const options = z.object({
  conf_thres: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .meta({ description: "Lowest score (0..1) of a finding where the request has no C_threshold." }),
  resize: z.enum(["stretch", "crop"]).default("stretch").meta({
    description:
      "stretch: to the input's size, whatever the ratio (IMIL). crop: 8/7 of the input's size on the short side, then the centre (torchvision, 256 → 224).",
  }),
  mean: numberForEachChannel.optional().meta({
    description:
      "Subtracted from each channel after ÷ 255. Default: ImageNet's [0.485, 0.456, 0.406] for RGB, [0] for grey.",
  }),
  std: numberForEachChannel.optional().meta({
    description:
      "Each channel is divided by it. Default: ImageNet's [0.229, 0.224, 0.225] for RGB, [1] for grey.",
  }),
  activation: z.enum(["auto", "softmax", "none"]).default("auto").meta({
    description:
      "softmax: the model puts out logits. none: it puts out scores from 0 to 1. auto: read from the model's last operator.",
  }),
});

export class ImageClassificationModelLoader extends OnnxPictureModelLoader {
  static readonly options = options;

  readonly #options: z.output<typeof options>;
  #output = "";
  /** The operator that makes the scores, where `activation` is `auto` and the file says it. */
  #lastOperator: string | undefined;

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#options = options.parse(this.settings);
  }

  override async load(): Promise<void> {
    await super.load();
    if (this.#options.activation === "auto")
      this.#lastOperator = await readLastOperator(this.settings.model_path[0]!, this.#output);
  }

  /** The first output; what follows (an embedding, for one) is not a score. */
  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    this.#output = outputs[0]!.name;
    return [this.#output];
  }

  protected override tensorFormat({ channels }: PictureInput): NormalisationFormat {
    const isColour = channels === 3;
    const { mean = isColour ? [0.485, 0.456, 0.406] : [0], std = isColour ? [0.229, 0.224, 0.225] : [1] } =
      this.#options;
    return { mean, std };
  }

  override async preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture> {
    this.confidenceThreshold(request);
    return this.decode(picture, this.#options.resize);
  }

  /** Every wanted class whose score is at or above the threshold, best first. */
  override async postprocessing(
    row: OutputRow,
    _picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    const { data, dims } = row[this.#output]!;
    const labels = this.settings.class_names.length;
    if (labels > 0 && data.length !== labels) {
      throw new Error(
        `the model's output [N, ${dims.join(", ")}] has ${data.length} scores, class_names has ${labels} labels`,
      );
    }
    const threshold = this.confidenceThreshold(request, this.#options.conf_thres);
    const scores = this.#toScores(data);
    const found: { score: number; classIndex: number }[] = [];
    for (let classIndex = 0; classIndex < scores.length; classIndex++) {
      const score = scores[classIndex]!;
      if (score >= threshold && this.keepsClass(classIndex)) found.push({ score, classIndex });
    }
    return found
      .toSorted((a, b) => b.score - a.score)
      .map(({ score, classIndex }) => ({
        Cs: Math.round(score * 100) / 100,
        Lb: this.labelOf(classIndex),
        Dm: {},
      }));
  }

  #toScores(output: ArrayLike<number>): ArrayLike<number> {
    if (this.#options.activation === "none") return output;
    if (this.#options.activation === "softmax") return softmax(output);
    if (this.#lastOperator === "Softmax" || this.#lastOperator === "Sigmoid") return output;
    return isDistribution(output) ? output : softmax(output);
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

/** Operators that change the form of a tensor, not its meaning. */
const FORM_ONLY = new Set([
  "Reshape",
  "Flatten",
  "Squeeze",
  "Unsqueeze",
  "Identity",
  "Cast",
  "QuantizeLinear",
  "DequantizeLinear",
  "Transpose",
]);
const MAX_FILE_TO_READ = 512 * 1024 * 1024;

/** The type of the operator that computes an output; undefined where the file is large or in another format than ONNX. */
async function readLastOperator(file: string, output: string): Promise<string | undefined> {
  const handle = await open(file);
  try {
    if ((await handle.stat()).size > MAX_FILE_TO_READ) return undefined;
    const { decodeModel } = await import("../../models/onnxProto.ts");
    const { nodes } = decodeModel(await handle.readFile());
    let node = nodes.find((candidate) => candidate.output.includes(output));
    while (node && FORM_ONLY.has(node.opType)) {
      const [source] = node.input;
      node = nodes.find((candidate) => candidate.output.includes(source!));
    }
    return node?.opType;
  } catch {
    return undefined;
  } finally {
    await handle.close();
  }
}
