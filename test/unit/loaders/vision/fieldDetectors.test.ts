import { readFile } from "node:fs/promises";
import path from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import {
  attachPictures,
  DetectionModelLoader,
  DetectoModelLoader,
  PoseEstimationModelLoader,
  YoloModelLoader,
  YoloxModelLoader,
  type Finding,
} from "../../../../src/index.ts";
import { noTime, openLoader, predictBatch, predictOne } from "../../../support/loaders.ts";
import { sharedField, sharedModels, sharedPhotos } from "../../../support/sharedModels.ts";

const field = (name: string) => path.join(sharedField!, name);
const square = (side = 320) =>
  sharp({ create: { width: side, height: side, channels: 3, background: "#808080" } })
    .png()
    .toBuffer();
const A = { X: 0.125, Y: 0.25, W: 0.25, H: 0.5 };
const B = { X: 0.5625, Y: 0.3125, W: 0.375, H: 0.375 };
const found = (findings: Finding[]) => findings.map(({ Cs, Lb, Dm }) => ({ Cs: round(Cs), Lb, Dm }));
const round = (value: number) => Math.round(value * 1e3) / 1e3;
const two = (first: string, second: string) => [
  { Cs: 0.9, Lb: first, Dm: A },
  { Cs: 0.8, Lb: second, Dm: B },
];

describe.skipIf(!sharedField)("the rows of field/NOTES.md about detectors", () => {
  it.each(["yolo26_1cls", "yolo26_80cls"])("yolo-end2end/%s.onnx", async (name) => {
    for (const Loader of [YoloModelLoader, DetectionModelLoader]) {
      const loader = await openLoader(Loader, [field(`yolo-end2end/${name}.onnx`)]);
      const findings = await predictOne(loader, await square());
      expect(findings.map(({ Cs, Dm }) => [round(Cs), Dm])).toEqual([
        [0.9, A],
        [0.8, B],
      ]);
      expect(findings.every(({ Lb }) => Lb.startsWith("thing"))).toBe(true);
    }
  });

  it.each(["yolo26n-pose", "yolov8n-pose"])("pose-end2end/%s.onnx", async (name) => {
    for (const Loader of [YoloModelLoader, PoseEstimationModelLoader, DetectionModelLoader]) {
      const loader = await openLoader(Loader, [field(`pose-end2end/${name}.onnx`)]);
      const findings = await predictOne(loader, await square());
      expect(findings).toHaveLength(1);
      expect(findings[0]).toMatchObject({ Cs: 0.9, Dm: A });
      expect(Object.keys(findings[0]!.Kp!)).toHaveLength(17);
    }
  });

  it("obb-raw/yolo11n-obb.onnx, dota.txt", async () => {
    const settings = { class_names: field("obb-raw/dota.txt") };
    const loader = await openLoader(YoloModelLoader, [field("obb-raw/yolo11n-obb.onnx")], settings);
    const findings = await predictOne(loader, await square());
    expect(findings.map(({ Lb, Cs, Rb }) => [Lb, round(Cs), Rb!.Angle])).toEqual([
      ["ground-track-field", 0.9, 1.2],
      ["plane", 0.8, 0.6],
    ]);
    for (const { Rb, Dm } of findings) {
      const [xs, ys] = [0, 1].map((axis) => Rb!.Corners.map((corner) => corner[axis]!));
      const clip = (at: number) => Math.min(1, Math.max(0, at));
      expect(Dm).toMatchObject({
        X: expect.closeTo(clip(Math.min(...xs!)), 3) as number,
        Y: expect.closeTo(clip(Math.min(...ys!)), 3) as number,
      });
    }
  });

  it("seg-head/yolo11n-seg.onnx", async () => {
    for (const class_names of [["coco"], []]) {
      const loader = await openLoader(YoloModelLoader, [field("seg-head/yolo11n-seg.onnx")], { class_names });
      const [dog, ...others] = await predictOne(loader, await square());
      expect(dog).toMatchObject({ Cs: 0.7, Lb: class_names.length > 0 ? "dog" : "16", Dm: A });
      expect(others).toEqual([]);
      expect(dog!.Msk!.Rle.size).toEqual([320, 320]);
      // Its prototypes are all 0, which is nowhere above 0.
      expect(dog!.Msk!.Poly).toEqual([]);
    }
  });

  it("yolov6-head/yolov6n.onnx", async () => {
    for (const class_names of [["coco"], []]) {
      const loader = await openLoader(YoloModelLoader, [field("yolov6-head/yolov6n.onnx")], { class_names });
      const findings = await predictOne(loader, await square());
      expect(found(findings)).toEqual([{ Cs: 0.9, Lb: class_names.length > 0 ? "dog" : "16", Dm: A }]);
    }
  });

  it("names-in-metadata/yolov8_custom.onnx", async () => {
    const file = field("names-in-metadata/yolov8_custom.onnx");
    const loader = await openLoader(YoloModelLoader, [file]);
    expect(found(await predictOne(loader, await square()))).toEqual(two("ID_CARD_BACK", "STAMP"));
    expect(loader.describe().labels).toEqual(["ID_CARD_BACK", "ID_CARD_FRONT", "STAMP"]);
    const filtered = await openLoader(YoloModelLoader, [file], { classes: ["STAMP"] });
    expect((await predictOne(filtered, await square())).map(({ Lb }) => Lb)).toEqual(["STAMP"]);
    await expect(openLoader(YoloModelLoader, [file], { classes: ["STAMPS"] })).rejects.toThrow(
      'models.Model.classes: "STAMPS" is no label of the model; did you mean "STAMP"?',
    );
  });

  it.each(["yolox_raw", "yolox_decoded"])("yolox-decoded/%s.onnx", async (name) => {
    const loader = await openLoader(YoloxModelLoader, [field(`yolox-decoded/${name}.onnx`)]);
    const [box, ...others] = await predictOne(loader, await square(160));
    expect(others).toEqual([]);
    expect(box!.Cs).toBeCloseTo(0.855, 3);
    expect(box!.Dm).toEqual({ X: 40 / 160, Y: 64 / 160, W: 64 / 160, H: 48 / 160 });
  });

  it("yolov7-end2end/yolov7_e2e.onnx, alone and in real batches", async () => {
    const loader = await openLoader(YoloModelLoader, [field("yolov7-end2end/yolov7_e2e.onnx")], {
      class_names: ["coco"],
      max_batch_size: 4,
    });
    const expected = two("dog", "person");
    expect(found(await predictOne(loader, await square()))).toEqual(expected);
  });

  it("two-inputs/rtdetr.onnx", async () => {
    const loader = await openLoader(DetectionModelLoader, [field("two-inputs/rtdetr.onnx")], {
      class_names: ["coco"],
      max_batch_size: 4,
    });
    const [alone] = await predictBatch(loader, [[await square()]]);
    expect(found(alone as Finding[])).toEqual([{ Cs: 0.9, Lb: "person", Dm: A }]);
    const wide = await sharp({ create: { width: 640, height: 160, channels: 3, background: "#808080" } })
      .png()
      .toBuffer();
    const batch = await predictBatch(loader, [[await square()], [wide]]);
    expect(batch[0]).toEqual(alone);
  });

  it("tf-detection/ssd_mobilenet.onnx", async () => {
    for (const Loader of [DetectoModelLoader, DetectionModelLoader]) {
      for (const class_names of [["coco"], ["coco91"]]) {
        const loader = await openLoader(Loader, [field("tf-detection/ssd_mobilenet.onnx")], { class_names });
        const findings = await predictOne(loader, await square());
        expect(found(findings)[0]).toEqual({ Cs: 0.9, Lb: "dog", Dm: A });
      }
    }
    const loader = await openLoader(DetectionModelLoader, [field("tf-detection/ssd_mobilenet.onnx")]);
    expect(found(await predictOne(loader, await square()))[0]).toEqual({ Cs: 0.9, Lb: "18", Dm: A });
  });

  it("crowd/yolov8_400.onnx", async () => {
    const file = field("crowd/yolov8_400.onnx");
    const all = await openLoader(YoloModelLoader, [file], { class_names: ["person"], max_det: 1000 });
    expect(await predictOne(all, await square())).toHaveLength(400);
    const cut = await openLoader(YoloModelLoader, [file], { class_names: ["person"] });
    const [outcome] = await responses(cut, await square());
    expect(outcome).toMatchObject({
      Warnings: ["more than max_det (300) findings, the best 300 are returned"],
    });
  });
});

