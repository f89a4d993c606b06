/** What the converter guarantees: the same numbers as TensorFlow, or a refusal that names what it can't do. */
import path from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { OWN_FOLDER, packageFolder } from "../../../src/models/packageFolder.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import type { TfjsGraphModel } from "../../../src/models/tfjsFormat.ts";
import { convertTfjsFile, convertTfjsModel } from "../../../src/models/tfjsToOnnx.ts";
import { noSharedModels, sharedModels } from "../../support/sharedModels.ts";

const DEMO_WEIGHTS = path.join(packageFolder("@vladmandic/human", [OWN_FOLDER])!, "models");

const singleThread = { intraOpNumThreads: 1, interOpNumThreads: 1 };

async function openDemo(name: string): Promise<InferenceSession> {
  return InferenceSession.create(
    await convertTfjsFile(path.join(DEMO_WEIGHTS, `${name}.json`)),
    singleThread,
  );
}

/** Numbers between `least` and `most` that are the same in each run (a multiplicative congruential generator). */
function noise(count: number, least: number, most: number): Float32Array {
  let state = 1;
  return Float32Array.from({ length: count }, () => {
    state = (state * 16_807) % 2_147_483_647;
    return least + (state / 2_147_483_647) * (most - least);
  });
}

function floats(output: Tensor | undefined): number[] {
  return Array.from(output?.data as Float32Array);
}

describe("the demo models", () => {
  const inputs: Record<string, Tensor> = {
    centernet: new Tensor("float32", noise(512 * 512 * 3, 0, 255), [1, 512, 512, 3]),
    emotion: new Tensor("float32", noise(3 * 64 * 64, -1, 1), [3, 64, 64, 1]),
    blazeface: new Tensor("float32", noise(256 * 256 * 3, -1, 1), [1, 256, 256, 3]),
  };

  test.for(Object.entries(inputs))(
    "the converted %s gives the numbers of the reference conversion",
    { timeout: 60_000 },
    async ([name, input], { skip }) => {
      if (!sharedModels) {
        skip(noSharedModels);
        return;
      }
      const reference = await InferenceSession.create(
        path.join(sharedModels, "npm_human", `${name}.onnx`),
        singleThread,
      );
      const converted = await openDemo(name);
      expect(converted.inputMetadata).toEqual(reference.inputMetadata);
      expect(new Set(converted.outputMetadata)).toEqual(new Set(reference.outputMetadata));

      const feeds = { [reference.inputNames[0]!]: input };
      const [got, expected] = [await converted.run(feeds), await reference.run(feeds)];
      for (const output of reference.outputNames) {
        expect(got[output]?.dims, output).toEqual(expected[output]?.dims);
        const [ours, theirs] = [floats(got[output]), floats(expected[output])];
        const range = theirs.reduce((a, b) => Math.max(a, b)) - theirs.reduce((a, b) => Math.min(a, b));
        const difference = theirs.reduce((most, value, i) => Math.max(most, Math.abs(value - ours[i]!)), 0);
        expect(difference / range, `largest difference of ${output} to the reference`).toBeLessThan(1e-4);
      }
    },
  );

  test("centernet finds the shepherd and three sheep in the sample photo", { timeout: 60_000 }, async () => {
    const labels = { person: 0, sheep: 18 };
    const pixels = await sharp(findSamplePhoto("march-pastoral"))
      .resize(512, 512, { fit: "fill" })
      .removeAlpha()
      .raw()
      .toBuffer();
    const session = await openDemo("centernet");
    const images = new Tensor("float32", Float32Array.from(pixels), [1, 512, 512, 3]);
    const outputs = await session.run({ "tower_0/images": images });

    const detections = nonMaximumSuppression(floats(outputs["tower_0/detections"]), 0.45);
    const scores = (label: number) =>
      detections.filter((found) => found.label === label).map(({ score }) => score);
    expect(Math.max(...scores(labels.person))).toBeGreaterThanOrEqual(0.5);
    expect(scores(labels.sheep).filter((score) => score >= 0.3).length).toBeGreaterThanOrEqual(3);
  });
});

interface Detection {
  box: number[];
  score: number;
  label: number;
}

