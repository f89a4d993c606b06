/** Text classifiers: a score for each label of each text. */
import { z } from "zod";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import type { RequestDictionary } from "../../core/request.ts";
import type { Finding, PredictionResponse } from "../../imil/dictionaries.ts";
import { buildResponse } from "../../imil/response.ts";
import { toNumbers } from "../../tensors/numbers.ts";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import { keepClasses } from "../labels.ts";
import { isDistribution, softmax } from "../vision/ImageClassificationModelLoader.ts";
import { TextModelLoader, textOptions, type FinishedText } from "./TextModelLoader.ts";

const options = textOptions.extend({
  conf_thres: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .meta({ description: "Lowest score (0..1) of a finding where the request has no C_threshold." }),
  activation: z.enum(["auto", "softmax", "sigmoid", "none"]).default("auto").meta({
    description:
      "What makes scores of the model's output. softmax: one label fits. sigmoid: each label fits or not. none: it puts out scores from 0 to 1. auto: what problem_type in config.json says, else none where the output is a distribution, else softmax (sigmoid where there is one label only).",
  }),
});

export class TextClassificationModelLoader extends TextModelLoader {
  static readonly options = options;

  readonly #options: z.output<typeof options>;
  #labels: readonly string[] = [];
  #activation: "softmax" | "sigmoid" | "none" | "auto" = "auto";
  #keepsClass: (classIndex: number) => boolean = () => true;
  #output = "";

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#options = options.parse(this.settings);
  }

  /** Opens the model; labels come from `class_names`, else from config.json beside it. */
  override async load(): Promise<void> {
    await super.load();
    const config = await this.folder.readJson("config.json");
    const { class_names: given, classes } = this.settings;
    this.#labels = given.length > 0 ? given : readLabels(config?.["id2label"]);
    try {
      this.#keepsClass = keepClasses(classes, this.#labels);
    } catch (error) {
      throw new Error(`models.${this.modelName}.classes: ${(error as Error).message}`, { cause: error });
    }
    this.#activation = this.#options.activation;
    if (this.#activation !== "auto") return;
    const problem = config?.["problem_type"];
    if (problem === "regression") {
      throw new Error(
        `models.${this.modelName}: config.json says that the model puts out a number (problem_type "regression"), not scores; ` +
          "serve it with OnnxTensorModelLoader, or set activation",
      );
    }
    if (problem === "multi_label_classification") this.#activation = "sigmoid";
    if (problem === "single_label_classification") this.#activation = "softmax";
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    const found = outputs.filter(({ shape }) => shape.length === 2);
    const output = found.find(({ name }) => name === "logits") ?? found[0];
    if (output) {
      this.#output = output.name;
      return [output.name];
    }
    const shapes = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
    throw new Error(
      `models.${this.modelName}.model_path: TextClassificationModelLoader reads scores for a text, [N, labels], this model puts out ${shapes}`,
    );
  }

  /** Every wanted label whose score is at or above the threshold, best first; of several texts with the text's index in `Info`. */
  override async postprocessing(
    texts: readonly FinishedText[],
    request: RequestDictionary,
    startedAt: Date,
  ): Promise<PredictionResponse> {
    const threshold = this.confidenceThreshold(request, this.#options.conf_thres);
    const findings = texts.flatMap(({ outputs }, index) => {
      const own = this.#findLabels(toNumbers(outputs[this.#output]!), threshold);
      return texts.length === 1 ? own : own.map((finding) => ({ ...finding, Info: String(index) }));
    });
    return buildResponse(request, findings, { model: this.modelName, startedAt });
  }

  #findLabels(output: ArrayLike<number>, threshold: number): Finding[] {
    if (this.#labels.length > 0 && output.length !== this.#labels.length) {
      throw new Error(
        `the model's output has ${output.length} scores, there are ${this.#labels.length} labels; set class_names`,
      );
    }
    const scores = this.#toScores(output);
    return scores
      .map((score, classIndex) => ({ score, classIndex }))
      .filter(({ score, classIndex }) => score >= threshold && this.#keepsClass(classIndex))
      .toSorted((a, b) => b.score - a.score)
      .map(({ score, classIndex }) => ({
        Cs: Math.round(score * 1e4) / 1e4,
        Lb: this.#labels[classIndex] ?? String(classIndex),
        Dm: {},
      }));
  }

  #toScores(output: ArrayLike<number>): number[] {
    const numbers = Array.from(output);
    if (numbers.some((value) => Number.isNaN(value)))
      throw new Error("the model puts out NaN for this text: it can't be classified");
    if (this.#activation === "sigmoid" || (this.#activation === "auto" && numbers.length === 1))
      return numbers.map((value) => 1 / (1 + Math.exp(-value)));
    if (this.#activation === "none" || (this.#activation === "auto" && isDistribution(numbers)))
      return numbers;
    return Array.from(softmax(numbers));
  }

  protected override get outputTensors(): readonly TensorDescription[] {
    return [];
  }

  override describe(): LoaderDescription {
    return { ...super.describe(), labels: this.#labels.filter((_label, index) => this.#keepsClass(index)) };
  }
}

/** `id2label` of Hugging Face's config.json: `{"0": "NEGATIVE", "1": "POSITIVE"}`. */
function readLabels(id2label: unknown): string[] {
  if (typeof id2label !== "object" || id2label === null) return [];
  return Object.entries(id2label)
    .toSorted(([a], [b]) => Number(a) - Number(b))
    .map(([, label]) => String(label));
}
