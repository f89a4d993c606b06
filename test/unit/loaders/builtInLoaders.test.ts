import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import {
  attachPictures,
  CenterNetModelLoader,
  ImageClassificationModelLoader,
  YoloModelLoader,
  YoloxModelLoader,
  type Box,
  type Finding,
  type LoaderClass,
  type ModelSection,
  type OnnxPictureModelLoader,
  type PredictionRequest,
} from "../../../src/index.ts";
import { cocoLabels } from "../../../src/loaders/labels/coco.ts";
import { imagenetLabels } from "../../../src/loaders/labels/imagenet.ts";
import { resample } from "../../../src/loaders/pictures/resample.ts";
import { encodeModel, node, tensor, valueInfo, type OnnxNode } from "../../../src/models/onnxProto.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const section = (settings: Partial<ModelSection>): ModelSection => ({
  model_path: [],
  class_names: [],
  classes: [],
  device: "cpu",
  intra_op_threads: 1,
  max_batch_size: 4,
  max_picture_pixels: 64_000_000,
  ...settings,
});

async function openLoader(
  Loader: LoaderClass,
  file: string,
  settings: Partial<ModelSection>,
): Promise<OnnxPictureModelLoader> {
  const loader = new Loader(
    { Model: section({ model_path: [file], ...settings }) },
    "Model",
  ) as OnnxPictureModelLoader;
  await loader.load();
  onTestFinished(() => loader.close());
  return loader;
}

async function findingsOf(
  loader: OnnxPictureModelLoader,
  pictures: Buffer[],
  keys: PredictionRequest = {},
): Promise<Finding[][]> {
  const requests = pictures.map((picture) => attachPictures({ ...keys }, [picture]));
  const outcomes = await loader.predictRequests(requests, {
    preprocess_ms: 0,
    infer_ms: 0,
    postprocess_ms: 0,
  });
  return outcomes.map((outcome) => {
    if (outcome instanceof Error) throw outcome;
    return outcome.Fs;
  });
}

const photo = (name: string) => readFile(path.join(sharedPhotos!, name));
const model = (name: string) => path.join(sharedModels!, name);