/** Rows of x1, y1, x2, y2, score, class, best first, without those that overlap a better one of their class. */
function nonMaximumSuppression(numbers: number[], mostOverlap: number): Detection[] {
  const kept: Detection[] = [];
  for (let i = 0; i < numbers.length; i += 6) {
    const [x1, y1, x2, y2, score, label] = numbers.slice(i, i + 6) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const found = { box: [x1, y1, x2, y2], score, label };
    if (!kept.some((better) => better.label === label && overlap(better.box, found.box) > mostOverlap))
      kept.push(found);
  }
  return kept;
}

/** Intersection over union of two boxes x1, y1, x2, y2. */
function overlap(a: number[], b: number[]): number {
  const area = ([x1 = 0, y1 = 0, x2 = 0, y2 = 0]: number[]) => Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
  const shared = area(a.map((value, i) => (i < 2 ? Math.max(value, b[i]!) : Math.min(value, b[i]!))));
  return shared / (area(a) + area(b) - shared);
}

/** A weight of a test graph: int32 where `ints`, else float32. */
interface Weight {
  shape: number[];
  values: number[];
  ints?: boolean;
}

type Attributes = NonNullable<TfjsGraphModel["modelTopology"]["node"][number]["attr"]>;
type Ops = Record<string, { op: string; input: string[]; attr?: Attributes }>;

const base64 = (text: string) => Buffer.from(text).toString("base64");

/** A graph model with the input `x`, one node for each entry of `ops`, and the last of them as output. */
function graphModel(xShape: number[], ops: Ops, weights: Record<string, Weight> = {}, xType = "DT_FLOAT") {
  const shape = { dim: xShape.map((size) => ({ size: String(size) })) };
  const output = Object.keys(ops).at(-1)!;
  const model: TfjsGraphModel = {
    format: "graph-model",
    signature: { outputs: { [output]: { name: `${output}:0`, dtype: xType } } },
    modelTopology: {
      node: [
        { name: "x", op: "Placeholder", attr: { shape: { shape }, dtype: { type: xType } } },
        ...Object.keys(weights).map((name) => ({ name, op: "Const" })),
        ...Object.entries(ops).map(([name, node]) => ({ name, ...node })),
      ],
    },
    weightsManifest: [
      {
        paths: ["weights.bin"],
        weights: Object.entries(weights).map(([name, { shape: dims, ints }]) => ({
          name,
          shape: dims,
          dtype: ints ? "int32" : "float32",
        })),
      },
    ],
  };
  const arrays = Object.values(weights).map(({ values, ints }) =>
    ints ? Int32Array.from(values) : Float32Array.from(values),
  );
  return { model, bytes: Buffer.concat(arrays.map(({ buffer }) => new Uint8Array(buffer))) };
}

async function runGraph(
  { model, bytes }: { model: TfjsGraphModel; bytes: Uint8Array },
  x: Tensor,
): Promise<Tensor> {
  const session = await InferenceSession.create(convertTfjsModel(model, [bytes]));
  const outputs = await session.run({ x });
  return outputs[session.outputNames[0]!]!;
}

function convAttributes(stride: number, padding: "SAME" | "VALID"): Attributes {
  return {
    strides: { list: { i: ["1", String(stride), String(stride), "1"] } },
    dilations: { list: { i: ["1", "1", "1", "1"] } },
    padding: { s: base64(padding) },
    data_format: { s: base64("NHWC") },
  };
}

const range = (count: number, from = 1) => Array.from({ length: count }, (_, i) => i + from);

