import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { ImplausibleOutputError } from "../../../../src/errors.ts";
import { ImageClassificationModelLoader, YoloModelLoader, type Finding } from "../../../../src/index.ts";
import { DATA_TYPE, node, tensor, valueInfo, type OnnxModel } from "../../../../src/models/onnxProto.ts";
import { rotatedOverlap } from "../../../../src/loaders/vision/rotated.ts";
import { hullOf, type RotatedBox } from "../../../../src/loaders/vision/heads/head.ts";
import { compressRuns, decodeRunLengths, expandRuns } from "../../../../src/imil/runLengths.ts";
import { encodeRunLengths, traceOutlines } from "../../../../src/loaders/vision/masks.ts";
import { modelFile, openLoader, predictBatch } from "../../../support/loaders.ts";

const plain = (side = 64) =>
  sharp({ create: { width: side, height: side, channels: 3, background: "#808080" } })
    .png()
    .toBuffer();

/** [1, 4 + 2, 84] for a 64×64 input, with one box. */
function yolo(box: number[]): OnnxModel {
  const data = new Float32Array(6 * 84);
  for (const [feature, value] of box.entries()) data[feature * 84] = value;
  return {
    opset: 13,
    name: "yolo",
    inputs: [valueInfo("images", "float32", ["batch", 3, 64, 64])],
    outputs: [valueInfo("output0", "float32", ["batch", 6, 84])],
    nodes: [
      node("ReduceMean", ["images"], ["mean"], { axes: [1, 2, 3], keepdims: 0 }),
      node("Mul", ["mean", "nothing"], ["zeros"]),
      node("Reshape", ["zeros", "column"], ["column_of_zeros"]),
      node("Add", ["column_of_zeros", "boxes"], ["output0"]),
    ],
    initializers: [
      tensor("nothing", [], Float32Array.of(0)),
      tensor("column", [3], BigInt64Array.of(-1n, 1n, 1n)),
      tensor("boxes", [1, 6, 84], data),
    ],
  };
}

describe("an output that can't be a result is an error, never an empty list", () => {
  it.each<[string, number[], string]>([
    [
      "NaN as a score",
      [32, 32, 20, 20, Number.NaN, 0.5],
      'the output "output0" has NaN as the score of class 0 of box 0',
    ],
    ["a score beyond 1", [32, 32, 20, 20, 0, 37], "has 37 as the score of class 1 of box 0"],
    ["a negative score", [32, 32, 20, 20, -3, 0.2], "has -3 as the score"],
    ["an infinite score", [32, 32, 20, 20, 0, Number.POSITIVE_INFINITY], "has Infinity as the score"],
    ["NaN in a box", [Number.NaN, 32, 20, 20, 0, 0.9], "which is no box"],
    ["a box off the picture", [500, 32, 20, 20, 0, 0.9], "lies off the picture"],
    ["a box inside out", [32, 32, -20, 20, 0, 0.9], "wrong way round"],
    ["a box of the whole street", [32, 32, 20_000, 20, 0, 0.9], "far larger than the picture"],
  ])("%s", async (_what, box, message) => {
    await expect(
      openLoader(YoloModelLoader, [await modelFile(yolo(box))], { class_names: ["a", "b"] }),
    ).rejects.toThrow(message);
  });

  it("a box in the padding is none, and one at the edge is cut", async () => {
    const loader = await openLoader(YoloModelLoader, [await modelFile(yolo([4, 32, 16, 20, 0, 0.9]))], {
      class_names: ["a", "b"],
    });
    const [found] = (await predictBatch(loader, [[await plain()]])) as [Finding[]];
    expect(found).toEqual([{ Cs: 0.9, Lb: "b", Dm: { X: 0, Y: 0.3438, W: 12 / 64, H: 20 / 64 } }]);
  });

  it("is notified of scores that no activation was named for", async () => {
    const file = await modelFile({
      opset: 13,
      name: "logits",
      inputs: [valueInfo("images", "float32", ["batch", 3, 8, 8])],
      outputs: [valueInfo("scores", "float32", ["batch", 3])],
      nodes: [
        node("GlobalAveragePool", ["images"], ["means"]),
        node("Flatten", ["means"], ["flat"], { axis: 1 }),
        node("Mul", ["flat", "ten"], ["scores"]),
      ],
      initializers: [tensor("ten", [], Float32Array.of(10))],
    });
    const settings = { activation: "none", mean: [0], std: [1] };
    const loader = await openLoader(ImageClassificationModelLoader, [file], settings);
    const [outcome] = await predictBatch(loader, [[await plain(8)]]);
    expect(outcome).toBeInstanceOf(ImplausibleOutputError);
    expect((outcome as Error).message).toMatch(
      /the output "scores" has 5\.\d+ for class 0, where a score is .* look at activation \(none\)/,
    );
  });

  it("whole numbers of unknown scale are refused at load, with the setting", async () => {
    const file = await modelFile({
      opset: 13,
      name: "bytes",
      inputs: [valueInfo("images", "float32", ["batch", 3, 8, 8])],
      outputs: [valueInfo("scores", "uint8", ["batch", 3])],
      nodes: [
        node("GlobalAveragePool", ["images"], ["means"]),
        node("Flatten", ["means"], ["flat"], { axis: 1 }),
        node("Mul", ["flat", "many"], ["large"]),
        node("Cast", ["large"], ["scores"], { to: DATA_TYPE.uint8 }),
      ],
      initializers: [tensor("many", [], Float32Array.of(200))],
    });
    const settings = { mean: [0], std: [1], activation: "none", conf_thres: 0 };
    await expect(openLoader(ImageClassificationModelLoader, [file], settings)).rejects.toThrow(
      "set output_scale",
    );
    const loader = await openLoader(ImageClassificationModelLoader, [file], {
      ...settings,
      output_scale: 1 / 200,
    });
    const [found] = (await predictBatch(loader, [[await plain(8)]])) as [Finding[]];
    expect(found.map(({ Cs }) => Cs)).toEqual([0.5, 0.5, 0.5]);
  });

  it("has a code of its own", () => {
    expect(new ImplausibleOutputError("x").toSummary()).toMatchObject({ code: "implausible_output" });
  });
});

