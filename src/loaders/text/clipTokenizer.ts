/**
 * CLIP's byte-pair tokens. The work is done by @huggingface/tokenizers; this reads the vocabulary, from either file
 * that it is published as.
 */
import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";

const START = "<|startoftext|>";
const END = "<|endoftext|>";

/** From a text to token ids, the start and end of text among them; of any length. */
export type ClipTokenizer = (text: string) => number[];

/**
 * Reads a CLIP vocabulary: Hugging Face's `tokenizer.json`, or OpenAI's `bpe_simple_vocab_16e6.txt.gz` (packed or not).
 * Texts are lower-cased and their spaces joined, as OpenAI does; its repairs of broken encodings (ftfy) and of HTML
 * entities are left to the client.
 * @throws Error where the file is neither.
 */
export async function readClipTokenizer(file: string): Promise<ClipTokenizer> {
  const bytes = await readFile(file);
  const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const text = (isPacked ? gunzipSync(bytes) : bytes).toString("utf8");
  const definition: unknown = /^\s*\{/.test(text) ? JSON.parse(text) : defineTokenizer(text, file);

  const { Tokenizer } = (await import("@huggingface/tokenizers")) as unknown as TokenizersPackage;
  const tokenizer = new Tokenizer(definition, {});
  const [start, ...rest] = tokenizer.encode("").ids;
  if (
    start === undefined ||
    start !== tokenizer.token_to_id(START) ||
    rest.at(-1) !== tokenizer.token_to_id(END)
  ) {
    throw new Error(
      `${file} must be a tokenizer of CLIP, whose texts begin with ${START} and end with ${END}; this one makes ` +
        `[${tokenizer.encode("").tokens.join(", ")}] of an empty text`,
    );
  }
  return (prompt) => tokenizer.encode(prompt).ids;
}

/** What is used of the package; its own types import without endings, which `nodenext` doesn't resolve. */
interface TokenizersPackage {
  Tokenizer: new (
    definition: unknown,
    config: object,
  ) => {
    encode(text: string): { ids: number[]; tokens: string[] };
    token_to_id(token: string): number | undefined;
  };
}

/** Tokens beside those that merges make: 256 bytes, the same at the end of a word, start and end of text. */
const VOCABULARY = 49_408;
const MERGES = VOCABULARY - 2 * 256 - 2;

/**
 * The tokenizer.json that OpenAI's list of merges means. From its `simple_tokenizer.py`: what a word is, the order of
 * the vocabulary, and that only the first 48,894 of the merges count, after one line of title.
 */
function defineTokenizer(text: string, file: string): object {
  const merges = text.split("\n").slice(1, 1 + MERGES);
  if (merges.length < MERGES || !merges.every((merge) => /^\S+ \S+$/.test(merge))) {
    throw new Error(
      `${file} must be Hugging Face's tokenizer.json or OpenAI's bpe_simple_vocab_16e6.txt.gz, which has a title and ` +
        `${MERGES} or more lines of two tokens; it begins with ${JSON.stringify(text.slice(0, 40))}`,
    );
  }
  const bytes = byteCharacters();
  const vocabulary = [
    ...bytes,
    ...bytes.map((character) => `${character}</w>`),
    ...merges.map((merge) => merge.replace(" ", "")),
    START,
    END,
  ];
  const idOf = (token: string) => [token, vocabulary.indexOf(token)];
  const special = (token: string) => ({ id: vocabulary.indexOf(token), content: token, special: true });
  return {
    added_tokens: [special(START), special(END)],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: String.raw`\s+` }, content: " " },
        { type: "Lowercase" },
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: { Regex: String.raw`'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+` },
          behavior: "Removed",
          invert: true,
        },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: "RobertaProcessing",
      cls: idOf(START),
      sep: idOf(END),
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: null,
    model: {
      type: "BPE",
      unk_token: END,
      continuing_subword_prefix: "",
      end_of_word_suffix: "</w>",
      vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
      merges,
    },
  };
}

/** A visible character for each byte, in GPT-2's order: those that are visible already, then the others from U+0100. */
function byteCharacters(): string[] {
  const all = Array.from({ length: 256 }, (_, byte) => byte);
  const isVisible = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const hidden = all.filter((byte) => !isVisible(byte));
  return [...all.filter(isVisible), ...hidden.map((_, index) => 0x100 + index)].map((code) =>
    String.fromCharCode(code),
  );
}
