/** Models that the bench makes for itself. */
import { node, tensor, valueInfo, type OnnxModel } from "../src/models/onnxProto.ts";

/** Two hidden layers of one size: x [batch, inputs] → y [batch, outputs]. */
export function perceptron(inputs: number, hidden: number, outputs: number): OnnxModel {
  const weights = (name: string, count: number, columns: number) =>
    tensor(
      name,
      [count, columns],
      Float32Array.from({ length: count * columns }, (_, index) => Math.sin(index) / Math.sqrt(count)),
    );
  return {
    opset: 13,
    name: "perceptron",
    inputs: [valueInfo("x", "float32", ["batch", inputs])],
    outputs: [valueInfo("y", "float32", ["batch", outputs])],
    nodes: [
      node("MatMul", ["x", "w1"], ["a1"]),
      node("Relu", ["a1"], ["h1"]),
      node("MatMul", ["h1", "w2"], ["a2"]),
      node("Relu", ["a2"], ["h2"]),
      node("MatMul", ["h2", "w3"], ["y"]),
    ],
    initializers: [
      weights("w1", inputs, hidden),
      weights("w2", hidden, hidden),
      weights("w3", hidden, outputs),
    ],
  };
}

/** A WordPiece tokenizer that knows these words only. */
export function wholeWordTokenizer(words: readonly string[]): object {
  const special = (content: string, id: number) => ({ id, content, special: true });
  const token = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  return {
    added_tokens: [special("[UNK]", 100), special("[CLS]", 101), special("[SEP]", 102)],
    normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, lowercase: true },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single: [token("[CLS]"), { Sequence: { id: "A", type_id: 0 } }, token("[SEP]")],
      pair: [],
      special_tokens: {
        "[CLS]": { id: "[CLS]", ids: [101], tokens: ["[CLS]"] },
        "[SEP]": { id: "[SEP]", ids: [102], tokens: ["[SEP]"] },
      },
    },
    decoder: null,
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: {
        "[UNK]": 100,
        "[CLS]": 101,
        "[SEP]": 102,
        ...Object.fromEntries(words.map((word, index) => [word, 2000 + index])),
      },
    },
  };
}
