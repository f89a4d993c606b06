/**
 * Every row of IMIL's two tables: each section of its mil_config.json becomes the model that it means, and each of its
 * built-in loaders computes what it should, from the section to the response. What a model puts out here follows from
 * what it gets by arithmetic that the test does, too, unless it is a reference model with answers of its own.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import {
  closeModels,
  executeModel,
  readClipTokenizer,
  softmax,
  type Box,
  type Finding,
  type PredictionRequest,
} from "../../../src/index.ts";
import {
  encodeModel,
  node,
  tensor,
  valueInfo,
  type OnnxModel,
  type OnnxNode,
  type OnnxTensor,
} from "../../../src/models/onnxProto.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-table-"));
afterEach(closeModels);
afterAll(() => rmSync(folder, { recursive: true }));

type Section = Record<string, unknown>;

async function milConfig(name: string, section: Section): Promise<string> {
  const file = join(folder, `${crypto.randomUUID()}.json`);
  const executor = { model_name: name, model_loader_file: "default" };
  await writeFile(file, JSON.stringify({ ModelExecutor: executor, [name]: section }));
  return file;
}

/** The findings of a picture, all the way from a section of mil_config.json. */
async function findingsOf(
  name: string,
  section: Section,
  picture: Buffer,
  keys: PredictionRequest = {},
): Promise<Finding[]> {
  const config = await milConfig(name, section);
  const response = await executeModel(
    { Model: name, Base_64: picture.toString("base64"), ...keys },
    { config },
  );
  expect(response).toMatchObject({ Rc: "200", Rm: "Success" });
  return response.Fs;
}

async function modelFile(name: string, model: OnnxModel): Promise<string> {
  await writeFile(join(folder, `${name}.onnx`), encodeModel(model));
  return `${name}.onnx`;
}

/** A blue that has some green in it: shares of plain colours would sum to 1, as probabilities do. */
const BLUE = [0, 96 / 255, 1];

/** Two columns of colour: `share` of the width is red, the rest is blue. */
async function redAndBlue(width: number, height: number, share: number): Promise<Buffer> {
  const plain = (columns: number, background: string) =>
    sharp({ create: { width: columns, height, channels: 3, background } }).png();
  const red = await plain(Math.round(width * share), "#ff0000").toBuffer();
  return plain(width, "#0060ff")
    .composite([{ input: red, left: 0, top: 0 }])
    .toBuffer();
}

/** Puts out the mean of each colour channel: three classes, red, green and blue. */
function channelMeans(layout: "nchw" | "nhwc", options: { endsInSoftmax?: boolean } = {}): OnnxModel {
  const shape = layout === "nchw" ? ["n", 3, 32, 32] : ["n", 32, 32, 3];
  const means = node("ReduceMean", ["input"], ["means"], {
    axes: layout === "nchw" ? [2, 3] : [1, 2],
    keepdims: 0,
  });
  const nodes = options.endsInSoftmax
    ? [means, node("Softmax", ["means"], ["scores"], { axis: 1 })]
    : [means];
  return {
    opset: 13,
    name: "means",
    inputs: [valueInfo("input", "float32", shape)],
    outputs: [valueInfo(options.endsInSoftmax ? "scores" : "means", "float32", ["n", 3])],
    nodes,
    initializers: [],
  };
}

const twoPlaces = (value: number) => Math.round(value * 100) / 100;
const scoresOf = (findings: readonly Finding[]) => Object.fromEntries(findings.map(({ Lb, Cs }) => [Lb, Cs]));