describe.skipIf(!sharedModels || !sharedPhotos)("the detectors of models/any", () => {
  interface Expected {
    Fs: Finding[];
  }
  it.each([
    ["yolov8n_end2end", YoloModelLoader],
    ["yolov8n_seg", YoloModelLoader],
    ["rtdetr_hf", DetectionModelLoader],
  ])("%s", async (name, Loader) => {
    const folder = path.join(sharedModels!, "any", name);
    const { Fs } = JSON.parse(await readFile(path.join(folder, "expected.json"), "utf8")) as Expected;
    const loader = await openLoader(Loader, [path.join(folder, "model.onnx")]);
    const findings = await predictOne(loader, await readFile(path.join(sharedPhotos!, "darknet_dog.jpg")));
    expect(findings.map(({ Lb }) => Lb)).toEqual(Fs.map(({ Lb }) => Lb));
    // What the same weights give behind Pillow's bilinear resize; expected.json was made with another one.
    const scores = name === "rtdetr_hf" ? [0.8626, 0.7982, 0.5907] : Fs.map(({ Cs }) => Cs);
    for (const [index, finding] of findings.entries())
      expect(Math.abs(finding.Cs - scores[index]!), finding.Lb).toBeLessThan(0.05);
    if (name.endsWith("seg")) expect(findings.every(({ Msk }) => Msk!.Poly.length > 0)).toBe(true);
  });
});

async function responses(loader: DetectionModelLoader, picture: Buffer) {
  return loader.predictRequests([attachPictures({}, [picture])], noTime());
}
