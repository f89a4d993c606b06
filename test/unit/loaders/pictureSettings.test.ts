import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attachPictures, ImageClassificationModelLoader } from "../../../src/index.ts";
import { openLoader } from "../../support/loaders.ts";
import { plainPicture, writeColourModel } from "../../support/pictures.ts";

describe("settings for pictures as they come", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-settings-"));
  const model = join(folder, "colours.onnx");
  beforeAll(() => writeColourModel(model));
  afterAll(() => rmSync(folder, { recursive: true }));

  const answer = async (picture: Buffer, settings: Record<string, unknown> = {}) => {
    const loader = await openLoader(ImageClassificationModelLoader, [model], {
      class_names: ["red", "green", "blue"],
      scale: 1 / 255,
      mean: [0, 0, 0],
      std: [1, 1, 1],
      activation: "none",
      conf_thres: 0,
      ...settings,
    });
    return loader.predictRequest(attachPictures({}, [picture]));
  };

  it("a camera's oddity is named in the response, a plain picture's has no such key", async () => {
    const plain = await plainPicture(250, 20, 20);
    const at = plain.indexOf(Buffer.from([0xff, 0xc0]));
    const odd = Buffer.concat([plain.subarray(0, at), Buffer.alloc(608), plain.subarray(at)]);
    expect(await answer(plain)).not.toHaveProperty("Warnings");
    expect(await answer(odd)).toMatchObject({
      Warnings: ["the JPEG has 608 bytes between its segments that belong to none"],
    });
  });

  it("truncated: allow answers with a warning where else is an error", async () => {
    const cut = (await plainPicture(250, 20, 20, 400)).subarray(0, 1200);
    await expect(answer(cut)).rejects.toThrow("damaged or cut short");
    expect((await answer(cut, { truncated: "allow" }))["Warnings"]).toEqual([
      expect.stringContaining("cut short; what is missing is grey"),
    ]);
  });

  it("depth says how a thermal picture becomes one of 8 bits", async () => {
    const dark = Uint16Array.from({ length: 32 * 32 }, (_, index) => (index % 2) * 4095);
    const picture = await sharp(dark, { raw: { width: 32, height: 32, channels: 1 } })
      .toColourspace("grey16")
      .png()
      .toBuffer();
    const mean = async (settings: Record<string, unknown>) =>
      Math.max(...(await answer(picture, settings)).Fs.map(({ Cs }) => Cs));
    // The model's scores are the means of the channels.
    expect(await mean({})).toBeCloseTo(15 / 2 / 255, 2);
    expect(await mean({ depth: "stretch" })).toBeCloseTo(0.5, 2);
    expect(await mean({ depth: [0, 8190] })).toBeCloseTo(0.25, 2);
  });
});
