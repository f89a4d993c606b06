/**
 * CLIP: how well each of a request's prompts fits its picture. An image encoder and a text encoder put both into one
 * space; the answer is the softmax of 100 × cosine over the prompts. Texts that come again are not encoded again.
 */
import { z } from "zod";
import { BadInputError } from "../../errors.ts";
import type { BatchTrace, LoaderConfig } from "../BaseModelLoader.ts";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import { readClipTokenizer, type ClipTokenizer } from "../text/clipTokenizer.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import { softmax } from "./ImageClassificationModelLoader.ts";
import type { OnnxGraph } from "../onnx/OnnxGraph.ts";
import { listTensors } from "../onnx/session.ts";
import {
  OnnxPictureModelLoader,
  type NormalisationFormat,
  type OutputRow,
  type PictureOutcome,
} from "../pictures/OnnxPictureModelLoader.ts";
import { toNumbers } from "../../tensors/numbers.ts";
import type { TensorValue, Tensors } from "../../tensors/tensor.ts";
import type { DecodedPicture } from "../pictures/picture.ts";
import { RecentlyUsed } from "./recentlyUsed.ts";

const options = z.object({
  conf_thres: z
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .meta({ description: "Lowest score (0..1) of a finding where the request has no C_threshold." }),
});

/** What the scores of a picture are scaled by before the softmax: CLIP's trained `logit_scale`, 100 in all its sizes. */
const LOGIT_SCALE = 100;
/** Tokens of a text where the text encoder takes any number. */
const CONTEXT_LENGTH = 77;
const MAX_PROMPTS = 1000;
/** Texts that go through the text encoder together, so that its memory stays bounded. */
const MAX_TEXTS_PER_RUN = 32;
/** 2 KB each for vectors of 512 numbers. */
const MAX_KEPT_TEXTS = 4096;

/** A vector of length 1. */
type Embedding = Float64Array;

interface TextEncoder {
  graph: OnnxGraph;
  tokens: TensorDescription;
  /** Where the encoder wants to be told which tokens are filler. */
  mask: TensorDescription | undefined;
  output: string;
  contextLength: number;
}

/** A prompt on its way: its tokens as long as it has no embedding. */
interface PromptText {
  text: string;
  ids?: readonly number[];
  embedding?: Embedding | undefined;
}

export class ClipModelLoader extends OnnxPictureModelLoader {
  static readonly options = options;

