import { readFile } from "node:fs/promises";
import path from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { modelSchema } from "../../../src/config/schema.ts";
import { DetectoModelLoader, type Finding } from "../../../src/index.ts";
import { coco91Labels, cocoLabels } from "../../../src/loaders/labels/coco.ts";
import { checkModelSection } from "../../../src/loaders/section.ts";
import { DATA_TYPE, node, tensor, valueInfo } from "../../../src/models/onnxProto.ts";
import { detector, type Answer } from "../../support/detector.ts";
import { modelFile, openLoader, predictBatch, predictOne } from "../../support/loaders.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const plain = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: "#336699" } })
    .png()
    .toBuffer();

const dog: Answer = { box: [0.1, 0.2, 0.5, 0.6], label: 18, score: 0.5 };
const person: Answer = { box: [0.25, 0, 0.75, 1.2], label: 1, score: 0.875 };
const weak: Answer = { box: [0, 0, 0.5, 0.5], label: 90, score: 0.25 };
const labelsOf = (findings: Finding[]) => findings.map(({ Lb }) => Lb);

describe("PyTorch object_detection, Detecto: boxes, labels and scores of a torchvision detector", () => {
  it("become findings at or above the threshold, best first, boxes as fractions clipped to the picture", async () => {
    const loader = await openLoader(DetectoModelLoader, [await modelFile(detector([dog, person, weak]))]);
    expect(await predictOne(loader, await plain(300, 200))).toEqual([
      { Cs: 0.875, Lb: "person", Dm: { X: 0.25, Y: 0, W: 0.5, H: 1 } },
      { Cs: 0.5, Lb: "dog", Dm: { X: 0.1, Y: 0.2, W: 0.4, H: 0.4 } },
    ]);
    const picture = await plain(64, 64);
    expect(labelsOf(await predictOne(loader, picture, { C_threshold: "0.2" }))).toEqual([
      "person",
      "dog",
      "toothbrush",
    ]);
    expect(labelsOf(await predictOne(loader, picture, { C_threshold: 0.6 }))).toEqual(["person"]);
    await expect(predictOne(loader, picture, { C_threshold: 2 })).rejects.toThrow("C_threshold must be");
  });

  it("are filtered by label or by number from 1", async () => {
    const file = await modelFile(detector([dog, person, weak]));
    const kept = async (classes: (string | number)[]) =>
      labelsOf(
        await predictOne(await openLoader(DetectoModelLoader, [file], { classes }), await plain(9, 9), {
          C_threshold: 0,
        }),
      );
    expect(await kept([])).toEqual(["person", "dog", "toothbrush"]);
    expect(await kept(["dog"])).toEqual(["dog"]);
    expect(await kept([1])).toEqual(["person"]);
    expect(await kept([18, "toothbrush"])).toEqual(["dog", "toothbrush"]);
  });

  it("may have labels of one's own, of which the first is number 1", async () => {
    const file = await modelFile(
      detector([
        { ...dog, label: 2 },
        { ...person, label: 1 },
      ]),
    );
    for (const class_names of [
      ["fire", "smoke"],
      ["__background__", "fire", "smoke"],
    ]) {
      const loader = await openLoader(DetectoModelLoader, [file], { class_names });
      expect(labelsOf(await predictOne(loader, await plain(9, 9)))).toEqual(["fire", "smoke"]);
      expect(loader.describe().labels).toEqual(["fire", "smoke"]);
    }
    const filtered = await openLoader(DetectoModelLoader, [file], {
      class_names: ["fire", "smoke"],
      classes: [2],
    });
    expect(labelsOf(await predictOne(filtered, await plain(9, 9)))).toEqual(["smoke"]);
    const section = { loader: "DetectoModelLoader", model_path: ["m.onnx"], class_names: ["fire"] };
    const [fault] = await checkModelSection(
      "M",
      modelSchema.parse({ ...section, classes: ["smoke", 3] }),
      DetectoModelLoader,
      { baseDir: "." },
    );
    expect(fault!.problem).toContain('"smoke" is no label of the model');
    expect(fault!.problem).toContain("class 3 is out of range");
  });

  it("are COCO's 91 numbers where class_names is left out, or says coco", async () => {
    expect(DetectoModelLoader.labelsFrom([])).toBe(coco91Labels);
    expect(DetectoModelLoader.labelsFrom(cocoLabels)).toBe(coco91Labels);
    expect([1, 12, 13, 18, 27, 44, 90].map((number) => coco91Labels[number])).toEqual([
      "person",
      "N/A",
      "stop sign",
      "dog",
      "backpack",
      "bottle",
      "toothbrush",
    ]);
    expect(coco91Labels).toHaveLength(91);
  });

  it("are found by name in any order, else by type and shape", async () => {
    const picture = await plain(40, 40);
    const expected = await predictOne(
      await openLoader(DetectoModelLoader, [await modelFile(detector([dog, person]))]),
      picture,
    );
    const unnamed = detector([dog, person], {}, ["2628", "2660", "2661"]);
    const shuffled = { ...unnamed, outputs: unnamed.outputs.toReversed() };
    for (const model of [unnamed, shuffled]) {
      const loader = await openLoader(DetectoModelLoader, [await modelFile(model)]);
      expect(await predictOne(loader, picture)).toEqual(expected);
    }
  });

  it("that are missing are told with what the model has", async () => {
    const model = detector([dog]);
    const file = await modelFile({ ...model, outputs: model.outputs.slice(0, 2) });
    await expect(openLoader(DetectoModelLoader, [file])).rejects.toThrow(
      "models.Model.model_path[0]: DetectoModelLoader can't read this model: the outputs boxes [1, 4], labels [1] " +
        "with an input of 640×640 and 91 labels fit none of torchvision, tensorflow, ssd",
    );
  });
});