describe("mil_config.json", () => {
  const model_path = ["model.onnx"];
  test.each<[string, Section, Section]>([
    [
      "CocoObjectDetection_De",
      { name: "fasterrcnn_resnet50_fpn", model_path, classes: ["person", 3] },
      { loader: "DetectoModelLoader", model_path, classes: ["person", 3] },
    ],
    [
      "PyTorch",
      {
        name: "resnet50",
        category: "image_classification",
        model_path,
        class_names: ["imagenet"],
        classes: ["espresso"],
        input_image_size: [224, 200],
        device: "cuda",
      },
      {
        loader: "ImageClassificationModelLoader",
        model_path,
        class_names: ["imagenet"],
        classes: ["espresso"],
        input_image_size: [224, 200],
        device: "cuda",
      },
    ],
    [
      "PyTorch",
      {
        name: "ssd",
        category: "object_detection",
        model_path,
        class_names: ["fire", "smoke"],
        classes: [],
        device: "cpu",
      },
      { loader: "DetectoModelLoader", model_path, class_names: ["fire", "smoke"], device: "cpu" },
    ],
    [
      "Tensorflow",
      {
        name: "mobilenetv2",
        model_path,
        class_names: ["imagenet"],
        classes: [],
        input_image_size: [224, 224],
        device: "cpu",
      },
      {
        loader: "ImageClassificationModelLoader",
        class_names: ["imagenet"],
        input_image_size: [224, 224],
        mean: [0, 0, 0],
        std: [1, 1, 1],
      },
    ],
    [
      "CocoObjectDetection_Y5",
      { model_path, device: "cpu", conf_thres: 0.25, iou_thres: 0.7, classes: [0, 1, 39] },
      {
        loader: "YoloModelLoader",
        class_names: ["coco"],
        conf_thres: 0.25,
        iou_thres: 0.7,
        classes: [0, 1, 39],
      },
    ],
    [
      "CocoObjectDetection_Y8",
      { model_path, device: "cuda", conf_thres: 0.3, iou_thres: 0.6, classes: [] },
      { loader: "YoloModelLoader", class_names: ["coco"], conf_thres: 0.3, iou_thres: 0.6, device: "cuda" },
    ],
    [
      "CocoObjectDetection_Y7",
      {
        yolo_path: "yolov7",
        model_path,
        device: "cpu",
        img_size: 640,
        conf_thres: 0.25,
        iou_thres: 0.7,
        classes: [],
      },
      { loader: "YoloModelLoader", class_names: ["coco"], input_image_size: [640, 640], conf_thres: 0.25 },
    ],
    [
      "PoseEstimation_Y7",
      { model_path, img_size: 960 },
      { loader: "PoseEstimationModelLoader", input_image_size: [960, 960] },
    ],
    [
      "FacialExpressionRecognition",
      { model_path: ["faces.onnx", "expressions.onnx"] },
      { loader: "FacialExpressionRecognitionModelLoader", model_path: ["faces.onnx", "expressions.onnx"] },
    ],
    [
      "CustomDetectoModelLoader",
      { name: "fasterrcnn_resnet50_fpn", model_path, classes: "", model_loader_file: "custom.ts" },
      { loader: "CustomDetectoModelLoader", model_loader_file: "custom.ts", model_path, classes: [] },
    ],
    [
      "CustomClipModelLoader",
      { clip_model: "ViT-B/32", model_path: [""], device: "cpu", model_loader_file: "custom.ts" },
      {
        loader: "CustomClipModelLoader",
        model_loader_file: "custom.ts",
        clip_model: "ViT-B/32",
        model_path: [],
      },
    ],
  ])("%s", async (name, section, expected) => {
    const { models } = await loadConfig({ file: await milConfig(name, section), env: {} });
    expect(models[name]).toMatchObject(expected);
    for (const key of ["category", "yolo_path", "img_size"]) expect(models[name]).not.toHaveProperty(key);
  });
});

