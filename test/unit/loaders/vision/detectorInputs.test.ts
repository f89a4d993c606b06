import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { DetectionModelLoader, YoloModelLoader } from "../../../../src/index.ts";
import { node, tensor, valueInfo, type OnnxModel } from "../../../../src/models/onnxProto.ts";
import { modelFile, openLoader, predictBatch, predictOne } from "../../../support/loaders.ts";

const SIDE = 64;
const picture = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: "#336699" } })
    .png()
    .toBuffer();
const graph = (rest: Omit<OnnxModel, "opset" | "name">): OnnxModel => ({
  opset: 13,
  name: "detector",
  ...rest,
});
const image = valueInfo("image", "float32", ["N", 3, SIDE, SIDE]);
const floats = (name: string, dims: number[], numbers: number[]) =>
  tensor(name, dims, Float32Array.from(numbers));

/** PaddleDetection's: one row of class, score and box for each picture; the box is a share of im_shape ÷ scale_factor. */
function paddle(): OnnxModel {
  return graph({
    inputs: [
      valueInfo("im_shape", "float32", ["N", 2]),
      image,
      valueInfo("scale_factor", "float32", ["N", 2]),
    ],
    outputs: [valueInfo("rows", "float32", ["n", 6]), valueInfo("rows_num", "int32", ["N"])],
    nodes: [
      node("Div", ["im_shape", "scale_factor"], ["yx"]),
      node("Gather", ["yx", "sides"], ["size"], { axis: 1 }),
      node("Mul", ["size", "shares"], ["boxes"]),
      node("Mul", ["size", "zeros"], ["none"]),
      node("Gather", ["none", "two"], ["pair"], { axis: 1 }),
      node("Add", ["pair", "class_and_score"], ["scored"]),
      node("Concat", ["scored", "boxes"], ["rows"], { axis: 1 }),
      node("ReduceSum", ["pair", "axis"], ["sums"], { keepdims: 0 }),
      node("Cast", ["sums"], ["whole"], { to: 6 }),
      node("Add", ["whole", "one"], ["rows_num"]),
    ],
    initializers: [
      tensor("sides", [4], BigInt64Array.of(1n, 0n, 1n, 0n)),
      tensor("two", [2], BigInt64Array.of(0n, 1n)),
      tensor("axis", [1], BigInt64Array.of(1n)),
      tensor("one", [1], Int32Array.of(1)),
      floats("shares", [4], [0.25, 0.5, 0.75, 1]),
      floats("zeros", [1], [0]),
      floats("class_and_score", [2], [1, 0.875]),
    ],
  });
}

/** DETR's: one query, whose box is as wide as the share of pixel_mask that is 1. */
function detr(rank: 3 | 4): OnnxModel {
  const dims = rank === 3 ? ["N", SIDE, SIDE] : ["N", 1, SIDE, SIDE];
  return graph({
    inputs: [
      valueInfo("pixel_values", "float32", ["N", 3, SIDE, SIDE]),
      valueInfo("pixel_mask", "int64", dims),
    ],
    outputs: [valueInfo("logits", "float32", ["N", 1, 3]), valueInfo("pred_boxes", "float32", ["N", 1, 4])],
    nodes: [
      node("Cast", ["pixel_mask"], ["mask"], { to: 1 }),
      node("Reshape", ["mask", "flat"], ["cells"]),
      node("ReduceMean", ["cells"], ["mean"], { axes: [2], keepdims: 1 }),
      node("Mul", ["mean", "wide"], ["width"]),
      node("Add", ["width", "rest"], ["pred_boxes"]),
      node("Mul", ["mean", "no_logits"], ["nothing"]),
      node("Add", ["nothing", "numbers"], ["logits"]),
    ],
    initializers: [
      tensor("flat", [3], BigInt64Array.of(0n, 1n, -1n)),
      floats("wide", [4], [0, 0, 1, 0]),
      floats("rest", [4], [0.5, 0.25, 0, 0.5]),
      floats("no_logits", [3], [0, 0, 0]),
      floats("numbers", [3], [0, 6, -6]),
    ],
  });
}

