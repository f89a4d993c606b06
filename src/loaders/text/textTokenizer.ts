/** From texts to the token ids of a model. The work is done by @huggingface/tokenizers. */
import type { ModelFolder } from "./modelFolder.ts";

/** A text as its model reads it. */
export interface EncodedText {
  /** Token ids, special tokens among them. */
  ids: readonly number[];
  /** Whether the text was longer than the model takes, and its end is left out. */
  isCut: boolean;
}

export interface TextTokenizer {
  encode(text: string): EncodedText;
  /** Most tokens of a text, special tokens among them. */
  readonly maxLength: number;
}

/** Where nothing says how long a text may be: what BERT's position embeddings hold. */
const DEFAULT_MAX_LENGTH = 512;

/**
 * Reads `tokenizer.json` of a model, and how long its texts may be: `maxLength`, else what sentence_bert_config.json,
 * tokenizer.json, tokenizer_config.json or config.json say, the first that does, else 512.
 * @throws Error where there is no tokenizer, or it can't be used
 */
export async function readTextTokenizer(folder: ModelFolder, maxLength?: number): Promise<TextTokenizer> {
  const definition = await folder.readJson("tokenizer.json");
  if (!definition) {
    throw new Error(
      "must have tokenizer.json beside the model, or name it as a further file; there is none (exports of Hugging Face have one)",
    );
  }
  const config = (await folder.readJson("tokenizer_config.json")) ?? {};
  const { Tokenizer } = (await import("@huggingface/tokenizers")) as unknown as TokenizersPackage;
  const tokenizer = new Tokenizer(definition, config);
  const limit = maxLength ?? (await readMaxLength(folder, definition, config));

  // The tokens that stand around every text, such as [CLS] and [SEP].
  const probe = "a";
  const bare = tokenizer.encode(probe, { add_special_tokens: false }).ids;
  const whole = tokenizer.encode(probe).ids;
  const start =
    bare.length === 0 ? -1 : whole.findIndex((_, at) => bare.every((id, index) => whole[at + index] === id));
  const behind = start < 0 ? 0 : whole.length - start - bare.length;
  if (limit <= Math.max(0, start) + behind)
    throw new Error(
      `max_length must leave room for more than the special tokens around a text, got ${limit}`,
    );

  return {
    maxLength: limit,
    encode(text) {
      const { ids } = tokenizer.encode(text);
      if (ids.length <= limit) return { ids, isCut: false };
      return { ids: [...ids.slice(0, limit - behind), ...ids.slice(ids.length - behind)], isCut: true };
    },
  };
}

async function readMaxLength(
  folder: ModelFolder,
  definition: Record<string, unknown>,
  config: Record<string, unknown>,
): Promise<number> {
  const sentences = await folder.readJson("sentence_bert_config.json");
  const model = await folder.readJson("config.json");
  const truncation = definition["truncation"] as { max_length?: unknown } | null | undefined;
  const stated = [
    sentences?.["max_seq_length"],
    truncation?.max_length,
    config["model_max_length"],
    model?.["max_position_embeddings"],
  ];
  // Tokenizers of unlimited length say 10³⁰.
  const isLength = (value: unknown): value is number =>
    Number.isInteger(value) && (value as number) > 0 && (value as number) < 1e9;
  return stated.find(isLength) ?? DEFAULT_MAX_LENGTH;
}

/** What is used of the package; its own types import without endings, which `nodenext` doesn't resolve. */
interface TokenizersPackage {
  Tokenizer: new (
    definition: unknown,
    config: object,
  ) => { encode(text: string, options?: { add_special_tokens?: boolean }): { ids: number[] } };
}
