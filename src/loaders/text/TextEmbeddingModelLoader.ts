/** Sentence embeddings: a vector for each text, from a transformer's tokens or from a model that pools them itself. */
import { z } from "zod";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import type { RequestDictionary, ResponseDictionary } from "../../core/request.ts";
import { writeTensors } from "../../tensors/dialect.ts";
import { toNumbers } from "../../tensors/numbers.ts";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import { TextModelLoader, textOptions, type FinishedText } from "./TextModelLoader.ts";

const options = textOptions.extend({
  pooling: z.enum(["auto", "mean", "cls", "none"]).default("auto").meta({
    description:
      "How the vectors of a text's tokens become one. mean: their mean. cls: the first token's. none: the model puts out one vector for each text. auto: what 1_Pooling/config.json beside the model says, else none where the model has such an output, else mean.",
  }),
  normalise: z.boolean().optional().meta({
    description:
      "Whether vectors are scaled to length 1. Default: what modules.json beside the model says, else true.",
  }),
  prefix: z.string().default("").meta({
    description: 'Stands before every text, where the model wants one, such as "query: " (E5).',
  }),
});

type Pooling = "mean" | "cls" | "none";

/** Outputs that hold one vector for each text, by the names that exporters give them. */
const SENTENCES = ["sentence_embedding", "sentence_embeddings", "text_embeds", "embeddings", "embedding"];
const TOKENS = ["last_hidden_state", "token_embeddings"];

export class TextEmbeddingModelLoader extends TextModelLoader {
  static readonly options = options;

  readonly #options: z.output<typeof options>;
  #pooling!: Pooling;
  #normalises = true;
  #output!: TensorDescription;

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#options = options.parse(this.settings);
  }

  protected override get prefix(): string {
    return this.#options.prefix;
  }

  override async load(): Promise<void> {
    await super.load();
    const stated = readPooling(await this.folder.readJson("1_Pooling/config.json"));
    const { outputs } = this.graph;
    const pooled = findOutput(outputs, SENTENCES, 2);
    const tokens = findOutput(outputs, TOKENS, 3);
    const wanted = this.#options.pooling === "auto" ? undefined : this.#options.pooling;
    this.#pooling = wanted ?? (pooled ? "none" : (stated ?? "mean"));
    const output = this.#pooling === "none" ? pooled : tokens;
    if (!output) {
      const form = this.#pooling === "none" ? "[N, numbers]" : "[N, length, numbers]";
      const shapes = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
      throw new Error(
        `models.${this.modelName}.pooling "${this.#pooling}" needs an output ${form}, the model has ${shapes}`,
      );
    }
    this.#output = output;
    const modules = (await this.folder.readJson("modules.json")) as unknown;
    this.#normalises =
      this.#options.normalise ??
      (!Array.isArray(modules) || modules.some(({ type }: { type?: string }) => type?.endsWith("Normalize")));
  }

  /** The output `embedding` [texts, numbers], and how many tokens were read. */
  override async postprocessing(
    texts: readonly FinishedText[],
    _request: RequestDictionary,
  ): Promise<ResponseDictionary> {
    const vectors = texts.map(({ outputs }) => this.#toVector(outputs));
    const size = vectors[0]!.length;
    const data = new Float32Array(texts.length * size);
    for (const [index, vector] of vectors.entries()) data.set(vector, index * size);
    const cut = texts.flatMap(({ text }, index) => (text.isCut ? [index] : []));
    return writeTensors(
      { embedding: { type: "float32", dims: [texts.length, size], data } },
      {
        usage: { prompt_tokens: texts.reduce((sum, { text }) => sum + text.ids.length, 0) },
        ...(cut.length > 0 && { cut_texts: cut }),
      },
    );
  }

  #toVector(outputs: FinishedText["outputs"]): Float32Array {
    const tensor = outputs[this.#output.name]!;
    const numbers = toNumbers(tensor);
    const size = tensor.dims.at(-1)!;
    const vector = Float32Array.from(numbers.subarray(0, size));
    if (this.#pooling === "mean") {
      const count = numbers.length / size;
      for (let at = 0; at < size; at++) {
        let sum = 0;
        for (let token = 0; token < count; token++) sum += numbers[token * size + at]!;
        vector[at] = sum / count;
      }
    }
    if (!this.#normalises) return vector;
    const length = Math.hypot(...vector);
    return vector.map((value) => value / (length || 1));
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    const wanted = outputs.filter(({ shape }) => shape.length === 2 || shape.length === 3);
    return (wanted.length > 0 ? wanted : outputs).map(({ name }) => name);
  }

  protected override get outputTensors(): readonly TensorDescription[] {
    return [{ name: "embedding", type: "float32", shape: ["texts", this.#output.shape.at(-1)!] }];
  }

  override describe(): LoaderDescription {
    const described = super.describe();
    return {
      ...described,
      labels: [],
      embeds: "text",
      facts: {
        ...described.facts,
        pooling: `${this.#pooling} of ${this.#output.name}`,
        normalised: this.#normalises ? "yes" : "no",
      },
    };
  }
}

/** The output of one of these names, else the only one of this rank. */
function findOutput(
  outputs: readonly TensorDescription[],
  names: readonly string[],
  rank: number,
): TensorDescription | undefined {
  const ofRank = outputs.filter(({ shape }) => shape.length === rank);
  return ofRank.find(({ name }) => names.includes(name)) ?? (ofRank.length === 1 ? ofRank[0] : undefined);
}

/** @throws Error where sentence-transformers pools in another way */
function readPooling(config: Record<string, unknown> | undefined): Pooling | undefined {
  if (!config) return undefined;
  const modes = Object.keys(config).filter((key) => key.startsWith("pooling_mode_") && config[key] === true);
  const known: Record<string, Pooling> = { pooling_mode_mean_tokens: "mean", pooling_mode_cls_token: "cls" };
  if (modes.length === 0) return undefined;
  const pooling = modes.length === 1 ? known[modes[0]!] : undefined;
  if (pooling) return pooling;
  throw new Error(
    `1_Pooling/config.json asks for ${modes.join(" and ")}, which is not offered here; set pooling to "mean" or "cls" to overrule it`,
  );
}
