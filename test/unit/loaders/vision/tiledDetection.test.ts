import { readFile } from "node:fs/promises";
import path from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { YoloModelLoader, type Box, type Finding } from "../../../../src/index.ts";
import { mergeTiles, tilesOf } from "../../../../src/loaders/vision/tiles.ts";
import { openLoader, predictOne } from "../../../support/loaders.ts";
import { sharedModels, sharedPhotos } from "../../../support/sharedModels.ts";

describe("tiles of a picture", () => {
  it("cover it, share what was asked for, and stay inside", () => {
    const tiles = tilesOf({ width: 1500, height: 500 }, { size: 640, overlap: 0.25 });
    expect(tiles).toEqual([
      { left: 0, top: 0, width: 640, height: 500 },
      { left: 480, top: 0, width: 640, height: 500 },
      { left: 860, top: 0, width: 640, height: 500 },
    ]);
  });

  it("make one finding of what two of them saw, and keep what one saw twice", () => {
    const finding = (Cs: number, X: number, W: number): Finding => ({
      Cs,
      Lb: "dog",
      Dm: { X, Y: 0.1, W, H: 0.2 },
    });
    const whole = finding(0.9, 0.1, 0.4);
    expect(mergeTiles([[whole], [finding(0.8, 0.3, 0.2)]], { agnostic: false, most: 10 })).toEqual([whole]);
    expect(mergeTiles([[whole, finding(0.8, 0.3, 0.2)]], { agnostic: false, most: 10 })).toHaveLength(2);
  });
});

describe.skipIf(!sharedModels || !sharedPhotos)("tiled detection with YOLOv8n", () => {
  it("finds the small things of a large picture where they are", async () => {
    const dog = await readFile(path.join(sharedPhotos!, "darknet_dog.jpg"));
    const small = await sharp(dog).resize(320, 240).toBuffer();
    // The photo in the lower right corner of a picture four times as wide.
    const large = await sharp({ create: { width: 1280, height: 960, channels: 3, background: "#777777" } })
      .composite([{ input: small, left: 940, top: 700 }])
      .png()
      .toBuffer();
    const file = path.join(sharedModels!, "yolov8n/yolov8n.onnx");
    const tiled = await openLoader(YoloModelLoader, [file], {
      tile: { size: 640, overlap: 0.3 },
      conf_thres: 0.4,
      max_batch_size: 1,
    });
    const found = await predictOne(tiled, large);
    const best = found.find(({ Lb }) => Lb === "dog")!;
    const { X, Y, W, H } = best.Dm as Box;
    expect(X).toBeCloseTo((940 + 0.1706 * 320) / 1280, 2);
    expect(Y).toBeCloseTo((700 + 0.3801 * 240) / 960, 2);
    expect(W).toBeCloseTo((0.231 * 320) / 1280, 2);
    expect(H).toBeCloseTo((0.5569 * 240) / 960, 2);
    expect(found.filter(({ Lb }) => Lb === "dog")).toHaveLength(1);
  });
});