describe("the ops", () => {
  test("SAME padding of an even picture puts the odd row and column at the end", async () => {
    const graph = graphModel(
      [1, 4, 4, 1],
      { y: { op: "Conv2D", input: ["x", "filter"], attr: convAttributes(2, "SAME") } },
      { filter: { shape: [3, 3, 1, 1], values: Array(9).fill(1) } },
    );
    const y = await runGraph(graph, new Tensor("float32", Float32Array.from(range(16)), [1, 4, 4, 1]));
    // Sums of rows 1-3 or 3-4 and columns 1-3 or 3-4 of the numbers 1 to 16.
    expect(y.dims).toEqual([1, 2, 2, 1]);
    expect(floats(y)).toEqual([54, 45, 72, 54]);
  });

  test("a fused convolution adds its bias and cuts at zero, in NHWC", async () => {
    const attr = {
      ...convAttributes(1, "VALID"),
      fused_ops: { list: { s: [base64("BiasAdd"), base64("Relu")] } },
    };
    const graph = graphModel(
      [1, 1, 2, 2],
      { y: { op: "_FusedConv2D", input: ["x", "filter", "bias"], attr } },
      {
        filter: { shape: [1, 1, 2, 3], values: [1, 2, 3, 10, 20, -30] },
        bias: { shape: [3], values: [0.5, 0, 0] },
      },
    );
    const y = await runGraph(graph, new Tensor("float32", Float32Array.of(1, 2, 3, 4), [1, 1, 2, 2]));
    expect(y.dims).toEqual([1, 1, 2, 3]);
    expect(floats(y)).toEqual([21.5, 42, 0, 43.5, 86, 0]);
  });

  test("a depthwise convolution with two filters a channel keeps TensorFlow's order of channels", async () => {
    const graph = graphModel(
      [1, 1, 1, 2],
      {
        y: { op: "DepthwiseConv2dNative", input: ["x", "filter"], attr: convAttributes(1, "SAME") },
      },
      { filter: { shape: [1, 1, 2, 2], values: [1, 2, 3, 4] } },
    );
    const y = await runGraph(graph, new Tensor("float32", Float32Array.of(10, 100), [1, 1, 1, 2]));
    expect(floats(y)).toEqual([10, 20, 300, 400]);
  });

  test("constants of any rank meet a convolution's output at the axes that TensorFlow means", async () => {
    const [shape, count]: [number[], number] = [[1, 2, 3, 4], 24];
    const identity = {
      shape: [1, 1, 4, 4],
      values: range(16).map((n) => Number((n - 1) % 5 === 0)),
    };
    const graph = graphModel(
      shape,
      {
        conv: { op: "Conv2D", input: ["x", "identity"], attr: convAttributes(1, "SAME") },
        scaled: { op: "Mul", input: ["conv", "two"] },
        perChannel: { op: "AddV2", input: ["scaled", "channels"] },
        perColumn: { op: "Add", input: ["columns", "perChannel"] },
        y: { op: "Sub", input: ["perColumn", "everywhere"] },
      },
      {
        identity,
        two: { shape: [], values: [2] },
        channels: { shape: [4], values: [0, 100, 200, 300] },
        columns: { shape: [3, 1], values: [0, 1000, 2000] },
        everywhere: { shape, values: range(count) },
      },
    );
    const y = await runGraph(graph, new Tensor("float32", Float32Array.from(range(count)), shape));
    expect(y.dims).toEqual(shape);
    expect(floats(y)).toEqual(range(count).map((n, i) => n + 100 * (i % 4) + 1000 * (Math.floor(i / 4) % 3)));
  });

  test("a convolution's output and a value with the channels last are added channel by channel", async () => {
    const graph = graphModel(
      [1, 2, 2, 2],
      {
        conv: { op: "Conv2D", input: ["x", "identity"], attr: convAttributes(1, "SAME") },
        y: { op: "Add", input: ["conv", "x"] },
      },
      { identity: { shape: [1, 1, 2, 2], values: [1, 0, 0, 1] } },
    );
    const y = await runGraph(graph, new Tensor("float32", Float32Array.from(range(8)), [1, 2, 2, 2]));
    expect(floats(y)).toEqual(range(8).map((n) => 2 * n));
  });

  test("padding and joining along the channels count the axes as TensorFlow does", async () => {
    const graph = graphModel(
      [1, 1, 2, 2],
      {
        conv: { op: "Conv2D", input: ["x", "identity"], attr: convAttributes(1, "SAME") },
        padded: { op: "Pad", input: ["conv", "paddings"] },
        y: { op: "ConcatV2", input: ["conv", "padded", "axis"] },
      },
      {
        identity: { shape: [1, 1, 2, 2], values: [1, 0, 0, 1] },
        paddings: { shape: [4, 2], values: [0, 0, 0, 0, 0, 0, 1, 0], ints: true },
        axis: { shape: [], values: [-1], ints: true },
      },
    );
    const y = await runGraph(graph, new Tensor("float32", Float32Array.of(1, 2, 3, 4), [1, 1, 2, 2]));
    expect(y.dims).toEqual([1, 1, 2, 5]);
    expect(floats(y)).toEqual([1, 2, 0, 1, 2, 3, 4, 0, 3, 4]);
  });

  test("integer division and remainder round down, also below zero", async () => {
    const three = { three: { shape: [], values: [3], ints: true } };
    const attr = { T: { type: "DT_INT32" } };
    const x = new Tensor("int32", Int32Array.of(-7, -6, -1, 0, 2, 7), [6]);
    const quotient = graphModel(
      [6],
      { y: { op: "FloorDiv", input: ["x", "three"], attr } },
      three,
      "DT_INT32",
    );
    expect(floats(await runGraph(quotient, x))).toEqual([-3, -2, -1, 0, 0, 2]);
    const remainder = graphModel(
      [6],
      { y: { op: "FloorMod", input: ["x", "three"], attr } },
      three,
      "DT_INT32",
    );
    expect(floats(await runGraph(remainder, x))).toEqual([2, 0, 2, 0, 2, 1]);
  });

  test("a slice takes its masked ends from the whole axis and may step backwards", async () => {
    const ints = true;
    const graph = graphModel(
      [2, 4],
      {
        y: {
          op: "StridedSlice",
          input: ["x", "begin", "end", "strides"],
          attr: { begin_mask: { i: "2" }, end_mask: { i: "3" } },
        },
      },
      {
        begin: { shape: [2], values: [1, 0], ints },
        end: { shape: [2], values: [0, 0], ints },
        strides: { shape: [2], values: [1, -1], ints },
      },
    );
    const y = await runGraph(graph, new Tensor("float32", Float32Array.from(range(8)), [2, 4]));
    expect(floats(y)).toEqual([8, 7, 6, 5]);
  });
});