  readonly #options: z.output<typeof options>;
  #imageOutput = "";
  #tokenise!: ClipTokenizer;
  #encoder!: TextEncoder;
  readonly #keptTexts = new RecentlyUsed<string, Embedding>(MAX_KEPT_TEXTS);
  /** The prompts of the requests that are under way. */
  readonly #prompts = new WeakMap<PredictionRequest, readonly PromptText[]>();

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#options = options.parse(this.settings);
  }

  /** Opens `model_path`: image encoder, text encoder, vocabulary. */
  override async load(): Promise<void> {
    const [, textFile, vocabularyFile, ...more] = this.settings.model_path;
    if (vocabularyFile === undefined || more.length > 0) {
      throw new Error(
        `models.${this.modelName}.model_path must name three files, the image encoder (.onnx), the text encoder (.onnx) ` +
          `and the vocabulary (tokenizer.json or bpe_simple_vocab_16e6.txt.gz), got ${this.settings.model_path.length}`,
      );
    }
    await super.load();
    try {
      const graph = await this.openGraph(textFile, {
        batch: ([tokens]) => (tokens && tokens.shape.length > 1 ? { axis: 0 } : "none"),
        maxBatchSize: MAX_TEXTS_PER_RUN,
        wantedOutputs: (outputs) => [findEmbedding(outputs, "text_embeds", "text encoder")],
      });
      this.#encoder = describeTextEncoder(graph);
      this.#tokenise = await readClipTokenizer(vocabularyFile);
    } catch (error) {
      throw new Error(`models.${this.modelName}.model_path: ${(error as Error).message}`, { cause: error });
    }
  }

  protected override tensorFormat(): NormalisationFormat {
    return {
      mean: [0.48145466, 0.4578275, 0.40821073],
      std: [0.26862954, 0.26130258, 0.27577711],
    };
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    this.#imageOutput = findEmbedding(outputs, "image_embeds", "image encoder");
    return [this.#imageOutput];
  }

  /** OpenAI's: shorter side to the input's, bicubic, then the centre. */
  override preprocessing(picture: Buffer): Promise<DecodedPicture> {
    return this.decode(picture, "cover", { kernel: "cubic" });
  }

  /** Encodes the prompts of all requests together, then their pictures. A faulty prompt fails its own request only. */
  override async predictRequests(
    requests: readonly PredictionRequest[],
    trace: BatchTrace,
  ): Promise<PictureOutcome[]> {
    const startedAt = performance.now();
    const prompts = requests.map((request) => this.#readPrompts(request));
    const encodingStartedAt = performance.now();
    await this.#encodeTexts(prompts.flatMap((own) => (own instanceof Error ? [] : own)));
    trace.preprocess_ms += encodingStartedAt - startedAt;
    trace.infer_ms += performance.now() - encodingStartedAt;

    const answerable = requests.filter((request, index) => {
      const own = prompts[index]!;
      if (own instanceof Error) return false;
      this.#prompts.set(request, own);
      return true;
    });
    const outcomes = await super.predictRequests(answerable, trace);
    return prompts.map((own) => (own instanceof Error ? own : outcomes.shift()!));
  }

  /** A finding for each prompt whose score is at or above the threshold, in the order of the prompts. */
  override async postprocessing(
    row: OutputRow,
    _picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    const threshold = this.confidenceThreshold(request, this.#options.conf_thres);
    const image = toLengthOne(row[this.#imageOutput]!.data);
    const prompts = this.#prompts.get(request)!;
    const scores = softmax(prompts.map(({ embedding }) => LOGIT_SCALE * cosine(image, embedding!)));
    return prompts.flatMap(({ text }, index) =>
      scores[index]! >= threshold ? { Cs: Math.round(scores[index]! * 1e4) / 1e4, Lb: text, Dm: {} } : [],
    );
  }

  #readPrompts(request: PredictionRequest): PromptText[] | Error {
    try {
      this.confidenceThreshold(request);
      return readPrompts(request).map((text) => {
        const embedding = this.#keptTexts.get(text);
        return embedding ? { text, embedding } : { text, ids: this.#tokeniseWithin(text) };
      });
    } catch (error) {
      return error as Error;
    }
  }

  #tokeniseWithin(text: string): number[] {
    const ids = this.#tokenise(text);
    const { contextLength } = this.#encoder;
    if (ids.length <= contextLength) return ids;
    throw new BadInputError(
      `Prompt must hold texts of at most ${contextLength} tokens, start and end among them, got ${ids.length}: ` +
        `"${text.slice(0, 60)}…"`,
    );
  }

  /** Gives each prompt its embedding; those that several requests have in common are encoded once. */
  async #encodeTexts(prompts: readonly PromptText[]): Promise<void> {
    const fresh = new Map(
      prompts.filter(({ embedding }) => !embedding).map((prompt) => [prompt.text, prompt]),
    );
    const embeddings = await this.#runTextEncoder([...fresh.values()].map(({ ids }) => ids!));
    const encoded = new Map([...fresh.keys()].map((text, index) => [text, embeddings[index]!]));
    for (const [text, embedding] of encoded) this.#keptTexts.set(text, embedding);
    for (const prompt of prompts) prompt.embedding ??= encoded.get(prompt.text);
  }

  async #runTextEncoder(texts: readonly (readonly number[])[]): Promise<Embedding[]> {
    const { graph, output } = this.#encoder;
    const answers = await graph.run(texts.map((ids) => this.#toTensors(ids)));
    return answers.map((answer) => {
      if (answer instanceof Error) throw answer;
      return toLengthOne(toNumbers(answer[output]!));
    });
  }

  /** A text filled up with zeros as OpenAI does. */
  #toTensors(ids: readonly number[]): Tensors {
    const { graph, tokens, mask, contextLength } = this.#encoder;
    const dims = graph.plan.rows === "none" ? [contextLength] : [1, contextLength];
    const toTensor = ({ type }: TensorDescription, numberOf: (id: number) => number): TensorValue => {
      const numbers = [...ids.map(numberOf), ...zeros(contextLength - ids.length)];
      return type === "int64"
        ? { type, dims, data: BigInt64Array.from(numbers, BigInt) }
        : { type: "int32", dims, data: Int32Array.from(numbers) };
    };
    return {
      [tokens.name]: toTensor(tokens, (id) => id),
      ...(mask && { [mask.name]: toTensor(mask, () => 1) }),
    };
  }

  override async warmUp(): Promise<void> {
    await super.warmUp();
    const texts = ["a photo", "two dogs in the snow", "nothing"].map((text) => this.#tokenise(text));
    await this.#encoder.graph.check(texts.map((ids) => this.#toTensors(ids)));
  }

  override describe(): LoaderDescription {
    return { ...super.describe(), labels: [], requiredKeys: ["Prompt"] };
  }

  protected override get warmUpRequest(): PredictionRequest {
    return { Prompt: [["a photo"]] };
  }
}

/**
 * The prompts of a request: the first list of `Prompt`, a list of lists. A list of texts is taken, too, and both as JSON
 * in a string, as a query parameter has them.
 * @throws BadInputError where there are none.
 */
export function readPrompts({ Prompt: given }: PredictionRequest): string[] {
  const list = typeof given === "string" ? listOfText(given) : Array.isArray(given) ? given : [];
  const isNested = Array.isArray(list[0]);
  const prompts = (isNested ? list[0] : list) as unknown[];
  if (prompts.length === 0) {
    throw new BadInputError(
      `Prompt must hold the list of texts to choose from, such as [["a cat", "a dog"]], got ${JSON.stringify(given) ?? "none"}`,
    );
  }
  if (prompts.length > MAX_PROMPTS)
    throw new BadInputError(`Prompt must hold at most ${MAX_PROMPTS} texts, got ${prompts.length}`);
  return prompts.map((prompt, index) => {
    if (typeof prompt === "string" && prompt.trim() !== "") return prompt;
    const place = isNested ? `Prompt[0][${index}]` : `Prompt[${index}]`;
    throw new BadInputError(`${place} must be a text, got ${JSON.stringify(prompt)}`);
  });
}

function listOfText(text: string): unknown[] {
  if (text.trim() === "") return [];
  if (!/^\s*\[/.test(text)) return [text];
  try {
    return JSON.parse(text) as unknown[];
  } catch (error) {
    throw new BadInputError(`Prompt begins like a JSON list but is none: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/**
 * Reads how a text encoder takes its tokens: whole numbers [N, length], and a mask of the same shape if it wants one.
 * @throws Error where it takes something else.
 */
function describeTextEncoder(graph: OnnxGraph): TextEncoder {
  const { inputs } = graph;
  const mask = inputs.find(({ name }) => name === "attention_mask");
  const [tokens, ...others] = inputs.filter((input) => input !== mask);
  const length = tokens?.shape.at(-1);
  const isRightType = [tokens, mask].every((input) => !input || /^int(32|64)$/.test(input.type));
  if (!tokens || others.length > 0 || !isRightType || tokens.shape.length > 2) {
    throw new Error(
      `the text encoder must take token ids, int64 or int32 [N, ${CONTEXT_LENGTH}], and may take an attention_mask, this one takes ${listTensors(inputs)}`,
    );
  }
  return {
    graph,
    tokens,
    mask,
    output: graph.wantedOutputs[0]!,
    contextLength: typeof length === "number" ? length : CONTEXT_LENGTH,
  };
}

/** The output of that name, else the first of shape [N, numbers]. */
function findEmbedding(outputs: readonly TensorDescription[], name: string, what: string): string {
  const found =
    outputs.find((output) => output.name === name) ?? outputs.find(({ shape }) => shape.length === 2);
  if (found) return found.name;
  const shapes = outputs.map((output) => `${output.name} [${output.shape.join(", ")}]`).join(", ");
  throw new Error(
    `the ${what} must put out ${name} [N, numbers], this one has ${shapes}; export it with its projection`,
  );
}

const zeros = (count: number) => Array<number>(count).fill(0);

function toLengthOne(vector: ArrayLike<number>): Embedding {
  const own = Float64Array.from(vector);
  const length = Math.hypot(...own);
  return own.map((value) => value / (length || 1));
}

/** Of two vectors of length 1. */
function cosine(image: Embedding, text: Embedding): number {
  if (image.length !== text.length) {
    throw new Error(
      `the image encoder makes vectors of ${image.length} numbers, the text encoder of ${text.length}: they must belong to one CLIP`,
    );
  }
  return image.reduce((sum, value, index) => sum + value * text[index]!, 0);
}