/** YOLOv8's of two classes: the same place twice, once for each class, and a weak box of the second class elsewhere. */
function yolov8(): OnnxModel {
  const cells = 8 * 8 + 4 * 4 + 2 * 2;
  const numbers = new Float32Array(6 * cells);
  const write = (cell: number, feature: number[]) => {
    for (const [row, number] of feature.entries()) numbers[row * cells + cell] = number;
  };
  write(3, [20, 20, 16, 16, 0.9, 0]);
  write(4, [21, 20, 16, 16, 0, 0.8]);
  write(40, [48, 48, 16, 16, 0, 0.3]);
  return graph({
    inputs: [image],
    outputs: [valueInfo("output0", "float32", ["N", 6, cells])],
    nodes: [
      node("ReduceMean", ["image"], ["mean"], { axes: [1, 2, 3], keepdims: 1 }),
      node("Squeeze", ["mean", "axis"], ["each"]),
      node("Mul", ["each", "zero"], ["nothing"]),
      node("Add", ["nothing", "numbers"], ["output0"]),
    ],
    initializers: [
      tensor("axis", [1], BigInt64Array.of(3n)),
      floats("zero", [1], [0]),
      tensor("numbers", [1, 6, cells], numbers),
    ],
  });
}

describe("a detector's further inputs are filled from the picture", () => {
  it("im_shape and scale_factor, for each picture of a batch", async () => {
    const loader = await openLoader(DetectionModelLoader, [await modelFile(paddle())], {
      class_names: ["cat", "dog"],
      max_batch_size: 2,
    });
    const expected = [{ Cs: 0.875, Lb: "dog", Dm: { X: 0.25, Y: 0.5, W: 0.5, H: 0.5 } }];
    const both = await predictBatch(loader, [[await picture(200, 100)], [await picture(50, 80)]]);
    expect(both).toEqual([expected, expected]);
  });

  it.each([3, 4] as const)("pixel_mask of rank %i is 1 where the picture is", async (rank) => {
    const loader = await openLoader(DetectionModelLoader, [await modelFile(detr(rank))], {
      format: "detr",
      class_names: ["cat", "dog"],
      fit: "letterbox-top-left",
    });
    // Half of the canvas is the picture, 200 × 100 in 64 × 64: the box is half as wide, and lies in the upper half.
    const [found] = await predictOne(loader, await picture(200, 100));
    expect(found).toMatchObject({ Lb: "dog", Dm: { X: 0.25, Y: 0, W: 0.5, H: 1 } });
    const [whole] = await predictOne(loader, await picture(64, 64));
    expect(whole).toMatchObject({ Lb: "dog", Dm: { X: 0, Y: 0, W: 1, H: 0.5 } });
  });
});

describe("the findings of a detector that are kept", () => {
  const labels = { class_names: ["cat", "dog"] };
  const found = async (settings: Record<string, unknown>) => {
    const loader = await openLoader(YoloModelLoader, [await modelFile(yolov8())], { ...labels, ...settings });
    return (await predictOne(loader, await picture(64, 64))).map(({ Lb, Cs }) => [Lb, Cs]);
  };

  it("are suppressed within their class, or among all with agnostic_nms", async () => {
    expect(await found({})).toEqual([
      ["cat", 0.9],
      ["dog", 0.8],
      ["dog", 0.3],
    ]);
    expect(await found({ agnostic_nms: true })).toEqual([
      ["cat", 0.9],
      ["dog", 0.3],
    ]);
  });

  it("reach class_thresholds' score for their class, higher or lower than the general one", async () => {
    expect(await found({ class_thresholds: { cat: 0.95 } })).toEqual([
      ["dog", 0.8],
      ["dog", 0.3],
    ]);
    expect(await found({ conf_thres: 0.5, class_thresholds: { dog: 0.25 } })).toEqual([
      ["cat", 0.9],
      ["dog", 0.8],
      ["dog", 0.3],
    ]);
    expect(await found({ conf_thres: 0.5 })).toEqual([
      ["cat", 0.9],
      ["dog", 0.8],
    ]);
  });
});
