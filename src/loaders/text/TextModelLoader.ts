/**
 * Base of the loaders of transformers that read texts: texts of a request in, token ids through the model, its outputs
 * for each text to the subclass. Texts of different lengths share a run where the model allows it.
 */
import { z } from "zod";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import { inputsOf, type RequestDictionary, type ResponseDictionary } from "../../core/request.ts";
import { BadInputError } from "../../errors.ts";
import { readBytesElements, type TensorEntry } from "../../tensors/dialect.ts";
import { textsOf } from "../../tensors/rawBytes.ts";
import type { TensorValue, Tensors } from "../../tensors/tensor.ts";
import type { BatchTrace, Outcome } from "../BaseModelLoader.ts";
import { OnnxModelLoader } from "../onnx/OnnxModelLoader.ts";
import { listTensors } from "../onnx/session.ts";
import { ModelFolder } from "./modelFolder.ts";
import { readTextTokenizer, type EncodedText, type TextTokenizer } from "./textTokenizer.ts";

/** Options of every loader of texts. */
export const textOptions = z.object({
  max_length: z.int().min(1).optional().meta({
    description:
      "Most tokens of a text, special ones among them; the end of a longer text is left out. Default: what sentence_bert_config.json, tokenizer.json, tokenizer_config.json or config.json beside the model say, else 512.",
  }),
});

/** As many as OpenAI's endpoint takes. */
const MAX_TEXTS = 2048;

/** A text that went through the model. */
export interface FinishedText {
  text: EncodedText;
  /** The model's outputs for it: one row, padding cut off. */
  outputs: Tensors;
}

export abstract class TextModelLoader extends OnnxModelLoader {
  protected folder!: ModelFolder;
  #tokenizer!: TextTokenizer;

  /** What the outputs for the texts of one request mean, in their order. */
  abstract override postprocessing(
    texts: readonly FinishedText[],
    request: RequestDictionary,
    startedAt: Date,
  ): Promise<ResponseDictionary>;

  /** What stands before every text, such as "query: ". */
  protected get prefix(): string {
    return "";
  }