describe("boxes at an angle", () => {
  const at = (rotated: RotatedBox) => ({ ...hullOf(rotated), rotated, score: 0.5, classIndex: 0 });
  it("overlap by what they share as they lie", () => {
    const flat = at({ x: 50, y: 50, width: 40, height: 20, angle: 0 });
    expect(rotatedOverlap(flat, flat)).toBeCloseTo(1, 6);
    const upright = at({ x: 50, y: 50, width: 40, height: 20, angle: Math.PI / 2 });
    // A square of 20×20 of 1200 together.
    expect(rotatedOverlap(flat, upright)).toBeCloseTo(400 / 1200, 6);
    // A square and the same at 45°: a regular octagon.
    const square = at({ x: 50, y: 50, width: 20, height: 20, angle: 0 });
    const turned = at({ x: 50, y: 50, width: 20, height: 20, angle: Math.PI / 4 });
    const octagon = 400 * 2 * (Math.SQRT2 - 1);
    expect(rotatedOverlap(square, turned)).toBeCloseTo(octagon / (800 - octagon), 6);
    // Neighbours in a row of parked cars: their hulls overlap, they don't.
    const first = at({ x: 40, y: 40, width: 40, height: 10, angle: Math.PI / 4 });
    const second = at({ x: 52, y: 30, width: 40, height: 10, angle: Math.PI / 4 });
    expect(rotatedOverlap(first, second)).toBe(0);
  });
});

describe("masks", () => {
  it("are run lengths as pycocotools writes and reads them", () => {
    // mask.encode(np.asfortranarray([[0,1,1],[0,1,0]], dtype=np.uint8)): 2 zeros, 3 ones, 1 zero.
    expect(compressRuns([2, 3, 1])).toBe("231");
    expect(expandRuns(compressRuns([0, 5, 100, 7, 5000, 1, 3]))).toEqual([0, 5, 100, 7, 5000, 1, 3]);
    const bitmap = { width: 2, height: 2, data: Uint8Array.of(1, 1, 0, 1) };
    const size = { width: 5, height: 4 };
    const counts = encodeRunLengths(bitmap, { left: 2, top: 1 }, size);
    const whole = decodeRunLengths({ size: [4, 5], counts });
    expect(Array.from(whole.data)).toEqual([0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  });

  it("have outlines around each part", () => {
    const rows = ["1110000", "1110011", "0000011"];
    const data = Uint8Array.from(rows.join(""), Number);
    expect(traceOutlines({ width: 7, height: 3, data })).toEqual([
      [
        [3, 0],
        [3, 2],
        [0, 2],
        [0, 0],
      ],
      [
        [7, 1],
        [7, 3],
        [5, 3],
        [5, 1],
      ],
    ]);
  });
});
