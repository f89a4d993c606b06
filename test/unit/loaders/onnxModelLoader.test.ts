import type { PictureOutcome } from "../../../src/loaders/pictures/OnnxPictureModelLoader.ts";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import {
  attachPictures,
  cropPicture,
  OnnxPictureModelLoader,
  type BatchTrace,
  type DecodedPicture,
  type Finding,
  type ModelSection,
  type OutputRow,
  type PredictionRequest,
  type TensorDescription,
  type TensorValue,
} from "../../../src/index.ts";
import { watchRuns } from "../../support/loaders.ts";
import { readPictureInput } from "../../../src/loaders/pictures/OnnxPictureModelLoader.ts";
import {
  DATA_TYPE,
  encodeModel,
  node,
  tensor,
  valueInfo,
  type DataType,
  type OnnxModel,
} from "../../../src/models/onnxProto.ts";

/** Each finding's score is the mean of one channel of the picture, 0..1, and its label the name of the output with the channel. */
class MeansModelLoader extends OnnxPictureModelLoader {
  seenShapes: (readonly number[])[] = [];

  override async preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture> {
    const side = request["side"] as number | undefined;
    return this.decode(picture, "stretch", side ? { size: { width: side, height: side } } : {});
  }

  override async postprocessing(
    row: OutputRow,
    _picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    if (request["reject"]) throw new Error("this row is rejected");
    return Object.entries(row).flatMap(([name, { data, dims }]) => {
      this.seenShapes.push(dims);
      return Array.from(data, (mean, channel) => ({ Cs: mean, Lb: `${name}${channel}`, Dm: {} }));
    });
  }
}

/** Decodes each picture only once, so that several calls are ready to run at the same moment. */
class RememberingModelLoader extends MeansModelLoader {
  readonly #decoded = new Map<Buffer, DecodedPicture>();

  override async preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture> {
    const decoded = this.#decoded.get(picture) ?? (await super.preprocessing(picture, request));
    this.#decoded.set(picture, decoded);
    return decoded;
  }
}

/** [N, 3, H, W] → the mean of each channel, [N, 3]. */
function meansModel(shape: (number | string)[], change: Partial<OnnxModel> = {}): OnnxModel {
  return {
    opset: 13,
    name: "means",
    inputs: [valueInfo("x", "float32", shape)],
    outputs: [valueInfo("mean", "float32", [shape[0]!, 3])],
    nodes: [node("GlobalAveragePool", ["x"], ["pooled"]), node("Flatten", ["pooled"], ["mean"])],
    initializers: [],
    ...change,
  };
}

let folder: string;
/** Plain pictures of 20×10 whose red part, 0..255, is their number; green is 50, blue 100. */
let pictures: Buffer[];

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "infermill-onnx-"));
  pictures = await Promise.all(
    Array.from({ length: 10 }, (_, r) =>
      sharp({ create: { width: 20, height: 10, channels: 3, background: { r: r * 20, g: 50, b: 100 } } })
        .png()
        .toBuffer(),
    ),
  );
});
afterAll(() => rm(folder, { recursive: true }));

let models = 0;
async function open(
  model: OnnxModel,
  settings: Partial<ModelSection> = {},
  Loader = MeansModelLoader,
): Promise<MeansModelLoader> {
  const file = path.join(folder, `${models++}.onnx`);
  await writeFile(file, encodeModel(model));
  const loader = new Loader({ Means: section({ model_path: [file], ...settings }) }, "Means");
  await loader.load();
  onTestFinished(() => loader.close());
  return loader;
}

const section = (settings: Partial<ModelSection>): ModelSection => ({
  model_path: [],
  class_names: [],
  classes: [],
  device: "cpu",
  intra_op_threads: 1,
  max_batch_size: 4,
  max_picture_pixels: 1_000_000,
  ...settings,
});

const noTime = (): BatchTrace => ({ preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 });
const asking = (index: number, keys: PredictionRequest = {}) =>
  attachPictures({ ...keys, Tid: `t${index}` }, [pictures[index]!]);
