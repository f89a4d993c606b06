import { readFile } from "node:fs/promises";
import path from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import {
  attachInputs,
  ImageEmbeddingModelLoader,
  ImageRegressionModelLoader,
  ImageToImageModelLoader,
  outputsOf,
  TextRecognitionModelLoader,
  type Finding,
} from "../../../../src/index.ts";
import { noTime, openLoader, predictOne } from "../../../support/loaders.ts";
import { sharedModels, sharedPhotos } from "../../../support/sharedModels.ts";

const any = (name: string) => path.join(sharedModels!, "any", name);
const model = (name: string) => path.join(any(name), "model.onnx");
const dog = () => readFile(path.join(sharedPhotos!, "darknet_dog.jpg"));
const expected = async (name: string) =>
  JSON.parse(await readFile(path.join(any(name), "expected.json"), "utf8")) as {
    Fs: Finding[];
    Obase_64_png?: string[];
  };

describe.skipIf(!sharedModels || !sharedPhotos)("the other kinds of models/any", () => {
  it("image_embedding_512", async () => {
    const loader = await openLoader(ImageEmbeddingModelLoader, [model("image_embedding_512")]);
    const [found] = await predictOne(loader, await dog());
    const [{ Vector }] = (await expected("image_embedding_512")).Fs as [Finding];
    expect(found!.Vector).toHaveLength(512);
    const cosine = Vector!.reduce((sum, value, at) => sum + value * found!.Vector![at]!, 0);
    expect(cosine).toBeGreaterThan(0.999);
    expect(loader.describe().embeds).toBe("picture");
  });

  it("regression_age", async () => {
    const loader = await openLoader(ImageRegressionModelLoader, [model("regression_age")]);
    const [found] = await predictOne(loader, await dog());
    expect(found).toMatchObject({ Lb: "age", Dm: {}, Value: expect.any(Number) as number });
  });

  it("super_resolution_x2", async () => {
    const loader = await openLoader(ImageToImageModelLoader, [model("super_resolution_x2")]);
    const request = attachInputs({}, [{ name: "image", mediaType: "image/jpeg", bytes: await dog() }]);
    const [outcome] = await loader.predictRequests([request], noTime());
    if (outcome instanceof Error) throw outcome;
    const [output] = outputsOf(outcome!);
    expect(output!.mediaType).toBe("image/png");
    const { width, height } = await sharp(await dog()).metadata();
    expect(await sharp(output!.bytes).metadata()).toMatchObject({ width: 2 * width, height: 2 * height });
  });

  it("siamese_two_pictures, by name and by order", async () => {
    const loader = await openLoader(ImageRegressionModelLoader, [model("siamese_two_pictures")]);
    expect(loader.describe().inputs!.map(({ name }) => name)).toEqual(["anchor", "probe"]);
    const [one, other] = [await dog(), await readFile(path.join(sharedPhotos!, "rocket.jpg"))];
    const distance = async (inputs: [string, Buffer][]) => {
      const request = attachInputs(
        {},
        inputs.map(([name, bytes]) => ({ name, mediaType: "image/jpeg", bytes })),
      );
      const [outcome] = await loader.predictRequests([request], noTime());
      if (outcome instanceof Error) throw outcome;
      return outcome!.Fs[0]!.Value!;
    };
    const far = await distance([
      ["anchor", one],
      ["probe", other],
    ]);
    expect(far).toBeGreaterThan(0.01);
    expect(
      await distance([
        ["probe", one],
        ["anchor", one],
      ]),
    ).toBeCloseTo(0, 5);
    expect(
      await distance([
        ["image", one],
        ["image", other],
      ]),
    ).toBeCloseTo(far, 5);
    await expect(distance([["anchor", one]])).rejects.toThrow("there is none named probe");
    await expect(distance([["image", one]])).rejects.toThrow("needs 2 pictures, named anchor, probe");
  });

  it("rapidocr_rec", async () => {
    const loader = await openLoader(TextRecognitionModelLoader, [model("rapidocr_rec")]);
    const [line] = await predictOne(loader, await readFile(any("_inputs/line.png")));
    const [second] = await predictOne(loader, await readFile(any("_inputs/line2.png")));
    const { Fs } = await expected("rapidocr_rec");
    console.log(line, second, Fs);
    expect(line!.Lb).toBe(Fs[0]!.Lb);
    expect(Math.abs(line!.Cs - Fs[0]!.Cs)).toBeLessThan(0.05);
    expect(second!.Lb.trim()).toBe("Total: 48.90 EUR");
  });
});