describe.skipIf(!sharedModels || !sharedPhotos)("with the reference models", () => {
  // Scores as ../shared/models/*/NOTES.json have them, with two places.
  describe("classifiers give the answers of their NOTES.json, alone and batched", () => {
    it.each([
      [
        "squeezenet1_1/squeezenet1_1.onnx",
        "chelsea.png",
        { "Egyptian cat": 0.37, "tiger cat": 0.33, "tabby, tabby cat": 0.25 },
      ],
      ["squeezenet1_1/squeezenet1_1.onnx", "coffee.png", { espresso: 0.9 }],
      ["mobilenetv2/mobilenetv2-12.onnx", "chelsea.png", { "Egyptian cat": 0.51 }],
      ["mobilenetv2/mobilenetv2-12.onnx", "coffee.png", { espresso: 1 }],
    ])("%s on %s", async (file, name, expected) => {
      const settings = { class_names: imagenetLabels, resize: "crop" };
      const loader = await openLoader(ImageClassificationModelLoader, model(file), settings);
      const picture = await photo(name);
      const [alone] = await findingsOf(loader, [picture]);
      const [, inABatch] = await findingsOf(loader, [
        await photo("rocket.jpg"),
        picture,
        await photo("darknet_dog.jpg"),
      ]);
      for (const findings of [alone!, inABatch!]) {
        const top = Object.entries(expected);
        expect(findings.slice(0, top.length).map(({ Lb }) => Lb)).toEqual(top.map(([label]) => label));
        for (const [at, [label, score]] of top.entries()) {
          expect(
            Math.abs(findings[at]!.Cs - score),
            `${label}: ${findings[at]!.Cs} against ${score}`,
          ).toBeLessThanOrEqual(0.02);
        }
      }
    });
  });

  describe("detectors give the answers of their NOTES.json", () => {
    const people = (count: number, lowest: number, highest: number) => ({
      person: [count, lowest, highest] as const,
    });
    it.each([
      [
        YoloModelLoader,
        "yolov5n/yolov5n.onnx",
        { dog: 0.75, car: 0.72, bicycle: 0.5 },
        people(5, 0.68, 0.9),
        0.54,
      ],
      [
        YoloModelLoader,
        "yolov8n/yolov8n.onnx",
        { dog: 0.96, bicycle: 0.89, car: 0.65 },
        people(5, 0.9, 0.95),
        0.87,
      ],
      [
        YoloxModelLoader,
        "yolox_nano/yolox_nano.onnx",
        { dog: 0.83, car: 0.81, bicycle: 0.81 },
        people(5, 0.83, 0.89),
        0.64,
      ],
      [
        CenterNetModelLoader,
        "npm_human/centernet.onnx",
        { car: 0.56, bicycle: 0.51, dog: 0.41 },
        people(5, 0.47, 0.72),
        undefined,
      ],
    ])("%o %s", async (Loader, file, dogPhoto, { person: [count, lowest, highest] }, cat) => {
      const loader = await openLoader(Loader, model(file), { class_names: cocoLabels });
      const [dog, imil, chelsea] = (await findingsOf(
        loader,
        await Promise.all(["darknet_dog.jpg", "imil_people.jpg", "chelsea.png"].map(photo)),
      )) as [Finding[], Finding[], Finding[]];

      for (const [label, score] of Object.entries(dogPhoto)) {
        const found = dog.find(({ Lb }) => Lb === label);
        expect(found, `a ${label} on darknet_dog.jpg, among ${JSON.stringify(dog)}`).toBeDefined();
        expect(Math.abs(found!.Cs - score), `${label}: ${found!.Cs} against ${score}`).toBeLessThanOrEqual(
          0.03,
        );
      }
      const persons = imil.filter(({ Lb, Cs }) => Lb === "person" && Cs >= lowest - 0.02);
      expect(persons).toHaveLength(count);
      expect(Math.abs(persons[0]!.Cs - highest)).toBeLessThanOrEqual(0.02);
      expect(Math.abs(persons.at(-1)!.Cs - lowest)).toBeLessThanOrEqual(0.02);
      if (cat === undefined) return;
      expect(chelsea[0]).toMatchObject({ Lb: "cat" });
      expect(Math.abs(chelsea[0]!.Cs - cat)).toBeLessThanOrEqual(0.02);
    });
  });

  // A second way to the same boxes, as plain as can be: the whole picture decoded, sharp's own padding, loops without a layout.
  describe("detectors agree with a direct onnxruntime reference, alone and batched", () => {
    const names = [
      "darknet_dog.jpg",
      "imil_people.jpg",
      "chelsea.png",
      "darknet_horses.jpg",
      "astronaut.png",
    ];
    const centred = { position: "centre", order: [0, 1, 2], divisor: 255 };
    const topLeft = { position: "left top", order: [2, 1, 0], divisor: 1 };

    it.each([
      [YoloModelLoader, "yolov5n/yolov5n.onnx", 640, centred, readV5, { conf: 0.25, iou: 0.7 }],
      [YoloModelLoader, "yolov8n/yolov8n.onnx", 640, centred, readV8, { conf: 0.25, iou: 0.7 }],
      [
        YoloxModelLoader,
        "yolox_nano/yolox_nano_dynbatch.onnx",
        416,
        topLeft,
        readYolox,
        { conf: 0.25, iou: 0.45 },
      ],
    ] as const)("%o %s", async (Loader, file, side, fit, read, { conf, iou }) => {
      const loader = await openLoader(Loader, model(file), { class_names: cocoLabels });
      const session = await InferenceSession.create(model(file));
      onTestFinished(() => session.release());
      const pictures = await Promise.all(names.map(photo));
      const inBatches = await findingsOf(loader, pictures);
      for (const [at, picture] of pictures.entries()) {
        const expected = await reference(session, picture, side, fit, read, conf, iou);
        expect(expected.length, `boxes of the reference on ${names[at]}`).toBeGreaterThan(0);
        expectSameBoxes(inBatches[at]!, expected, conf, `${names[at]}, batched`);
        const [alone] = await findingsOf(loader, [picture]);
        expectSameBoxes(alone!, expected, conf, `${names[at]}, alone`);
      }
    });
  });

  it("a detector keeps only the classes and scores that were asked for", async () => {
    const loader = await openLoader(YoloModelLoader, model("yolov8n/yolov8n.onnx"), {
      class_names: cocoLabels,
      classes: ["dog", 1],
    });
    const dog = await photo("darknet_dog.jpg");
    const labels = async (keys: PredictionRequest) =>
      (await findingsOf(loader, [dog], keys))[0]!.map(({ Lb }) => Lb);
    expect(loader.describe().labels).toEqual(["bicycle", "dog"]);
    expect(await labels({})).toEqual(["dog", "bicycle"]);
    expect(await labels({ C_threshold: "0.92" })).toEqual(["dog"]);
    expect(await labels({ C_threshold: 0.99 })).toEqual([]);
    await expect(labels({ C_threshold: "high" })).rejects.toThrow("C_threshold must be a number from 0 to 1");
  });

  it("CenterNet finds the shepherd and three sheep of the sample photo", async (context) => {
    const file = findSamplePhoto("march-pastoral");
    if (!file) context.skip("the package of the sample photo is not installed");
    const loader = await openLoader(CenterNetModelLoader, model("npm_human/centernet.onnx"), {
      class_names: cocoLabels,
    });
    const [findings] = await findingsOf(loader, [await readFile(file!)]);
    // The scores of the same weights in Python, of the photo resized by Pillow (LANCZOS).
    const expected = { person: [0.531], sheep: [0.585, 0.461, 0.442] };
    for (const [label, scores] of Object.entries(expected)) {
      const found = findings!.filter(({ Lb }) => Lb === label).map(({ Cs }) => Cs);
      for (const [at, score] of scores.entries())
        expect(Math.abs(found[at]! - score), `${label}: ${found.join(", ")}`).toBeLessThanOrEqual(0.01);
    }
  });
});