const predict = (loader: OnnxPictureModelLoader, requests: PredictionRequest[]) =>
  loader.predictRequests(requests, noTime());

function expectAnswers(outcomes: PictureOutcome[], indices: number[]) {
  expect(outcomes).toHaveLength(indices.length);
  for (const [at, outcome] of outcomes.entries()) {
    if (outcome instanceof Error) throw new Error(`request ${at} failed`, { cause: outcome });
    expect(outcome.Tid).toBe(`t${indices[at]}`);
    expect(outcome.Fs.map(({ Lb }) => Lb)).toEqual(["mean0", "mean1", "mean2"]);
    const expected = [(indices[at]! * 20) / 255, 50 / 255, 100 / 255];
    for (const [channel, mean] of expected.entries()) expect(outcome.Fs[channel]!.Cs).toBeCloseTo(mean, 3);
  }
}

describe("a model with a free batch", () => {
  it("answers every request of a batch with its own picture's numbers, for each number of requests", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]));
    expect(loader.batchLimit).toBe(4);
    for (const indices of [[3], [1, 2], [5, 0, 7, 9], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]) {
      expectAnswers(
        await predict(
          loader,
          indices.map((index) => asking(index)),
        ),
        indices,
      );
    }
    expect(new Set(loader.seenShapes.map(String)), "shapes of a row").toEqual(new Set(["3"]));
  });

  it("runs max_batch_size rows at a time, once a trial has shown that they don't depend on each other", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]), { max_batch_size: 4 });
    const six = [0, 1, 2, 3, 4, 5];
    const runs = watchRuns("x");
    const predictSix = () =>
      predict(
        loader,
        six.map((index) => asking(index)),
      );
    expectAnswers(await predictSix(), six);
    expect(runs).toEqual([1, 1, 1, 1, 4, 2]);
    runs.length = 0;
    expectAnswers(await predictSix(), six);
    expect(runs).toEqual([4, 2]);
  });

  it("runs pictures of different tensor shapes apart, and answers in the order of the requests", async () => {
    expect.hasAssertions();
    const loader = await open(meansModel(["batch", 3, "height", "width"]), { input_image_size: [8, 8] });
    const requests = [
      asking(1, { side: 4 }),
      asking(2),
      asking(3, { side: 16 }),
      asking(4, { side: 4 }),
      asking(5),
    ];
    expectAnswers(await predict(loader, requests), [1, 2, 3, 4, 5]);
  });

  it("keeps calls that overlap apart, although they share the batch buffer", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]), {}, RememberingModelLoader);
    expect(loader.overlaps).toBe(true);
    await predict(
      loader,
      pictures.map((_, index) => asking(index)),
    );
    const calls = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 0], [1], [9, 9, 9, 9]];
    const answers = await Promise.all(
      calls.map((indices) =>
        predict(
          loader,
          indices.map((index) => asking(index)),
        ),
      ),
    );
    for (const [call, indices] of calls.entries()) expectAnswers(answers[call]!, indices);
  });

  it("adds what it measured to the trace", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]));
    const trace = { preprocess_ms: 1000, infer_ms: 2000, postprocess_ms: 3000 };
    await loader.predictRequests([asking(1)], trace);
    expect(trace.preprocess_ms).toBeGreaterThan(1000);
    expect(trace.infer_ms).toBeGreaterThan(2000);
    expect(trace.postprocess_ms).toBeGreaterThan(3000);
    expect(trace.preprocess_ms + trace.infer_ms + trace.postprocess_ms).toBeLessThan(16_000);
  });
});

