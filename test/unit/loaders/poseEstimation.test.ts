import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { PoseEstimationModelLoader } from "../../../src/index.ts";
import { node, tensor, valueInfo, type OnnxModel } from "../../../src/models/onnxProto.ts";
import { modelFile, openLoader, predictBatch, predictOne } from "../../support/loaders.ts";

/** A person in pixels of the 64×64 input; key point k is at (x + k, y + 2k) with score k ÷ 20, from k = 1. */
interface Person {
  x: number;
  y: number;
  width: number;
  height: number;
  score: number;
}

const keyPointsOf = ({ x, y }: Person) =>
  Array.from({ length: 17 }, (_, index) => [x + index + 1, y + 2 * (index + 1), (index + 1) / 20]).flat();
/** The rows that a v7 or v8 model puts out for a person; v7 splits the score into objectness and class. */
const rowOf = (person: Person, version: 7 | 8) => [
  person.x,
  person.y,
  person.width,
  person.height,
  ...(version === 7 ? [person.score / 0.9, 0.9] : [person.score]),
  ...keyPointsOf(person),
];

/** A pose model that finds these people in every picture, at any batch. */
function poseModel(people: Person[], version: 7 | 8): OnnxModel {
  const features = version === 7 ? 57 : 56;
  // As many boxes as the grids of 8×8, 4×4 and 2×2 cells have, three for each in v7.
  const blank = Array.from({ length: (version === 7 ? 252 : 84) - people.length }, () =>
    Array<number>(features).fill(0),
  );
  const rows = [...people.map((person) => rowOf(person, version)), ...blank];
  const byFeature = Array.from({ length: features }, (_, feature) => rows.map((row) => row[feature]!));
  const dims = version === 7 ? [1, rows.length, features] : [1, features, rows.length];
  return {
    opset: 13,
    name: "pose",
    inputs: [valueInfo("images", "float32", ["batch", 3, 64, 64])],
    outputs: [valueInfo("output0", "float32", ["batch", ...dims.slice(1)])],
    nodes: [
      node("ReduceMean", ["images"], ["mean"], { axes: [1, 2, 3], keepdims: 0 }),
      node("Mul", ["mean", "nothing"], ["zeros"]),
      node("Reshape", ["zeros", "column"], ["column_of_zeros"]),
      node("Add", ["column_of_zeros", "people"], ["output0"]),
    ],
    initializers: [
      tensor("nothing", [], Float32Array.of(0)),
      tensor("column", [3], BigInt64Array.of(-1n, 1n, 1n)),
      tensor("people", dims, Float32Array.from((version === 7 ? rows : byFeature).flat())),
    ],
  };
}

const plain = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: "#446644" } })
    .png()
    .toBuffer();

const strong: Person = { x: 20, y: 32, width: 16, height: 20, score: 0.875 };
const weak: Person = { x: 50, y: 32, width: 8, height: 8, score: 0.375 };
const sameAsStrong: Person = { ...strong, x: 20.5, score: 0.75 };

describe.each([7, 8] as const)("PoseEstimation_Y7: an output of YOLOv%i-pose", (version) => {
  const open = async (settings = {}) =>
    openLoader(
      PoseEstimationModelLoader,
      [await modelFile(poseModel([weak, sameAsStrong, strong], version))],
      settings,
    );

  it("becomes person boxes with 17 key points, numbered from 1, as fractions of the picture", async () => {
    const loader = await open();
    // 200×100 stands on 64×32, 16 px from the top.
    const findings = await predictOne(loader, await plain(200, 100));
    expect(findings.map(({ Lb, Cs }) => [Lb, Cs])).toEqual([
      ["person", 0.875],
      ["person", 0.375],
    ]);
    expect(findings[0]!.Dm).toEqual({ X: 12 / 64, Y: (22 - 16) / 32, W: 16 / 64, H: 20 / 32 });
    const keyPoints = findings[0]!.Kp!;
    expect(Object.keys(keyPoints)).toEqual(Array.from({ length: 17 }, (_, index) => String(index + 1)));
    expect(keyPoints["1"]).toEqual([round4(21 / 64), round4((34 - 16) / 32), 0, 0.05]);
    expect(keyPoints["8"]).toEqual([round4(28 / 64), round4((48 - 16) / 32), 0, 0.4]);
    expect(keyPoints["17"], "below the picture: at its edge").toEqual([round4(37 / 64), 1, 0, 0.85]);
  });

  it("is filtered by C_threshold, conf_thres and classes", async () => {
    const picture = await plain(64, 64);
    const scores = async (settings: object, keys = {}) =>
      (await predictOne(await open(settings), picture, keys)).map(({ Cs }) => Cs);
    expect(await scores({})).toEqual([0.875, 0.375]);
    expect(await scores({}, { C_threshold: 0.5 })).toEqual([0.875]);
    expect(await scores({ conf_thres: 0.9 })).toEqual([]);
    expect(await scores({ iou_thres: 0.99 })).toEqual([0.875, 0.75, 0.375]);
    expect(await scores({ classes: ["person"] })).toEqual([0.875, 0.375]);
    expect(await scores({ classes: [0] })).toEqual([0.875, 0.375]);
    await expect(scores({ classes: ["dog"] })).rejects.toThrow('"dog" is no label of the model');
  });

  it("means the same in a batch", async () => {
    const loader = await open({ max_batch_size: 2 });
    const pictures = [await plain(200, 100), await plain(64, 64), await plain(50, 90)];
    const alone = [];
    for (const picture of pictures) alone.push(await predictOne(loader, picture));
    expect(
      await predictBatch(
        loader,
        pictures.map((picture) => [picture]),
      ),
    ).toEqual(alone);
  });
});

const round4 = (value: number) => Math.round(value * 1e4) / 1e4;
