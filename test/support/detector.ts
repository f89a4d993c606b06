/** A small detector with the contract of torchvision's, for tests. */
import { DATA_TYPE, node, tensor, valueInfo, type OnnxModel } from "../../src/models/onnxProto.ts";

/** Boxes as fractions of the model's input, with their labels; `null` as a score stands for the input's width ÷ 10,000. */
export interface Answer {
  box: [left: number, top: number, right: number, bottom: number];
  label: number;
  score: number | null;
}

/** A detector of torchvision's contract that gives every picture the same answers. */
export function detector(
  answers: Answer[],
  change: Partial<OnnxModel> = {},
  names: readonly [string, string, string] = NAMES,
): OnnxModel {
  const [boxes, labels, scores] = names;
  const count = answers.length;
  return {
    opset: 13,
    name: "detector",
    inputs: [valueInfo("image", "float32", [3, "height", "width"])],
    outputs: [
      valueInfo(boxes, "float32", ["n", 4]),
      valueInfo(labels, "int64", ["n"]),
      valueInfo(scores, "float32", ["n"]),
    ],
    nodes: [
      node("Shape", ["image"], ["whole_shape"]),
      node("Cast", ["whole_shape"], ["shape"], { to: DATA_TYPE.float32 }),
      node("Gather", ["shape", "sides"], ["size"], { axis: 0 }),
      node("Mul", ["fractions", "size"], [boxes]),
      node("Identity", ["numbers"], [labels]),
      node("Gather", ["shape", "width"], ["w"], { axis: 0 }),
      node("Mul", ["w", "by_width"], ["grown"]),
      node("Add", ["grown", "fixed"], [scores]),
    ],
    initializers: [
      tensor("sides", [4], BigInt64Array.of(-1n, -2n, -1n, -2n)),
      tensor("width", [1], BigInt64Array.of(-1n)),
      tensor("fractions", [count, 4], Float32Array.from(answers.flatMap(({ box }) => box))),
      tensor(
        "numbers",
        [count],
        BigInt64Array.from(answers, ({ label }) => BigInt(label)),
      ),
      tensor(
        "by_width",
        [count],
        Float32Array.from(answers, ({ score }) => (score === null ? 1e-4 : 0)),
      ),
      tensor(
        "fixed",
        [count],
        Float32Array.from(answers, ({ score }) => score ?? 0),
      ),
    ],
    ...change,
  };
}
const NAMES = ["boxes", "labels", "scores"] as const;
