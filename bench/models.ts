/** Models that the bench makes for itself. */
import {
  node,
  tensor,
  valueInfo,
  type OnnxModel,
  type OnnxNode,
  type OnnxTensor,
} from "../src/models/onnxProto.ts";

const CLASS_GAIN = 4;

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
  const special = (content: string, id: number) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
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

/** SqueezeNet 1.1 with drawn weights: input [batch, 3, 224, 224] → logits [batch, 1000]. It costs what the real one does. */
export function squeezeNet(): OnnxModel {
  const random = randomNumbers(1);
  const nodes: OnnxNode[] = [];
  const initializers: OnnxTensor[] = [];
  const convolution = (
    input: string,
    output: string,
    [from, to, side]: readonly [number, number, number],
    { gain = 1, ...attributes }: { gain?: number; strides?: number[]; pads?: number[] } = {},
  ) => {
    const fanIn = from * side * side;
    const spread = gain * Math.sqrt(6 / fanIn);
    const weights = Float32Array.from({ length: to * fanIn }, () => spread * (2 * random() - 1));
    initializers.push(tensor(`${output}_w`, [to, from, side, side], weights));
    nodes.push(
      node("Conv", [input, `${output}_w`], [`${output}_c`], { kernel_shape: [side, side], ...attributes }),
    );
    nodes.push(node("Relu", [`${output}_c`], [output]));
    return output;
  };
  const fire = (input: string, name: string, from: number, squeezed: number, expanded: number) => {
    const squeeze = convolution(input, `${name}_squeeze`, [from, squeezed, 1]);
    const one = convolution(squeeze, `${name}_one`, [squeezed, expanded, 1]);
    const three = convolution(squeeze, `${name}_three`, [squeezed, expanded, 3], { pads: [1, 1, 1, 1] });
    nodes.push(node("Concat", [one, three], [name], { axis: 1 }));
    return name;
  };
  const pool = (input: string) => {
    const attributes = { kernel_shape: [3, 3], strides: [2, 2], ceil_mode: 1 };
    nodes.push(node("MaxPool", [input], [`${input}_pool`], attributes));
    return `${input}_pool`;
  };

  let at = pool(convolution("input", "stem", [3, 64, 3], { strides: [2, 2] }));
  at = fire(at, "fire2", 64, 16, 64);
  at = pool(fire(at, "fire3", 128, 16, 64));
  at = fire(at, "fire4", 128, 32, 128);
  at = pool(fire(at, "fire5", 256, 32, 128));
  at = fire(at, "fire6", 256, 48, 192);
  at = fire(at, "fire7", 384, 48, 192);
  at = fire(at, "fire8", 384, 64, 256);
  at = fire(at, "fire9", 512, 64, 256);
  // So far apart that one class stands out.
  at = convolution(at, "classes", [512, 1000, 1], { gain: CLASS_GAIN });
  nodes.push(node("GlobalAveragePool", [at], ["mean"]), node("Flatten", ["mean"], ["logits"]));
  return {
    opset: 13,
    name: "squeezenet",
    inputs: [valueInfo("input", "float32", ["batch", 3, 224, 224])],
    outputs: [valueInfo("logits", "float32", ["batch", 1000])],
    nodes,
    initializers,
  };
}

/** The same numbers of [0, 1) from the same seed. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