interface Reference {
  label: string;
  score: number;
  box: Box;
}
type Raw = { score: number; classIndex: number; x: number; y: number; w: number; h: number };
type ReadRaw = (output: Float32Array, box: number, boxes: number) => Raw;

function best(scores: number[]): { score: number; classIndex: number } {
  const score = Math.max(...scores);
  return { score, classIndex: scores.indexOf(score) };
}

function readV5(output: Float32Array, box: number): Raw {
  const [x, y, w, h, objectness, ...classes] = output.slice(box * 85, box * 85 + 85) as unknown as [
    number,
    number,
    number,
    number,
    number,
    ...number[],
  ];
  const { score, classIndex } = best(classes);
  return { x, y, w, h, classIndex, score: score * objectness };
}

function readV8(output: Float32Array, box: number, boxes: number): Raw {
  const feature = (index: number) => output[index * boxes + box]!;
  const classes = Array.from({ length: 80 }, (_, index) => feature(4 + index));
  return { x: feature(0), y: feature(1), w: feature(2), h: feature(3), ...best(classes) };
}

function readYolox(output: Float32Array, box: number, boxes: number): Raw {
  expect(boxes).toBe(52 * 52 + 26 * 26 + 13 * 13);
  const [stride, columns, cell] =
    box < 2704 ? [8, 52, box] : box < 2704 + 676 ? [16, 26, box - 2704] : ([32, 13, box - 3380] as const);
  const raw = readV5(output, box);
  return {
    ...raw,
    x: (raw.x + (cell % columns)) * stride,
    y: (raw.y + Math.floor(cell / columns)) * stride,
    w: Math.exp(raw.w) * stride,
    h: Math.exp(raw.h) * stride,
  };
}