describe("requests", () => {
  it("fail alone where a picture is bad, missing, or its row is rejected", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]));
    const outcomes = await predict(loader, [
      asking(1),
      attachPictures({}, [Buffer.from("no picture")]),
      {},
      asking(2, { reject: true }),
      attachPictures({}, [pictures[1]!, pictures[2]!.subarray(0, 40)]),
      asking(3),
    ]);
    expect(outcomes.map((outcome) => (outcome instanceof Error ? outcome.message : "answered"))).toEqual([
      "answered",
      expect.stringContaining("must be a JPEG, PNG, WebP"),
      'the model "Means" needs a picture, the request has none',
      "this row is rejected",
      expect.stringContaining("damaged or cut short"),
      "answered",
    ]);
    expectAnswers([outcomes[0]!, outcomes[5]!], [1, 3]);
  });

  it("with several pictures get the findings of each in order, marked with its index", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]), { max_batch_size: 2 });
    const [outcome, alone] = await predict(loader, [
      attachPictures({}, [pictures[4]!, pictures[8]!, pictures[2]!]),
      asking(1),
    ]);
    if (outcome instanceof Error) throw outcome;
    const red = outcome!.Fs.filter(({ Lb }) => Lb === "mean0");
    expect(red.map(({ Info }) => Info)).toEqual(["0", "1", "2"]);
    for (const [at, index] of [4, 8, 2].entries()) expect(red[at]!.Cs).toBeCloseTo((index * 20) / 255, 3);
    expectAnswers([alone!], [1]);
  });

  it("alone are answered by predictRequest, which throws what is wrong with them", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]));
    expectAnswers([await loader.predictRequest(asking(6))], [6]);
    await expect(loader.predictRequest({ Base_64: "SGVsbG8gd29ybGQh" })).rejects.toThrow(
      'begin with "Hello world!"',
    );
    expect((await loader.predict(pictures[6]!))[0]!.Cs).toBeCloseTo(120 / 255, 3);
  });
});

describe("a model with a fixed batch", () => {
  it("of one runs its pictures one after another", async () => {
    const loader = await open(meansModel([1, 3, 8, 8]));
    expect(loader.batchLimit).toBe(1);
    expectAnswers(
      await predict(
        loader,
        [3, 1, 2].map((index) => asking(index)),
      ),
      [3, 1, 2],
    );
  });

  it("of several is filled up, and only real pictures are answered", async () => {
    const loader = await open(meansModel([4, 3, 8, 8]), { max_batch_size: 8 });
    expect(loader.batchLimit).toBe(4);
    for (const indices of [[7], [1, 2, 3], [1, 2, 3, 4], [5, 4, 3, 2, 1, 0]]) {
      expectAnswers(
        await predict(
          loader,
          indices.map((index) => asking(index)),
        ),
        indices,
      );
    }
  });

  it("of several is filled up with nothing of an earlier batch", async () => {
    // Every row gets the brightest of the batch.
    const model = meansModel([4, 3, 8, 8], {
      nodes: [
        node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("ReduceMax", ["flat"], ["brightest"], { axes: [0], keepdims: 1 }),
        node("Max", ["flat", "brightest"], ["mean"]),
      ],
    });
    const loader = await open(model);
    // Rows that depend on each other share no run: each is filled up with itself.
    for (const indices of [[1, 9], [2], [9, 1, 2]])
      expectAnswers(
        await predict(
          loader,
          indices.map((index) => asking(index)),
        ),
        indices,
      );
    expect(loader.describe().notes).toEqual([
      'max_batch_size is 1 for this model, whatever is configured: the answers in its output "mean" depend on what else is in the batch',
    ]);
    expect(loader.batchLimit).toBe(1);
  });

  it("that is larger than max_batch_size is filled up, too", async () => {
    const loader = await open(meansModel([4, 3, 8, 8]), { max_batch_size: 2 });
    expect(loader.batchLimit).toBe(2);
    expectAnswers(await predict(loader, [asking(8), asking(1)]), [8, 1]);
  });
});

