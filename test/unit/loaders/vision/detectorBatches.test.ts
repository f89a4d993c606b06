import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { DetectionModelLoader, YoloModelLoader, type Finding } from "../../../../src/index.ts";
import { DATA_TYPE, node, tensor, valueInfo, type OnnxModel } from "../../../../src/models/onnxProto.ts";
import { modelFile, openLoader, predictBatch, predictOne, watchRuns } from "../../../support/loaders.ts";

const shade = (value: number) =>
  sharp({ create: { width: 32, height: 32, channels: 3, background: { r: value, g: value, b: value } } })
    .png()
    .toBuffer();

/** One box for each picture of the batch, scored with the picture's mean; `rows` are the columns around it. */
function numbered(columns: ("number" | "box" | "class" | "score")[], withCounts = false): OnnxModel {
  return {
    opset: 13,
    name: "numbered",
    inputs: [valueInfo("images", "float32", ["batch", 3, 32, 32])],
    outputs: [
      valueInfo("output", "float32", ["dets", columns.includes("number") ? 7 : 6]),
      ...(withCounts ? [valueInfo("counts", "int32", ["batch"])] : []),
    ],
    nodes: [
      node("ReduceMean", ["images"], ["mean"], { axes: [1, 2, 3], keepdims: 0 }),
      node("Shape", ["mean"], ["count"]),
      node("Squeeze", ["count"], ["n"]),
      node("Range", ["zero", "n", "one"], ["range"]),
      node("Cast", ["range"], ["numbers"], { to: DATA_TYPE.float32 }),
      node("Reshape", ["numbers", "column"], ["number"]),
      node("Reshape", ["mean", "column"], ["score"]),
      node("Mul", ["score", "nothing"], ["zeros"]),
      node("Add", ["zeros", "sides"], ["box"]),
      node("Add", ["zeros", "two"], ["class"]),
      node("Concat", columns, ["output"], { axis: 1 }),
      ...(withCounts
        ? [
            node("Mul", ["mean", "nothing"], ["flat_zeros"]),
            node("Add", ["flat_zeros", "unit"], ["flat_ones"]),
            node("Cast", ["flat_ones"], ["counts"], { to: DATA_TYPE.int32 }),
          ]
        : []),
    ],
    initializers: [
      tensor("zero", [], BigInt64Array.of(0n)),
      tensor("one", [], BigInt64Array.of(1n)),
      tensor("column", [2], BigInt64Array.of(-1n, 1n)),
      tensor("nothing", [], Float32Array.of(0)),
      tensor("unit", [], Float32Array.of(1)),
      tensor("sides", [1, 4], Float32Array.of(8, 8, 24, 16)),
      tensor("two", [1, 1], Float32Array.of(2)),
    ],
  };
}

describe("a list of the detections of all pictures goes to whom they belong, in one run", () => {
  const settings = { class_names: ["a", "b", "c"], conf_thres: 0.1, max_batch_size: 4 };
  it.each([
    [
      "YOLOv7's, by the number in its first column",
      YoloModelLoader,
      numbered(["number", "box", "class", "score"]),
    ],
    ["PaddleDetection's, by its counts", DetectionModelLoader, numbered(["class", "score", "box"], true)],
  ])("%s", async (_what, Loader, model) => {
    const loader = await openLoader(Loader, [await modelFile(model)], { ...settings, mean: [0], std: [1] });
    expect(loader.batchLimit).toBe(4);
    const shades = [51, 102, 0, 204];
    const pictures = await Promise.all(shades.map(shade));
    const runs = watchRuns("images");
    const together = (await predictBatch(
      loader,
      pictures.map((picture) => [picture]),
    )) as Finding[][];
    expect(runs).toEqual([4]);
    const Dm = { X: 0.25, Y: 0.25, W: 0.5, H: 0.25 };
    expect(together).toEqual([
      [{ Cs: 0.2, Lb: "c", Dm }],
      [{ Cs: 0.4, Lb: "c", Dm }],
      [],
      [{ Cs: 0.8, Lb: "c", Dm }],
    ]);
    expect(await predictOne(loader, pictures[1]!)).toEqual(together[1]);
  });
});