async function reference(
  session: InferenceSession,
  picture: Buffer,
  side: number,
  { position, order, divisor }: { position: string; order: readonly number[]; divisor: number },
  read: ReadRaw,
  conf: number,
  iou: number,
): Promise<Reference[]> {
  const { width, height } = await sharp(picture).metadata();
  const scale = Math.min(side / width, side / height);
  const whole = position === "centre" ? Math.round : Math.floor;
  const [newWidth, newHeight] = [whole(width * scale), whole(height * scale)];
  const left = position === "centre" ? Math.floor((side - newWidth) / 2) : 0;
  const top = position === "centre" ? Math.floor((side - newHeight) / 2) : 0;
  const padding = { left, top, right: side - newWidth - left, bottom: side - newHeight - top };
  // Pillow's resize (test/unit/loaders/resizing.test.ts compares it with Pillow's own numbers).
  const resized = resample(
    await sharp(picture, { ignoreIcc: true }).removeAlpha().raw().toBuffer(),
    { from: width, size: newWidth, start: 0, count: newWidth },
    { from: height, size: newHeight, start: 0, count: newHeight },
    "linear",
  );
  const pixels = await sharp(resized, { raw: { width: newWidth, height: newHeight, channels: 3 } })
    .extend({ ...padding, background: { r: 114, g: 114, b: 114 } })
    .raw()
    .toBuffer();
  const tensorData = new Float32Array(3 * side * side);
  for (let channel = 0; channel < 3; channel++) {
    for (let pixel = 0; pixel < side * side; pixel++) {
      tensorData[channel * side * side + pixel] = pixels[pixel * 3 + order[channel]!]! / divisor;
    }
  }
  const outputs = await session.run({
    [session.inputNames[0]!]: new Tensor("float32", tensorData, [1, 3, side, side]),
  });
  const output = outputs[session.outputNames[0]!]!;
  const boxes = Math.max(output.dims[1]!, output.dims[2]!);

  const found: Reference[] = [];
  for (let index = 0; index < boxes; index++) {
    const { x, y, w, h, score, classIndex } = read(output.data as Float32Array, index, boxes);
    const box = { X: x - w / 2, Y: y - h / 2, W: w, H: h };
    if (score >= conf) found.push({ label: cocoLabels[classIndex]!, score, box });
  }
  const kept: Reference[] = [];
  for (const candidate of found.toSorted((a, b) => b.score - a.score)) {
    if (kept.every((other) => other.label !== candidate.label || overlap(other.box, candidate.box) <= iou))
      kept.push(candidate);
  }
  return kept.map(({ box, ...rest }) => {
    const limit = (value: number, most: number) => Math.min(1, Math.max(0, value / scale / most));
    const X = limit(box.X - left, width);
    const Y = limit(box.Y - top, height);
    return {
      ...rest,
      box: { X, Y, W: limit(box.X + box.W - left, width) - X, H: limit(box.Y + box.H - top, height) - Y },
    };
  });
}

function overlap(a: Box, b: Box): number {
  const width = Math.max(0, Math.min(a.X + a.W, b.X + b.W) - Math.max(a.X, b.X));
  const height = Math.max(0, Math.min(a.Y + a.H, b.Y + b.H) - Math.max(a.Y, b.Y));
  return (width * height) / (a.W * a.H + b.W * b.H - width * height);
}

/** Every box has its twin on the other side; only one whose score is within 0.03 of the threshold may lack it. */
function expectSameBoxes(
  findings: readonly Finding[],
  expected: readonly Reference[],
  conf: number,
  where: string,
) {
  const actual = findings.map(({ Lb, Cs, Dm }) => ({ label: Lb, score: Cs, box: Dm as Box }));
  for (const [ours, theirs] of [
    [actual, expected],
    [expected, actual],
  ] as const) {
    for (const one of ours.filter(({ score }) => score >= conf + 0.03)) {
      const twin = theirs.find(
        ({ label, score, box }) =>
          label === one.label && Math.abs(score - one.score) <= 0.03 && overlap(box, one.box) >= 0.9,
      );
      expect(
        twin,
        `${where}: ${JSON.stringify(one)} has no twin among ${JSON.stringify(theirs)}`,
      ).toBeDefined();
    }
  }
}

