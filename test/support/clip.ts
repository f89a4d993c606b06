/** Small encoders with CLIP's true interface, the same in every run, for tests: no real CLIP's weights are at hand. */
import {
  DATA_TYPE,
  node,
  tensor,
  valueInfo,
  type DataType,
  type OnnxModel,
} from "../../src/models/onnxProto.ts";

export const MEAN = [0.48145466, 0.4578275, 0.40821073];
export const STD = [0.26862954, 0.26130258, 0.27577711];
export const LENGTH = 8;
export const CONTEXT = 77;
const VOCABULARY = 49_408;
export const [START, END] = [49_406, 49_407];

/** The same numbers in every run, 0..1. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
}

// Vectors that are much alike, so that 100 × cosine differs by little and no score is 0 or 1.
const next = seeded(7);
export const imageWeights = Float32Array.from({ length: 3 * LENGTH }, () => 0.1 * (next() - 0.5));
export const imageBias = Float32Array.from({ length: LENGTH }, () => 1);
export const tokenTable = Float32Array.from(
  { length: VOCABULARY * LENGTH },
  () => 0.5 + 0.2 * (next() - 0.5),
);
export const placeWeights = Float32Array.from({ length: CONTEXT }, () => 0.5 + next());

/** CLIP's image interface: pixel_values → image_embeds, here from the means of the three channels. */
export function imageEncoder(
  shape: (number | string)[] = ["batch", "channels", "height", "width"],
): OnnxModel {
  return {
    opset: 13,
    name: "image",
    inputs: [valueInfo("pixel_values", "float32", shape)],
    outputs: [
      valueInfo("last_hidden_state", "float32", [shape[0]!, 3, 1]),
      valueInfo("image_embeds", "float32", [shape[0]!, LENGTH]),
    ],
    nodes: [
      node("ReduceMean", ["pixel_values"], ["means"], { axes: [2, 3], keepdims: 0 }),
      node("Unsqueeze", ["means", "last"], ["last_hidden_state"]),
      node("MatMul", ["means", "weights"], ["projected"]),
      node("Add", ["projected", "bias"], ["image_embeds"]),
    ],
    initializers: [
      tensor("last", [1], BigInt64Array.of(2n)),
      tensor("weights", [3, LENGTH], imageWeights),
      tensor("bias", [1, LENGTH], imageBias),
    ],
  };
}

/** CLIP's text interface: input_ids → text_embeds, here each token's vector by the weight of its place. */
export function textEncoder(
  batch: number | string = "batch",
  { type = "int64", withMask = false }: { type?: DataType; withMask?: boolean } = {},
): OnnxModel {
  return {
    opset: 13,
    name: "text",
    inputs: [
      valueInfo("input_ids", type, [batch, "sequence"]),
      ...(withMask ? [valueInfo("attention_mask", type, [batch, "sequence"])] : []),
    ],
    outputs: [valueInfo("text_embeds", "float32", [batch, LENGTH])],
    nodes: [
      node("Gather", ["table", "input_ids"], ["vectors"], { axis: 0 }),
      ...(withMask
        ? [
            node("Cast", ["attention_mask"], ["is_text"], { to: DATA_TYPE.float32 }),
            node("Unsqueeze", ["is_text", "last"], ["mask"]),
            node("Mul", ["vectors", "mask"], ["seen"]),
          ]
        : [node("Identity", ["vectors"], ["seen"])]),
      node("Mul", ["seen", "places"], ["weighted"]),
      node("ReduceSum", ["weighted", "middle"], ["text_embeds"], { keepdims: 0 }),
    ],
    initializers: [
      tensor("table", [VOCABULARY, LENGTH], tokenTable),
      tensor("places", [1, CONTEXT, 1], placeWeights),
      tensor("middle", [1], BigInt64Array.of(1n)),
      tensor("last", [1], BigInt64Array.of(2n)),
    ],
  };
}

/** A list of merges like OpenAI's, none of which ever applies: each letter is a token. */
export const uselessMerges = [
  "title",
  ...Array.from({ length: 48_894 }, (_, index) => `\u0100${index} \u0101`),
].join("\n");
/** The token ids of a text of letters a to z and spaces, with that list. */
export function idsOf(text: string): number[] {
  const letters = text
    .split(" ")
    .flatMap((word) =>
      Array.from(word, (letter, at) => letter.charCodeAt(0) - 33 + (at === word.length - 1 ? 256 : 0)),
    );
  return [START, ...letters, END];
}
