import { readFile } from "node:fs/promises";
import path from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { ImplausibleOutputError } from "../../../../src/errors.ts";
import { ImageClassificationModelLoader, YoloModelLoader, type Finding } from "../../../../src/index.ts";
import { openLoader, predictBatch, predictOne } from "../../../support/loaders.ts";
import { sharedField, sharedModels, sharedPhotos } from "../../../support/sharedModels.ts";

const field = (name: string) => path.join(sharedField!, name);
const any = (name: string) => path.join(sharedModels!, "any", name);
const COLOURS = ["red", "green", "blue", "bright"];
const plain = (colour: string, side = 64) =>
  sharp({ create: { width: side, height: side, channels: 3, background: colour } })
    .png()
    .toBuffer();

describe.skipIf(!sharedField)("the rows of field/NOTES.md about classifiers", () => {
  const red = () => readFile(field("cmyk/rgb.jpg"));
  const open = (file: string, settings = {}) =>
    openLoader(ImageClassificationModelLoader, [field(file)], { class_names: COLOURS, ...settings });

  it.each(["uint8-scores/quantised.onnx", "fp16/half.onnx", "classifier-plain/plain.onnx"])(
    "%s",
    async (file) => {
      const [best] = await predictOne(await open(file, { scale: 1 / 255, mean: [0], std: [1] }), await red());
      expect(best).toMatchObject({ Lb: "red" });
      expect(best!.Cs).toBeGreaterThanOrEqual(0.9);
      expect(best!.Cs).toBeLessThanOrEqual(1);
    },
  );

  it("custom-vision/customvision_plain.onnx, labels.txt", async () => {
    const loader = await openLoader(
      ImageClassificationModelLoader,
      [field("custom-vision/customvision_plain.onnx")],
      { channels: "bgr", scale: 1 },
    );
    expect((await predictOne(loader, await red()))[0]).toMatchObject({ Lb: "red" });
    expect(loader.describe().facts!["labels"]).toContain("labels.txt");
  });

  it("nan-scores/overflows.onnx", async () => {
    const loader = await open("nan-scores/overflows.onnx");
    const [dark, bright] = await predictBatch(loader, [[await plain("#400000")], [await plain("#ffffff")]]);
    for (const outcome of [dark, bright]) {
      if (outcome instanceof Error) {
        expect(outcome).toBeInstanceOf(ImplausibleOutputError);
        expect(outcome.message).toContain('the output "scores" has NaN for class 0');
      } else expect(outcome!.length).toBeGreaterThan(0);
    }
    expect([dark, bright].some((outcome) => outcome instanceof Error)).toBe(true);
  });

  it("empty-scene/fails_on_nothing.onnx", async () => {
    const loader = await openLoader(YoloModelLoader, [field("empty-scene/fails_on_nothing.onnx")], {
      class_names: ["a", "b"],
    });
    const outcomes = await predictBatch(loader, [
      [await plain("#000000", 320)],
      [await plain("#ffffff", 320)],
    ]);
    expect(outcomes.filter((outcome) => outcome instanceof Error)).toHaveLength(1);
  });

  it("fixed-reshape/mnist_like.onnx", async () => {
    const loader = await open("fixed-reshape/mnist_like.onnx", { max_batch_size: 8 });
    expect(loader.batchLimit).toBe(1);
    expect(loader.describe().notes!.join()).toContain("max_batch_size");
    const outcomes = await predictBatch(loader, [[await red()], [await red()]]);
    expect(outcomes.every((outcome) => !(outcome instanceof Error))).toBe(true);
  });

  it.each(["dynamic_int8.onnx", "float.onnx"])("dynquant-batch/%s", async (file) => {
    const loader = await open(`dynquant-batch/${file}`, { conf_thres: 0 });
    const pictures = [await plain("#ff0000"), await plain("#0000ff"), await plain("#ffffff")];
    const alone: unknown[] = [];
    for (const picture of pictures) alone.push(await predictOne(loader, picture));
    expect(
      await predictBatch(
        loader,
        pictures.map((picture) => [picture]),
      ),
    ).toEqual(alone);
  });
});

describe.skipIf(!sharedModels || !sharedPhotos)("the classifiers of models/any", () => {
  const expected = async (name: string) =>
    (JSON.parse(await readFile(path.join(any(name), "expected.json"), "utf8")) as { Fs: Finding[] }).Fs;
  const dog = () => readFile(path.join(sharedPhotos!, "darknet_dog.jpg"));

  it.each([
    ["vit_pixel_values", { class_names: ["a", "b", "c", "d", "e"], mean: [0.5], std: [0.5] }],
    ["fp16_classifier", {}],
  ])("%s", async (name, settings) => {
    const loader = await openLoader(ImageClassificationModelLoader, [path.join(any(name), "model.onnx")], {
      conf_thres: 0,
      ...settings,
    });
    const found = await predictOne(loader, await dog());
    const Fs = await expected(name);
    expect(found.map(({ Lb }) => Lb)).toEqual(Fs.map(({ Lb }) => Lb));
    for (const [index, { Cs }] of found.entries()) expect(Math.abs(Cs - Fs[index]!.Cs)).toBeLessThan(0.05);
  });

  it("rapidocr_cls", async () => {
    const loader = await openLoader(
      ImageClassificationModelLoader,
      [path.join(any("rapidocr_cls"), "model.onnx")],
      {
        class_names: ["0", "180"],
        input_image_size: [192, 48],
        channels: "bgr",
        mean: [0.5],
        std: [0.5],
      },
    );
    for (const [picture, label] of [
      ["line.png", "0"],
      ["line180.png", "180"],
    ] as const) {
      const [best] = await predictOne(loader, await readFile(any(`_inputs/${picture}`)));
      expect(best).toEqual({ Cs: 1, Lb: label, Dm: {} });
    }
  });

  it("multilabel_logits", async () => {
    const loader = await openLoader(
      ImageClassificationModelLoader,
      [path.join(any("multilabel_logits"), "model.onnx")],
      { activation: "sigmoid", conf_thres: 0 },
    );
    const found = await predictOne(loader, await dog());
    expect(found).toHaveLength(6);
    expect(found.reduce((sum, { Cs }) => sum + Cs, 0)).not.toBeCloseTo(1, 1);
  });
});