describe("scores of a classifier", () => {
  let folder: string;
  let picture: Buffer;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "infermill-classifier-"));
    picture = await sharp({ create: { width: 8, height: 8, channels: 3, background: "#000000" } })
      .png()
      .toBuffer();
  });
  afterAll(() => rm(folder, { recursive: true }));

  /** A model that puts out `values` for a black picture (mean 0, std 1), sent through `last`. */
  async function classifier(values: number[], last: OnnxNode[], settings: Partial<ModelSection> = {}) {
    const file = path.join(folder, `${values.join("_")}-${last.map(({ opType }) => opType).join("-")}.onnx`);
    await writeFile(
      file,
      encodeModel({
        opset: 13,
        name: "constant",
        inputs: [valueInfo("x", "float32", ["batch", 3, 8, 8])],
        outputs: [valueInfo("out", "float32", ["batch", values.length])],
        nodes: [
          node("GlobalAveragePool", ["x"], ["pooled"]),
          node("Flatten", ["pooled"], ["flat"]),
          node("MatMul", ["flat", "weights"], ["zeros"]),
          node("Add", ["zeros", "values"], ["logits"]),
          ...last,
        ],
        initializers: [
          tensor("weights", [3, values.length], new Float32Array(3 * values.length)),
          tensor("values", [values.length], Float32Array.from(values)),
        ],
      }),
    );
    return openLoader(ImageClassificationModelLoader, file, { mean: [0, 0, 0], std: [1, 1, 1], ...settings });
  }
  const scoresOf = async (loader: OnnxPictureModelLoader, C_threshold = 0) =>
    (await findingsOf(loader, [picture], { C_threshold }))[0]!.map(({ Cs, Lb }) => [Lb, Cs]);

  it("are the softmax of logits, with two places, best first", async () => {
    // e^0 : e^1 : e^2 = 1 : 2.718 : 7.389
    const loader = await classifier([0, 2, 1], [node("Identity", ["logits"], ["out"])], {
      class_names: ["a", "b", "c"],
    });
    expect(await scoresOf(loader)).toEqual([
      ["b", 0.67],
      ["c", 0.24],
      ["a", 0.09],
    ]);
    expect(await scoresOf(loader, 0.2)).toEqual([
      ["b", 0.67],
      ["c", 0.24],
    ]);
  });

  it("are what the graph's own softmax says, also where it is hidden behind a change of form", async () => {
    const last = [node("Softmax", ["logits"], ["p"], { axis: 1 }), node("Identity", ["p"], ["out"])];
    expect(await scoresOf(await classifier([0, 2, 1], last))).toEqual([
      ["1", 0.67],
      ["2", 0.24],
      ["0", 0.09],
    ]);
    expect(
      await scoresOf(await classifier([0, 2, 1], [node("LogSoftmax", ["logits"], ["out"], { axis: 1 })])),
    ).toEqual([
      ["1", 0.67],
      ["2", 0.24],
      ["0", 0.09],
    ]);
  });

  it("of a sigmoid stay as they are, although their sum is not 1", async () => {
    // 1 ÷ (1 + e^-x)
    expect(await scoresOf(await classifier([0, 2, 1], [node("Sigmoid", ["logits"], ["out"])]))).toEqual([
      ["1", 0.88],
      ["2", 0.73],
      ["0", 0.5],
    ]);
  });

  it("of a softmax spelt out in other operators are known by their sum", async () => {
    expect(
      await scoresOf(
        await classifier(
          [0.7, 0.1, 0.2],
          [node("Mul", ["logits", "logits"], ["unused"]), node("Relu", ["logits"], ["out"])],
        ),
      ),
    ).toEqual([
      ["0", 0.7],
      ["2", 0.2],
      ["1", 0.1],
    ]);
  });

  it("follow `activation` where it is given", async () => {
    const last = [node("Relu", ["logits"], ["out"])];
    expect(await scoresOf(await classifier([0, 1, 0], last, { activation: "none" }))).toEqual([
      ["1", 1],
      ["0", 0],
      ["2", 0],
    ]);
    expect(await scoresOf(await classifier([0, 1, 0], last, { activation: "softmax" }))).toEqual([
      ["1", 0.58],
      ["0", 0.21],
      ["2", 0.21],
    ]);
  });

  it("must be as many as the labels", async () => {
    await expect(
      classifier([0, 2, 1], [node("Identity", ["logits"], ["out"])], { class_names: ["cat", "dog"] }),
    ).rejects.toThrow('the output "out" of shape [batch, 3] has 3 scores, class_names has 2 labels');
  });
});

it("the reference photos lie where the models do", (context) => {
  context.skip(!sharedModels, noSharedModels);
  expect(sharedPhotos && existsSync(sharedPhotos)).toBe(true);
});