  /** Opens `model_path[0]` and reads the tokenizer beside it. */
  override async load(): Promise<void> {
    await super.load();
    this.folder = new ModelFolder(this.settings.model_path);
    try {
      this.#tokenizer = await readTextTokenizer(
        this.folder,
        this.settings["max_length"] as number | undefined,
      );
      for (const input of this.graph.inputs) fillInput(input, [0]);
    } catch (error) {
      throw new Error(`models.${this.modelName}.model_path ${(error as Error).message}`, { cause: error });
    }
  }

  /** The texts of a request, ready for the model. */
  override async preprocessing(request: RequestDictionary): Promise<EncodedText[]> {
    return readTexts(request).map((text) => this.#tokenizer.encode(this.prefix + text));
  }

  override async predictRequests(
    requests: readonly RequestDictionary[],
    trace: BatchTrace,
  ): Promise<Outcome[]> {
    const arrivedAt = new Date();
    const startedAt = performance.now();
    const prepared = await Promise.all(requests.map((request) => orError(() => this.preprocessing(request))));
    trace.preprocess_ms += performance.now() - startedAt;
    const texts = prepared.flatMap((own) => (own instanceof Error ? [] : own));
    const answers = await this.graph.run(
      texts.map(({ ids }) => this.#toTensors(ids)),
      trace,
    );
    const finishingStartedAt = performance.now();
    let next = 0;
    const outcomes: Outcome[] = [];
    for (const [index, own] of prepared.entries()) {
      if (own instanceof Error) {
        outcomes.push(own);
        continue;
      }
      const finished = own.map((text) => ({ text, outputs: answers[next++]! }));
      const failed = finished.find(({ outputs }) => outputs instanceof Error)?.outputs as Error | undefined;
      outcomes.push(
        failed ??
          (await orError(() => this.postprocessing(finished as FinishedText[], requests[index]!, arrivedAt))),
      );
    }
    trace.postprocess_ms += performance.now() - finishingStartedAt;
    return outcomes;
  }

  #toTensors(ids: readonly number[]): Tensors {
    return Object.fromEntries(this.graph.inputs.map((input) => [input.name, fillInput(input, ids)]));
  }

  protected override *warmUpSamples(): Generator<Tensors[]> {
    const texts = ["one two three four five six", "six seven eight nine ten one", "ten nine"];
    yield texts.map((text) => this.#toTensors(this.#tokenizer.encode(this.prefix + text).ids));
  }

  override describe(): LoaderDescription {
    const described = super.describe();
    return {
      ...described,
      takesTensors: true,
      tensors: { inputs: [{ name: TEXT, type: "string", shape: ["texts"] }], outputs: this.outputTensors },
      inputs: [{ name: TEXT, mediaTypes: ["text/plain"], required: false, multiple: true }],
      facts: { ...described.facts, "longest text": `${this.#tokenizer.maxLength} tokens` },
    };
  }

  /** The tensors of a response, for `describe()`. */
  protected abstract get outputTensors(): readonly TensorDescription[];
}

/** Name of the tensor, and of the input, that holds texts. */
const TEXT = "text";

/**
 * The texts of a request: `Text`, a string or a list; a BYTES tensor in `inputs`; or bytes of type text/plain.
 * @throws BadInputError where there are none
 */
export function readTexts(request: RequestDictionary): string[] {
  const { Text: given, inputs: tensors } = request;
  const attached = inputsOf(request).filter(({ mediaType }) => mediaType.startsWith("text/"));
  if (given !== undefined && given !== null) return checkTexts(given, "Text");
  if (Array.isArray(tensors)) return readTextTensor(tensors, request);
  if (attached.length > 0)
    return readUtf8(
      attached.map(({ bytes }) => bytes),
      "the input",
    );
  throw new BadInputError(
    "a request must have Text, a string or a list of strings (or inputs with a BYTES tensor), got neither",
  );
}

function readTextTensor(tensors: readonly unknown[], request: RequestDictionary): string[] {
  const [entry] = tensors as [TensorEntry];
  if (tensors.length !== 1 || entry?.datatype !== "BYTES") {
    throw new BadInputError(
      `inputs must be one tensor of datatype BYTES with the texts, got ${tensors.length} (${(tensors as TensorEntry[]).map((each) => each?.datatype).join(", ")})`,
    );
  }
  let elements: Buffer[];
  try {
    elements = readBytesElements(entry, request);
  } catch (error) {
    throw new BadInputError(`inputs[0] ${(error as Error).message}`, { cause: error });
  }
  return checkTexts(readUtf8(elements, "inputs[0]"), "inputs[0]");
}

function readUtf8(elements: readonly Buffer[], key: string): string[] {
  try {
    return textsOf(elements);
  } catch (error) {
    throw new BadInputError(`${key} ${(error as Error).message}`, { cause: error });
  }
}

function checkTexts(given: unknown, key: string): string[] {
  const texts: unknown[] = Array.isArray(given) ? given : [given];
  if (texts.length === 0) throw new BadInputError(`${key} must hold at least one text, got an empty list`);
  if (texts.length > MAX_TEXTS)
    throw new BadInputError(`${key} must hold at most ${MAX_TEXTS} texts, got ${texts.length}`);
  return texts.map((text, index) => {
    if (typeof text === "string") return text;
    const place = Array.isArray(given) ? `${key}[${index}]` : key;
    throw new BadInputError(`${place} must be a string, got ${JSON.stringify(text) ?? "none"}`);
  });
}

/**
 * One row of an input of a transformer.
 * @throws Error where it is none that is known
 */
function fillInput({ name, type, shape }: TensorDescription, ids: readonly number[]): TensorValue {
  const numberOf = {
    input_ids: (id: number) => id,
    attention_mask: () => 1,
    input_mask: () => 1,
    token_type_ids: () => 0,
    segment_ids: () => 0,
    position_ids: (_id: number, place: number) => place,
  }[name];
  if (!numberOf || !/^int(32|64)$/.test(type) || shape.length !== 2) {
    throw new Error(
      "names a model that is none for texts: it must take input_ids, attention_mask, token_type_ids or position_ids, " +
        `int64 or int32 [N, length], this one has ${listTensors([{ name, type, shape }])}`,
    );
  }
  const numbers = ids.map(numberOf);
  const dims = [1, ids.length];
  return type === "int64"
    ? { type, dims, data: BigInt64Array.from(numbers, BigInt) }
    : { type: "int32", dims, data: Int32Array.from(numbers) };
}

async function orError<T>(work: () => Promise<T>): Promise<T | Error> {
  try {
    return await work();
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