describe("the size of what a detector gets", () => {
  it("is the picture's own up to max_size, and input_image_size where it is set", async () => {
    const file = await modelFile(detector([{ ...person, score: null }]));
    const widthOf = async (picture: Promise<Buffer>, settings = {}) => {
      const loader = await openLoader(DetectoModelLoader, [file], { conf_thres: 0, ...settings });
      return (await predictOne(loader, await picture))[0]!.Cs * 10_000;
    };
    expect(await widthOf(plain(700, 30))).toBeCloseTo(700, 0);
    expect(await widthOf(plain(3000, 1000))).toBeCloseTo(1333, 0);
    expect(await widthOf(plain(500, 2666))).toBeCloseTo(250, 0);
    expect(await widthOf(plain(3000, 1000), { max_size: 5000 })).toBeCloseTo(3000, 0);
    expect(await widthOf(plain(3000, 1000), { input_image_size: [800, 600] })).toBeCloseTo(800, 0);
  });

  it("may be fixed: the picture stands in the top left corner and boxes come back from there", async () => {
    const fixed = detector([{ ...dog, box: [0.5, 0.125, 1, 0.25] }], {
      inputs: [valueInfo("image", "float32", [1, 3, 80, 80])],
    });
    const loader = await openLoader(DetectoModelLoader, [await modelFile(fixed)]);
    // 200×100 stands on 80×40: the box's 10 to 20 px from the top are a quarter to a half of the picture.
    expect(await predictOne(loader, await plain(200, 100))).toMatchObject([
      { Dm: { X: 0.5, Y: 0.25, W: 0.5, H: 0.25 } },
    ]);
  });

  it("lets pictures run one by one where the model has no batch axis, together where it has one", async () => {
    const alone = await openLoader(DetectoModelLoader, [await modelFile(detector([dog]))]);
    expect(alone.batchLimit).toBe(1);

    const [left, right] = [person, dog];
    // Boxes [N, 1, 4]: the means of the picture, so that each row shows which picture it belongs to.
    const batched = detector([left, right], {
      inputs: [valueInfo("image", "float32", ["batch", 3, 8, 8])],
      outputs: [
        valueInfo("boxes", "float32", ["batch", 1, 4]),
        valueInfo("labels", "int64", ["batch", 1]),
        valueInfo("scores", "float32", ["batch", 1]),
      ],
      nodes: [
        node("ReduceMean", ["image"], ["mean"], { axes: [1, 2, 3], keepdims: 0 }),
        node("Reshape", ["mean", "column"], ["scores"]),
        node("Mul", ["scores", "nothing"], ["zeros"]),
        node("Cast", ["zeros"], ["no_labels"], { to: DATA_TYPE.int64 }),
        node("Add", ["no_labels", "one"], ["labels"]),
        node("Unsqueeze", ["zeros", "last"], ["corner"]),
        node("Add", ["corner", "sides"], ["boxes"]),
      ],
      initializers: [
        tensor("column", [2], BigInt64Array.of(-1n, 1n)),
        tensor("nothing", [], Float32Array.of(0)),
        tensor("one", [], BigInt64Array.of(1n)),
        tensor("last", [1], BigInt64Array.of(2n)),
        tensor("sides", [1, 1, 4], Float32Array.of(0, 0, 4, 8)),
      ],
    });
    const together = await openLoader(DetectoModelLoader, [await modelFile(batched)], {
      conf_thres: 0,
      max_batch_size: 3,
    });
    expect(together.batchLimit).toBe(3);
    const shades = [51, 102, 255, 0].map((shade) =>
      sharp({ create: { width: 8, height: 8, channels: 3, background: { r: shade, g: shade, b: shade } } })
        .png()
        .toBuffer(),
    );
    const answers = await predictBatch(
      together,
      (await Promise.all(shades)).map((picture) => [picture]),
    );
    expect(answers).toEqual(
      [0.2, 0.4, 1, 0].map((Cs) => [{ Cs, Lb: "person", Dm: { X: 0, Y: 0, W: 0.5, H: 1 } }]),
    );
  });
});