describe("what each built-in loader computes", () => {
  const labels = ["red", "green", "blue"];
  // A centre crop of this picture would see other shares of its colours.
  const picture = redAndBlue(256, 64, 0.25);
  const means = BLUE.map((value, channel) => 0.75 * value + (channel === 0 ? 0.25 : 0));

  test.each([
    ["logits", false],
    ["a softmax", true],
  ])("PyTorch image_classification, of a graph that ends in %s", async (_name, endsInSoftmax) => {
    const section = {
      category: "image_classification",
      model_path: [await modelFile(`nchw${endsInSoftmax}`, channelMeans("nchw", { endsInSoftmax }))],
      class_names: labels,
      classes: [],
      input_image_size: [32, 32],
      device: "cpu",
    };
    const [mean, std] = [
      [0.485, 0.456, 0.406],
      [0.229, 0.224, 0.225],
    ];
    const expected = softmax(means.map((value, channel) => (value - mean[channel]!) / std[channel]!));
    const findings = await findingsOf("PyTorch", section, await picture, { C_threshold: 0 });
    for (const [index, label] of labels.entries()) {
      expect(Math.abs(scoresOf(findings)[label]! - expected[index]!), label).toBeLessThanOrEqual(0.02);
    }
    for (const { Cs, Dm } of findings) expect([Cs, Dm]).toEqual([twoPlaces(Cs), {}]);

    const best = await findingsOf("PyTorch", { ...section, classes: ["red", "blue"] }, await picture, {
      C_threshold: "0.5",
    });
    expect(best.map(({ Lb }) => Lb)).toEqual(["blue"]);
  });

  test("Tensorflow", async () => {
    const section = {
      model_path: [await modelFile("nhwc", channelMeans("nhwc"))],
      class_names: labels,
      classes: ["red", "blue"],
      input_image_size: [32, 32],
      device: "cpu",
    };
    const expected = softmax(means);
    const findings = await findingsOf("Tensorflow", section, await picture, { C_threshold: 0 });
    expect(Object.keys(scoresOf(findings))).toEqual(["blue", "red"]);
    expect(Math.abs(scoresOf(findings)["blue"]! - expected[2]!)).toBeLessThanOrEqual(0.01);
    expect(Math.abs(scoresOf(findings)["red"]! - expected[0]!)).toBeLessThanOrEqual(0.01);
  });

  const whyNoModels = sharedModels && sharedPhotos ? undefined : noSharedModels;

  test.skipIf(whyNoModels).each([
    ["CocoObjectDetection_De", { classes: [1] }],
    ["PyTorch", { category: "object_detection", class_names: ["coco"], classes: ["person"], device: "cpu" }],
  ])("PyTorch object_detection, Detecto: %s", async (name, section) => {
    const people = await readFile(join(sharedPhotos!, "imil_people.jpg"));
    const model_path = [join(sharedModels!, "detecto_style/detecto_style_yolox_nano.onnx")];
    const findings = await findingsOf(name, { ...section, model_path }, people, { C_threshold: 0.85 });
    // NOTES.json: person .88 .87 .85 .83 .82, potted plant .59
    expect(findings.map(({ Lb }) => Lb)).toEqual(["person", "person", "person"]);
    for (const [index, score] of [0.88, 0.87, 0.85].entries())
      expect(Math.abs(findings[index]!.Cs - score)).toBeLessThanOrEqual(0.01);
    for (const { Dm } of findings) {
      const { X, Y, W, H } = Dm as Box;
      expect(Math.min(X, Y, W, H)).toBeGreaterThan(0);
      expect(Math.max(X + W, Y + H)).toBeLessThanOrEqual(1);
    }
  });

  /** Side of the tensor, and the boxes that YOLO has for it in the grids of stride 8, 16 and 32. */
  const SIDE = 96;
  const CELLS = 12 ** 2 + 6 ** 2 + 3 ** 2;

  /**
   * A detector that always finds the same boxes; where `scored` is 1 it adds the mean of the red channel of the tensor,
   * padding included, so that the scores tell how pictures became numbers.
   */
  function detector(shape: number[], boxes: Float32Array, scored: Float32Array): OnnxModel {
    const initializers: OnnxTensor[] = [
      tensor("red", [3, 1], Float32Array.of(1, 0, 0)),
      tensor("last", [1], BigInt64Array.of(2n)),
      tensor("boxes", shape, boxes),
      tensor("scored", shape, scored),
    ];
    const nodes: OnnxNode[] = [
      node("ReduceMean", ["images"], ["means"], { axes: [2, 3], keepdims: 0 }),
      node("MatMul", ["means", "red"], ["red_mean"]),
      node("Unsqueeze", ["red_mean", "last"], ["score"]),
      node("Mul", ["scored", "score"], ["scores"]),
      node("Add", ["boxes", "scores"], ["output"]),
    ];
    return {
      opset: 13,
      name: "detector",
      inputs: [valueInfo("images", "float32", [1, 3, SIDE, SIDE])],
      outputs: [valueInfo("output", "float32", shape)],
      nodes,
      initializers,
    };
  }

  /** Fills one feature of one box, whichever axis comes first. */
  function writer(boxCount: number, features: number, featuresFirst: boolean) {
    const [boxes, scored] = [new Float32Array(boxCount * features), new Float32Array(boxCount * features)];
    const at = (box: number, feature: number) =>
      featuresFirst ? feature * boxCount + box : box * features + feature;
    return {
      boxes,
      scored,
      shape: featuresFirst ? [1, features, boxCount] : [1, boxCount, features],
      set: (box: number, values: readonly number[], from = 0) =>
        values.forEach((value, index) => (boxes[at(box, from + index)] = value)),
      score: (box: number, feature: number) => (scored[at(box, feature)] = 1),
    };
  }

  // Twice as wide as high: in a square tensor half of it, with a quarter of padding (114) above and below.
  const wide = sharp({ create: { width: 192, height: 96, channels: 3, background: "#ff0000" } })
    .png()
    .toBuffer();
  const redMean = 0.5 * 1 + 0.5 * (114 / 255);
  const [PERSON, BOTTLE] = [0, 39];

  test.each([
    ["v5", "CocoObjectDetection_Y5", true],
    ["v7", "CocoObjectDetection_Y7", true],
    ["v8", "CocoObjectDetection_Y8", false],
  ])("YOLO %s", async (version, name, hasObjectness) => {
    const first = hasObjectness ? 5 : 4;
    const output = writer(hasObjectness ? 3 * CELLS : CELLS, first + 80, !hasObjectness);
    /** Centre and size in pixels of the tensor. */
    const found = (box: number, place: number[], classIndex: number, score: number) => {
      output.set(box, place);
      output.set(box, [score], first + classIndex);
      if (hasObjectness) output.score(box, 4);
    };
    found(0, [48, 48, 48, 24], PERSON, hasObjectness ? 1 : redMean);
    // IoU 23/25 with the first: of one class it goes, of another it stays.
    found(1, [48, 49, 48, 24], PERSON, 0.9 * redMean);
    found(2, [48, 49, 48, 24], BOTTLE, 0.9);
    found(3, [24, 48, 48, 48], 2, 0.95);
    if (!hasObjectness) {
      output.set(0, [0], first + PERSON);
      output.score(0, first + PERSON);
    }
    const section = {
      model_path: [await modelFile(version, detector(output.shape, output.boxes, output.scored))],
      device: "cpu",
      conf_thres: 0.25,
      iou_thres: 0.7,
      classes: [PERSON, BOTTLE],
      img_size: SIDE,
    };
    const findings = await findingsOf(name, section, await wide, { C_threshold: 0.3 });
    expect(findings.map(({ Lb }) => Lb).toSorted()).toEqual(["bottle", "person"]);
    const person = findings.find(({ Lb }) => Lb === "person")!;
    expect(Math.abs(person.Cs - redMean)).toBeLessThan(0.005);
    // 24 of 48 pixels of the tensor are above and below the picture.
    expect(person.Dm).toEqual({ X: 0.25, Y: 0.25, W: 0.5, H: 0.5 });
    expect(await findingsOf(name, section, await wide, { C_threshold: 0.99 })).toEqual([]);
  });

  test("PoseEstimation_Y7", async () => {
    const output = writer(3 * CELLS, 6 + 3 * 17, false);
    output.set(0, [48, 48, 48, 24, 0, 1]);
    output.score(0, 4);
    const points = Array.from({ length: 17 }, (_, index) => [24 + index, 36 + index, 0.5]);
    output.set(0, points.flat(), 6);
    const file = await modelFile("pose", detector(output.shape, output.boxes, output.scored));
    const section = { model_path: [file], img_size: SIDE };
    const [person, ...others] = await findingsOf("PoseEstimation_Y7", section, await wide, {
      C_threshold: 0.3,
    });
    expect(others).toEqual([]);
    expect(person).toMatchObject({ Lb: "person", Dm: { X: 0.25, Y: 0.25, W: 0.5, H: 0.5 } });
    expect(Object.keys(person!.Kp!)).toEqual(points.map((_, index) => String(index + 1)));
    for (const [index, [x, y, score]] of points.entries()) {
      const [atX, atY, z, certainty] = person!.Kp![String(index + 1)]!;
      expect([z, certainty]).toEqual([0, score]);
      expect(atX).toBeCloseTo(x! / 96, 3);
      expect(atY).toBeCloseTo((y! - 24) / 48, 3);
    }
  });

  test.skipIf(whyNoModels)("FacialExpressionRecognition", async () => {
    const model_path = [
      join(sharedModels!, "ultraface/version-RFB-640.onnx"),
      join(sharedModels!, "fer_mini_xception/fer2013_mini_XCEPTION.102-0.66.onnx"),
    ];
    const astronaut = await readFile(join(sharedPhotos!, "astronaut.png"));
    const [face, ...others] = await findingsOf("FacialExpressionRecognition", { model_path }, astronaut, {
      C_threshold: 0.5,
    });
    expect(others).toEqual([]);
    expect(face!.Lb).toBe("happy");
    expect(face!.Cs).toBeGreaterThan(0.95);
    // NOTES.json: one face at [179, 54, 269, 175] of 512 pixels.
    const { X, Y, W, H } = face!.Dm as Box;
    for (const [side, pixels] of [
      [X, 179],
      [Y, 54],
      [X + W, 269],
      [Y + H, 175],
    ] as const)
      expect(Math.abs(side * 512 - pixels)).toBeLessThan(12);
  });

  test.skipIf(whyNoModels)("CLIP", async () => {
    const vocabulary = join(sharedModels!, "clip_tokenizer/bpe_simple_vocab_16e6.txt.gz");
    const tokenise = await readClipTokenizer(vocabulary);
    // Each colour's word points to the channel that it names, seen from the picture's mean.
    const directions = new Map([
      ["red", [1, 0, 0]],
      ["green", [0, 1, 0]],
      ["blue", [0, 0, 1]],
    ]);
    const table = new Float32Array(49_408 * 3).fill(0.01);
    for (const [word, direction] of directions) table.set(direction, 3 * tokenise(word)[1]!);
    const text: OnnxModel = {
      opset: 13,
      name: "text",
      inputs: [valueInfo("input_ids", "int64", ["n", 77])],
      outputs: [valueInfo("text_embeds", "float32", ["n", 3])],
      nodes: [
        node("Gather", ["input_ids", "second"], ["word"], { axis: 1 }),
        node("Gather", ["table", "word"], ["vectors"], { axis: 0 }),
        node("Squeeze", ["vectors", "second"], ["text_embeds"]),
      ],
      initializers: [tensor("second", [1], BigInt64Array.of(1n)), tensor("table", [49_408, 3], table)],
    };
    const image = {
      ...channelMeans("nchw"),
      inputs: [valueInfo("input", "float32", ["n", 3, 224, 224])],
    };
    const section = {
      loader: "ClipModelLoader",
      clip_model: "ViT-B/32",
      model_path: [await modelFile("image", image), await modelFile("text", text), vocabulary],
      device: "cpu",
    };
    // Wide, and red at its left end only: the centre crop sees nothing but blue, a little darker than white.
    const wideBlue = await redAndBlue(640, 320, 0.25);
    const [mean, std] = [
      [0.48145466, 0.4578275, 0.40821073],
      [0.26862954, 0.26130258, 0.27577711],
    ];
    const pixels = BLUE.map((value, channel) => (value - mean[channel]!) / std[channel]!);
    const length = Math.hypot(...pixels);
    const words = [...directions.keys()];
    const expected = softmax(pixels.map((value) => (100 * value) / length));
    const findings = await findingsOf("CustomClipModelLoader", section, wideBlue, {
      Prompt: [words],
      C_threshold: 0,
    });
    expect(Object.keys(scoresOf(findings)).toSorted()).toEqual(words.toSorted());
    for (const [index, word] of words.entries()) {
      expect(Math.abs(scoresOf(findings)[word]! - expected[index]!), word).toBeLessThan(0.001);
    }
    for (const { Dm } of findings) expect(Dm).toEqual({});
    const best = await findingsOf("CustomClipModelLoader", section, wideBlue, {
      Prompt: [words],
      C_threshold: 0.5,
    });
    expect(best).toEqual([{ Cs: 1, Lb: "blue", Dm: {} }]);
  });
});
