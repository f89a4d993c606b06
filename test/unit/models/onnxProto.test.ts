/** What the ONNX writer guarantees: onnxruntime runs what it writes, and it reads it back. */
import { InferenceSession, Tensor } from "onnxruntime-node";
import { expect, test } from "vitest";
import {
  decodeModel,
  encodeModel,
  node,
  type OnnxModel,
  tensor,
  valueInfo,
} from "../../../src/models/onnxProto.ts";

const affine: OnnxModel = {
  opset: 17,
  name: "affine",
  inputs: [valueInfo("x", "float32", ["batch", 2])],
  outputs: [valueInfo("y", "float32", ["batch", 3])],
  nodes: [node("Gemm", ["x", "weights", "bias"], ["y"], { alpha: { float: 0.5 }, transB: 1 })],
  initializers: [
    tensor("weights", [3, 2], Float32Array.of(1, 2, 3, 4, 5, 6)),
    tensor("bias", [3], Float32Array.of(10, 20, 30)),
  ],
};

test("onnxruntime runs a graph that was built here, with a free batch dimension", async () => {
  const session = await InferenceSession.create(encodeModel(affine));
  const { y } = await session.run({
    x: new Tensor("float32", Float32Array.of(2, 4, 0, -2), [2, 2]),
  });
  expect(y?.dims).toEqual([2, 3]);
  expect(Array.from(y?.data as Float32Array)).toEqual([15, 31, 47, 8, 16, 24]);
  expect(session.inputMetadata[0]).toMatchObject({ name: "x", shape: ["batch", 2] });
});

test("a graph that is written and read again is the same", () => {
  const read = decodeModel(encodeModel(affine));
  expect(read).toMatchObject({
    opset: 17,
    name: "affine",
    inputs: affine.inputs,
    outputs: affine.outputs,
  });
  expect(read.nodes[0]).toMatchObject({
    opType: "Gemm",
    input: ["x", "weights", "bias"],
    output: ["y"],
  });
  expect(read.nodes[0]?.attribute).toMatchObject([
    { name: "alpha", type: 1, f: 0.5 },
    { name: "transB", type: 2, i: 1 },
  ]);
  expect(read.initializers.map(({ name, dims }) => [name, dims])).toEqual([
    ["weights", [3, 2]],
    ["bias", [3]],
  ]);
  expect(Uint8Array.from(read.initializers[1]!.rawData)).toEqual(
    new Uint8Array(Float32Array.of(10, 20, 30).buffer),
  );
});

test("a tensor view writes only the numbers that it shows", () => {
  const view = Float32Array.of(1, 2, 3, 4).subarray(1, 3);
  expect(tensor("view", [2], view).rawData).toHaveLength(8);
});

test("a tensor whose shape doesn't fit its numbers is refused", () => {
  expect(() => tensor("weights", [2, 3], new Float32Array(5))).toThrow(
    "tensor weights of shape [2,3] must have 6 numbers, got 5",
  );
});

test("a fraction as a bare attribute is refused, since bare numbers are integers", () => {
  expect(() => node("LeakyRelu", ["x"], ["y"], { alpha: 0.1 })).toThrow("write { float: … } for a float");
});