describe("the detecto-style model of ../shared", () => {
  it("finds what its NOTES.json says, alone and among others", async (context) => {
    if (!sharedModels || !sharedPhotos) context.skip(noSharedModels);
    const file = path.join(sharedModels!, "detecto_style/detecto_style_yolox_nano.onnx");
    const loader = await openLoader(DetectoModelLoader, [file]);
    const expected: Record<string, [string, number][]> = {
      "darknet_dog.jpg": [
        ["dog", 0.86],
        ["bicycle", 0.8],
        ["car", 0.8],
      ],
      "imil_people.jpg": [
        ["person", 0.88],
        ["person", 0.87],
        ["person", 0.85],
        ["person", 0.83],
        ["person", 0.82],
        ["potted plant", 0.59],
      ],
      "coffee.png": [
        ["cup", 0.9],
        ["dining table", 0.74],
      ],
    };
    const names = Object.keys(expected);
    const photos = await Promise.all(names.map((name) => readFile(path.join(sharedPhotos!, name))));
    const together = await predictBatch(
      loader,
      photos.map((photo) => [photo]),
    );
    for (const [index, name] of names.entries()) {
      const findings = await predictOne(loader, photos[index]!);
      expect(together[index], name).toEqual(findings);
      expect(labelsOf(findings), name).toEqual(expected[name]!.map(([label]) => label));
      for (const [at, [label, score]] of expected[name]!.entries())
        expect(Math.abs(findings[at]!.Cs - score), `${label} of ${name}`).toBeLessThanOrEqual(0.015);
    }
    const labels = JSON.parse(
      await readFile(path.join(sharedModels!, "labels/coco91.json"), "utf8"),
    ) as Record<string, string>;
    for (const [number, label] of Object.entries(labels)) expect(coco91Labels[Number(number)]).toBe(label);
  });
});