describe("the weights", () => {
  test.each([
    {
      dtype: "uint8",
      scale: 0.5,
      min: -1,
      stored: Uint8Array.of(0, 2, 255),
      restored: [-1, 0, 126.5],
    },
    {
      dtype: "uint16",
      scale: 0.25,
      min: 1,
      stored: Uint16Array.of(0, 4, 65_535),
      restored: [1, 2, 16_384.75],
    },
    {
      dtype: "float16",
      stored: Uint16Array.of(0x3c00, 0xc100, 0x0001),
      restored: [1, -2.5, 2 ** -24],
    },
  ])("$dtype weights get their numbers back", async ({ stored, restored, ...quantization }) => {
    const { model } = graphModel(
      [3],
      { y: { op: "Add", input: ["x", "w"] } },
      { w: { shape: [3], values: [0, 0, 0] } },
    );
    model.weightsManifest[0]!.weights[0]!.quantization = quantization;
    const x = new Tensor("float32", new Float32Array(3), [3]);
    expect(floats(await runGraph({ model, bytes: new Uint8Array(stored.buffer) }, x))).toEqual(restored);
  });

  test("weight files that are too short are refused", () => {
    const { model, bytes } = graphModel(
      [3],
      { y: { op: "Add", input: ["x", "w"] } },
      { w: { shape: [3], values: [1, 2, 3] } },
    );
    expect(() => convertTfjsModel(model, [bytes.subarray(0, 8)])).toThrow(
      "the weight files end within w: 12 bytes expected, got 8",
    );
  });
});

describe("what can't be converted", () => {
  test("a graph with unknown ops is refused with all their names", () => {
    const { model, bytes } = graphModel([3], {
      a: { op: "Erfinv", input: ["x"] },
      b: { op: "toString", input: ["a"] },
      y: { op: "Relu", input: ["b"] },
    });
    expect(() => convertTfjsModel(model, [bytes])).toThrow(
      /can't convert the TensorFlow op Erfinv, toString: known are .*Conv2D/,
    );
  });

  test("a known op with a setting that has no counterpart here is refused with its name", () => {
    const attr = {
      ...convAttributes(1, "SAME"),
      fused_ops: { list: { s: [base64("BiasAdd"), base64("Elu")] } },
    };
    const { model, bytes } = graphModel(
      [1, 2, 2, 1],
      { y: { op: "_FusedConv2D", input: ["x", "w", "b"], attr } },
      { w: { shape: [1, 1, 1, 1], values: [1] }, b: { shape: [1], values: [0] } },
    );
    expect(() => convertTfjsModel(model, [bytes])).toThrow(
      "can't convert _FusedConv2D y: fused activation must be none or Relu or Relu6, got Elu",
    );
  });

  test("a layers model is refused, which is another format", () => {
    const { model, bytes } = graphModel([3], { y: { op: "Relu", input: ["x"] } });
    expect(() => convertTfjsModel({ ...model, format: "layers-model" }, [bytes])).toThrow(
      'expected a TensorFlow.js model of format "graph-model", got "layers-model"',
    );
  });
});