describe("tensors of other kinds", () => {
  /** The same graph between two casts, for an element type that GlobalAveragePool doesn't know. */
  const between = (elemType: number, shape: (number | string)[], toFloat: number = DATA_TYPE.float32) => {
    const typed = (name: string, dims: (number | string)[], type: number) => {
      const info = valueInfo(name, "float32", dims);
      info.type.tensorType.elemType = type;
      return info;
    };
    return meansModel(shape, {
      inputs: [typed("x", shape, elemType)],
      outputs: [typed("mean", [shape[0]!, 3], toFloat)],
      nodes: [
        node("Cast", ["x"], ["x_float"], { to: DATA_TYPE.float32 }),
        node("GlobalAveragePool", ["x_float"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Cast", ["flat"], ["mean"], { to: toFloat }),
      ],
    });
  };

  it("float16 in and out", async () => {
    expect.hasAssertions();
    const float16 = 10;
    const loader = await open(between(float16, ["batch", 3, 8, 8], float16));
    expectAnswers(
      await predict(
        loader,
        [2, 9].map((index) => asking(index)),
      ),
      [2, 9],
    );
  });

  it("uint8 in, whole pixel values", async () => {
    const loader = await open(between(DATA_TYPE.uint8, ["batch", 3, 8, 8]));
    const [outcome] = await predict(loader, [asking(7)]);
    expect(outcome).toMatchObject({ Fs: [{ Cs: 140 }, { Cs: 50 }, { Cs: 100 }] });
  });

  it("int64 out, as plain numbers", async () => {
    const loader = await open(between(DATA_TYPE.uint8, ["batch", 3, 8, 8], DATA_TYPE.int64));
    const [outcome] = await predict(loader, [asking(7)]);
    expect(outcome).toMatchObject({ Fs: [{ Cs: 140 }, { Cs: 50 }, { Cs: 100 }] });
  });

  it("NHWC in", async () => {
    expect.hasAssertions();
    const shape = ["batch", 8, 8, 3];
    const loader = await open(
      meansModel(shape, { nodes: [node("ReduceMean", ["x"], ["mean"], { axes: [1, 2], keepdims: 0 })] }),
    );
    expectAnswers(
      await predict(
        loader,
        [2, 9, 4].map((index) => asking(index)),
      ),
      [2, 9, 4],
    );
  });

  it("no batch axis at all, with an output whose length changes", async () => {
    const model = meansModel([3, "height", "width"], {
      outputs: [valueInfo("mean", "float32", ["n"])],
      nodes: [node("ReduceMean", ["x"], ["mean"], { axes: [1, 2], keepdims: 0 })],
    });
    const loader = await open(model);
    expect(loader.batchLimit).toBe(1);
    expectAnswers(
      await predict(
        loader,
        [2, 9].map((index) => asking(index)),
      ),
      [2, 9],
    );
    expect(loader.seenShapes).toEqual([[3], [3]]);
  });

  it("an output of a fixed batch of one that only happens to have one entry keeps its shape", async () => {
    const model = meansModel([1, 3, 8, 8], {
      outputs: [valueInfo("mean", "float32", ["boxes", 3])],
      nodes: [
        node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        // How many rows it keeps is not known before it runs.
        node("Compress", ["flat", "keep"], ["mean"], { axis: 0 }),
      ],
      initializers: [tensor("keep", [1], Uint8Array.of(1), "bool")],
    });
    const loader = await open(model);
    await predict(loader, [asking(2)]);
    expect(loader.seenShapes).toEqual([[1, 3]]);
  });

  it("an output that can't be divided among a batch: its pictures run alone, and it says so", async () => {
    const model = meansModel(["batch", 3, 8, 8], {
      outputs: [valueInfo("mean", "float32", ["n", 3])],
      nodes: [
        node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("ReduceMean", ["flat"], ["mean"], { axes: [0], keepdims: 1 }),
      ],
    });
    const loader = await open(model);
    expectAnswers(await predict(loader, [asking(1), asking(2)]), [1, 2]);
    expectAnswers(await predict(loader, [asking(3), asking(4)]), [3, 4]);
    expect(loader.describe().notes).toEqual([
      'max_batch_size is 1 for this model, whatever is configured: its output "mean" of shape [1, 3] can\'t be divided among 2 rows',
    ]);
  });
});

describe("load() refuses", () => {
  it("a model file that is missing or no model", async () => {
    const load = (model_path: string[]) =>
      new MeansModelLoader({ Means: section({ model_path }) }, "Means").load();
    await expect(load([])).rejects.toThrow("models.Means.model_path must name an .onnx file");
    await expect(load([path.join(folder, "none.onnx")])).rejects.toThrow(
      /models\.Means\.model_path names .*none\.onnx, which can't be read/,
    );
    const file = path.join(folder, "text.onnx");
    await writeFile(file, "this is no model");
    await expect(load([file])).rejects.toThrow(
      /models\.Means\.model_path: onnxruntime can't open .*text\.onnx/,
    );
  });

  it("a device that can't be used, instead of falling back to the CPU", async () => {
    const load = open(meansModel(["batch", 3, 8, 8]), { device: "cuda:99" });
    await expect(load).rejects.toThrow(
      /models\.Means\.device is "cuda:99", but onnxruntime can't open .*This onnxruntime-node is built for cpu.*CUDA 12/s,
    );
  });

  it("an input_image_size that the model doesn't take", async () => {
    const load = open(meansModel(["batch", 3, 8, 8]), { input_image_size: [16, 8] });
    await expect(load).rejects.toThrow(
      "models.Means.input_image_size: must be [8, 8] (width, height), which is what the model takes, got [16, 8]",
    );
  });

  it("classes that the labels don't have", async () => {
    const load = open(meansModel(["batch", 3, 8, 8]), {
      class_names: ["red", "green", "blue"],
      classes: ["gren", 3],
    });
    await expect(load).rejects.toThrow(
      'models.Means.classes: "gren" is no label of the model; did you mean "green"?; class 3 is out of range',
    );
  });
});

describe("the picture input of a model", () => {
  const read = (shape: (number | string)[], type = "float32") =>
    readPictureInput([{ name: "x", type, shape }]);

  it("is read from its shape", () => {
    expect(read(["N", 3, 480, 640])).toMatchObject({
      layout: "nchw",
      channels: 3,
      batch: "any",
      width: 640,
      height: 480,
    });
    expect(read([1, 480, 640, 3])).toMatchObject({
      layout: "nhwc",
      channels: 3,
      batch: 1,
      width: 640,
      height: 480,
    });
    expect(read([8, 64, 64, 1])).toMatchObject({ layout: "nhwc", channels: 1, batch: 8 });
    expect(read(["N", 1, "h", "w"])).toMatchObject({
      layout: "nchw",
      channels: 1,
      width: undefined,
      height: undefined,
    });
    expect(read(["N", "h", "w", 3])).toMatchObject({ layout: "nhwc", channels: 3, width: undefined });
    expect(read(["N", "c", "h", "w"])).toMatchObject({ layout: "nchw", channels: 3 });
    expect(read([3, "h", "w"])).toMatchObject({ layout: "nchw", batch: "none" });
  });

  it("must be one, of a type and shape that a picture can become", () => {
    expect(() => read(["N", 4, 8, 8])).toThrow("this one takes x: float32 [N, 4, 8, 8]");
    expect(() => read(["N", 512])).toThrow("this one takes x: float32 [N, 512]");
    expect(() => read(["N", 3, 8, 8], "int64")).toThrow("this one takes x: int64 [N, 3, 8, 8]");
    expect(() => readPictureInput([])).toThrow("this one takes nothing");
  });
});

describe("warmUp()", () => {
  it("finds out at start that a model doesn't fit its loader", async () => {
    class Picky extends MeansModelLoader {
      override async postprocessing(): Promise<Finding[]> {
        throw new Error("three numbers are no detections");
      }
    }
    const fitting = await open(meansModel(["batch", 3, 8, 8]));
    await fitting.warmUp();
    const file = path.join(folder, "picky.onnx");
    await writeFile(file, encodeModel(meansModel(["batch", 3, 8, 8])));
    const picky = new Picky({ Means: section({ model_path: [file] }) }, "Means");
    await picky.load();
    await expect(picky.warmUp()).rejects.toThrow("three numbers are no detections");
    await picky.close();
  });
});

it("a model describes its tensors and the labels that are left", async () => {
  const loader = await open(meansModel(["batch", 3, 8, 8]), {
    class_names: ["red", "green", "blue"],
    classes: ["blue", 0],
  });
  expect(loader.describe()).toEqual({
    labels: ["red", "blue"],
    picture: "required",
    tensors: {
      inputs: [{ name: "x", type: "float32" satisfies DataType, shape: ["batch", 3, 8, 8] }],
      outputs: [{ name: "mean", type: "float32", shape: ["batch", 3] }],
    },
  });
});

describe("a request with parameters.raw", () => {
  const twoOutputs = meansModel(["batch", 3, 8, 8], {
    outputs: [valueInfo("mean", "float32", ["batch", 3]), valueInfo("pooled", "float32", ["batch", 3, 1, 1])],
  });

  class MeanOnly extends MeansModelLoader {
    protected override wantedOutputs(): string[] {
      return ["mean"];
    }
  }

  it("gets all outputs of the model beside its findings, a row for each picture", async () => {
    const loader = await open(twoOutputs, {}, MeanOnly);
    const raw = { parameters: { raw: true } };
    const [plain, one, two] = await predict(loader, [
      asking(1),
      asking(2, raw),
      attachPictures({ ...raw }, [pictures[3]!, pictures[4]!]),
    ]);
    expect(plain).not.toHaveProperty("outputs");
    expectAnswers([one!], [2]);
    const entry = (name: string, shape: number[], reds: number[]) => ({
      name,
      datatype: "FP32",
      shape,
      data: reds.flatMap((red) => [red, 50, 100]).map((value) => expect.closeTo(value / 255, 3) as number),
    });
    expect(one).toMatchObject({
      outputs: [entry("mean", [1, 3], [40]), entry("pooled", [1, 3, 1, 1], [40])],
    });
    expect(two).toMatchObject({
      outputs: [entry("mean", [2, 3], [60, 80]), entry("pooled", [2, 3, 1, 1], [60, 80])],
    });
  });
});

describe("further hooks of a subclass", () => {
  it("fill further inputs of the graph, or the model is refused at start", async () => {
    const model = meansModel(["batch", 3, 8, 8], {
      inputs: [valueInfo("factor", "float32", ["batch", 1]), valueInfo("x", "float32", ["batch", 3, 8, 8])],
      nodes: [
        node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Mul", ["flat", "factor"], ["mean"]),
      ],
    });
    class Scaling extends MeansModelLoader {
      protected override extraInput(
        { name, shape }: TensorDescription,
        { original }: DecodedPicture,
      ): TensorValue | undefined {
        expect([name, shape]).toEqual(["factor", ["batch", 1]]);
        return { type: "float32", dims: [1, 1], data: Float32Array.of(original.width) };
      }
    }
    const loader = await open(model, {}, Scaling);
    for (const outcome of await predict(loader, [asking(5), asking(2)]))
      expect((outcome as { Fs: Finding[] }).Fs[1]!.Cs).toBeCloseTo((20 * 50) / 255, 2);
    const unknowing = await open(model);
    await expect(unknowing.warmUp()).rejects.toThrow(
      `MeansModelLoader doesn't know what the model's input "factor" is to hold`,
    );
  });

  it("make several tensors of one picture, each with findings of its own", async () => {
    class Tiles extends OnnxPictureModelLoader {
      override async preprocessing(picture: Buffer): Promise<DecodedPicture[]> {
        const whole = await this.decode(picture, "stretch");
        const size = { width: 4, height: 8 };
        return Promise.all(
          [0, 4].map((left) => cropPicture(whole, { left, top: 0, ...size }, { width: 8, height: 8 })),
        );
      }

      override async postprocessing(row: OutputRow): Promise<Finding[]> {
        return [{ Cs: row["mean"]!.data[0]!, Lb: "red", Dm: {} }];
      }
    }
    const halves = await sharp({ create: { width: 16, height: 8, channels: 3, background: "#ff0000" } })
      .composite([
        { input: { create: { width: 8, height: 8, channels: 3, background: "#330000" } }, left: 8, top: 0 },
      ])
      .png()
      .toBuffer();
    const loader = await open(meansModel(["batch", 3, 8, 8]), {}, Tiles as never);
    const outcomes = await predict(loader, [
      attachPictures({}, [halves]),
      attachPictures({}, [halves, pictures[0]!]),
    ]);
    const reds = (outcome: object) => (outcome as { Fs: Finding[] }).Fs.map(({ Cs, Info }) => [Cs, Info]);
    const [high, low] = [expect.closeTo(1, 1), expect.closeTo(0.2, 1)] as unknown as [number, number];
    expect(reds(outcomes[0]!)).toEqual([
      [high, undefined],
      [low, undefined],
    ]);
    expect(reds(outcomes[1]!)).toEqual([
      [high, "0"],
      [low, "0"],
      [0, "1"],
      [0, "1"],
    ]);
  });
});

describe("warmUp() of a model", () => {
  /** The graph fails where a picture is dark: a row of no boxes can't be formed. */
  const failing = (limit: number) =>
    meansModel(["batch", 3, 8, 8], {
      outputs: [valueInfo("mean", "float32", ["batch", 3])],
      nodes: [
        node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("ReduceMin", ["flat"], ["least"], { keepdims: 0 }),
        node("Greater", ["least", "limit"], ["fine"]),
        node("Cast", ["fine"], ["is_fine"], { to: DATA_TYPE.int64 }),
        node("Sub", ["is_fine", "one"], ["at"]),
        // At 0 it takes the only entry, at -1 - 1 there is none.
        node("Add", ["at", "at"], ["twice"]),
        node("Gather", ["table", "twice"], ["nothing"]),
        node("Add", ["flat", "nothing"], ["mean"]),
      ],
      initializers: [
        tensor("limit", [], Float32Array.of(limit)),
        tensor("one", [], BigInt64Array.of(1n)),
        tensor("table", [1], Float32Array.of(0)),
      ],
    });

  it("that fails on grey but not on others serves, and says so", async () => {
    const loader = await open(failing(0.7));
    await loader.warmUp();
    expect(loader.describe().notes![0]).toMatch(
      /^the model fails on a grey picture, not on white: .*while running Gather node/,
    );
    const outcomes = await predict(loader, [asking(1)]);
    expect(outcomes[0]).toMatchObject({ message: expect.stringContaining("while running Gather node") });
  });

  it("that fails on every made-up picture serves, and fails alone where it must", async () => {
    const loader = await open(failing(2));
    await loader.warmUp();
    expect(loader.describe().notes![0]).toMatch(/^the model fails on a grey picture, and on every other/);
    expect((await predict(loader, [asking(1)]))[0]).toBeInstanceOf(Error);
  });

  it("that gets a size which it doesn't take is refused", async () => {
    class Wrong extends MeansModelLoader {
      override preprocessing(picture: Buffer): Promise<DecodedPicture> {
        return this.decode(picture, "stretch", { size: { width: 4, height: 4 } });
      }
    }
    const loader = await open(meansModel(["batch", 3, 8, 8]), {}, Wrong);
    await expect(loader.warmUp()).rejects.toThrow("Got invalid dimensions for input: x");
  });

  it("measures the fastest batch where max_batch_size is left to it, and tells what it found", async () => {
    const loader = await open(meansModel(["batch", 3, 8, 8]), {
      max_batch_size: 8,
      measures_batch_size: true,
    });
    await loader.warmUp();
    const { notes, facts } = loader.describe();
    expect(notes).toBeUndefined();
    expect(facts!["batch size"]).toMatch(
      new RegExp(
        String.raw`^${loader.batchLimit}, the fastest on this CPU \([\d.]+ ms for each in batches of 1, .*\); max_batch_size sets another$`,
      ),
    );
    expect([1, 2, 4, 8]).toContain(loader.batchLimit);
    const configured = await open(meansModel(["batch", 3, 8, 8]), { max_batch_size: 8 });
    await configured.warmUp();
    expect([configured.batchLimit, configured.describe().facts]).toEqual([8, undefined]);
  });
});
