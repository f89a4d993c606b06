import sharp from "sharp";
import { describe, expect, it } from "vitest";
import {
  attachPictures,
  DepthEstimationModelLoader,
  outputsOf,
  SemanticSegmentationModelLoader,
  TextDetectionModelLoader,
  type BaseModelLoader,
} from "../../../../src/index.ts";
import { decodeRunLengths } from "../../../../src/imil/runLengths.ts";
import { smallestBox } from "../../../../src/loaders/vision/TextDetectionModelLoader.ts";
import { node, tensor, valueInfo, type OnnxModel } from "../../../../src/models/onnxProto.ts";
import { modelFile, noTime, openLoader } from "../../../support/loaders.ts";

/** A model that puts this map out for every picture. */
function mapModel(dims: number[], data: ArrayLike<number>): OnnxModel {
  return {
    opset: 13,
    name: "map",
    inputs: [valueInfo("images", "float32", ["batch", 3, 32, 32])],
    outputs: [valueInfo("map", "float32", ["batch", ...dims])],
    nodes: [
      node("ReduceMean", ["images"], ["mean"], { axes: [1, 2, 3], keepdims: 0 }),
      node("Mul", ["mean", "nothing"], ["zeros"]),
      node("Reshape", ["zeros", "shape"], ["column"]),
      node("Add", ["column", "values"], ["map"]),
    ],
    initializers: [
      tensor("nothing", [], Float32Array.of(0)),
      tensor("shape", [dims.length + 1], BigInt64Array.from([-1n, ...dims.map(() => 1n)])),
      tensor("values", [1, ...dims], Float32Array.from(data)),
    ],
  };
}

async function answer(loader: BaseModelLoader, width = 64, height = 64) {
  const picture = await sharp({ create: { width, height, channels: 3, background: "#808080" } })
    .png()
    .toBuffer();
  const [outcome] = await loader.predictRequests([attachPictures({}, [picture])], noTime());
  if (outcome instanceof Error) throw outcome;
  return {
    response: outcome as { Fs: import("../../../../src/index.ts").Finding[] } & Record<string, unknown>,
    outputs: outputsOf(outcome!),
  };
}

describe("semantic segmentation", () => {
  // 4×4: the left half is class 1, the lower right quarter class 2.
  const left = (at: number) => at % 4 < 2;
  const lowerRight = (at: number) => at % 4 >= 2 && at >= 8;
  const classOf = (at: number) => (left(at) ? 1 : lowerRight(at) ? 2 : 0);
  const planes = Array.from({ length: 3 }, (_, plane) =>
    Array.from({ length: 16 }, (_each, at) => (classOf(at) === plane ? 5 : -5)),
  ).flat();

  it.each([
    ["a plane for each class", [3, 4, 4], planes],
    ["class indices", [4, 4], Array.from({ length: 16 }, (_, at) => classOf(at))],
  ])("reads %s, and says where each class is", async (_what, dims, data) => {
    const loader = await openLoader(
      SemanticSegmentationModelLoader,
      [await modelFile(mapModel(dims, data))],
      {
        class_names: ["background", "road", "car"],
      },
    );
    const { response, outputs } = await answer(loader);
    // Between the middles of two places of the map a plane's numbers are interpolated.
    const near = (value: number) => expect.closeTo(value, 1) as number;
    expect(response.Fs.map(({ Lb, Dm }) => [Lb, Dm])).toEqual([
      ["road", { X: 0, Y: 0, W: near(0.5), H: 1 }],
      ["car", { X: near(0.5), Y: near(0.5), W: near(0.5), H: near(0.5) }],
    ]);
    const mask = decodeRunLengths(response.Fs[1]!.Msk!.Rle);
    expect(Math.abs(mask.data.reduce((sum, each) => sum + each, 0) - 32 * 32)).toBeLessThan(100);
    const { data: pixels, info } = await sharp(outputs[0]!.bytes).raw().toBuffer({ resolveWithObject: true });
    expect(info).toMatchObject({ width: 64, height: 64 });
    expect([pixels[0], pixels[63 * info.channels], pixels.at(-1)]).toEqual([1, 0, 2]);
  });

  it("refuses NaN and classes that there are none of", async () => {
    const open = (data: number[]) => async () =>
      answer(
        await openLoader(SemanticSegmentationModelLoader, [await modelFile(mapModel([2, 2], data))], {
          class_names: ["a", "b"],
        }),
      );
    await expect(open([0, 1, 7, 0])()).rejects.toThrow("look at class_names");
    await expect(open([0, 1, Number.NaN, 0])()).rejects.toThrow("NaN");
  });
});

it("a map of depths is a PNG of 16 bits with its lowest and highest number", async () => {
  const data = Array.from({ length: 16 }, (_, at) => 2 + (at % 4));
  const loader = await openLoader(DepthEstimationModelLoader, [await modelFile(mapModel([4, 4], data))]);
  const { response, outputs } = await answer(loader, 4, 4);
  expect(response["Depth"]).toEqual({ Min: 2, Max: 5 });
  const { data: bytes } = await sharp(outputs[0]!.bytes)
    .toColourspace("grey16")
    .raw({ depth: "ushort" })
    .toBuffer({ resolveWithObject: true });
  const values = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const step = values.length / 16;
  expect([0, 1, 2, 3].map((at) => values[at * step])).toEqual([0, 21845, 43690, 65535]);
});

describe("text detection", () => {
  it("finds each part, widened, from the top", async () => {
    const data = new Float32Array(32 * 32);
    for (let y = 20; y < 24; y++) data.fill(0.9, y * 32 + 4, y * 32 + 24);
    for (let y = 4; y < 8; y++) data.fill(0.8, y * 32 + 8, y * 32 + 16);
    const loader = await openLoader(
      TextDetectionModelLoader,
      [await modelFile(mapModel([1, 32, 32], data))],
      {
        unclip_ratio: 0,
      },
    );
    const { response } = await answer(loader);
    expect(response.Fs.map(({ Cs, Lb, Dm }) => [Cs, Lb, Dm])).toEqual([
      [0.8, "text", { X: 0.25, Y: 0.125, W: 0.25, H: 0.125 }],
      [0.9, "text", { X: 0.125, Y: 0.625, W: 0.625, H: 0.125 }],
    ]);
    expect(response.Fs[0]!.Rb!.Angle).toBeCloseTo(0, 6);
  });

  it("turns its boxes with the lines", () => {
    const [cos, sin] = [Math.cos(0.3), Math.sin(0.3)];
    const corners = [
      [-20, -4],
      [20, -4],
      [20, 4],
      [-20, 4],
    ].map(([x, y]) => [50 + x! * cos - y! * sin, 40 + x! * sin + y! * cos] as const);
    const box = smallestBox(corners);
    expect(box.angle).toBeCloseTo(0.3, 6);
    expect([box.x, box.y, box.width, box.height].map((each) => Math.round(each * 1e6) / 1e6)).toEqual([
      50, 40, 40, 8,
    ]);
  });
});
