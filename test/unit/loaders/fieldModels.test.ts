/**
 * Exports that people bring and that are not what they seem: what is found at load, and that the answers are right. They
 * lie beside the reference models; without those the tests are skipped.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { ImageClassificationModelLoader } from "../../../src/loaders/vision/ImageClassificationModelLoader.ts";
import { attachPictures, type BaseModelLoader, type Finding } from "../../../src/index.ts";
import { noTime, openLoader } from "../../support/loaders.ts";
import { sharedModels } from "../../support/sharedModels.ts";
import sharp from "sharp";

const field = sharedModels && path.join(sharedModels, "../field");
const hasField = field !== undefined && existsSync(field);

/** Plain pictures and noise: as different as the members of a batch can be. */
async function somePictures(): Promise<Buffer[]> {
  const plain = ["#ff0000", "#00ff00", "#101010", "#ffffff", "#123456"].map((background) =>
    sharp({ create: { width: 20, height: 20, channels: 3, background } })
      .png()
      .toBuffer(),
  );
  const noise = Uint8Array.from({ length: 1200 }, (_, index) => (index * 7919) % 256);
  return Promise.all([
    ...plain,
    sharp(noise, { raw: { width: 20, height: 20, channels: 3 } })
      .png()
      .toBuffer(),
  ]);
}

async function findings(loader: BaseModelLoader, pictures: Buffer[]): Promise<Finding[][]> {
  const requests = pictures.map((picture) => attachPictures({ C_threshold: 0 }, [picture]));
  const outcomes = await loader.predictRequests(requests, noTime());
  return outcomes.map((outcome) => {
    if (outcome instanceof Error) throw outcome;
    return outcome["Fs"] as Finding[];
  });
}

describe("a model from the field", () => {
  it.skipIf(!hasField).each([
    [
      "fixed-reshape/mnist_like.onnx",
      1,
      /^max_batch_size is 1 .*it can't run 3 rows together \(while running Reshape/,
    ],
    ["dynquant-batch/dynamic_int8.onnx", 1, /^max_batch_size is 1 .*quantised dynamically/],
    ["dynquant-batch/float.onnx", 8, undefined],
    ["fp16/half.onnx", 8, undefined],
    ["classifier-plain/plain.onnx", 8, undefined],
  ])("answers the same alone and in a batch: %s", async (file, limit, note) => {
    const loader = await openLoader(ImageClassificationModelLoader, [path.join(field!, file)], {
      max_batch_size: 8,
      activation: "softmax",
    });
    expect(loader.batchLimit).toBe(limit);
    expect(loader.describe().notes).toEqual(note && [expect.stringMatching(note)]);
    const pictures = await somePictures();
    const together = await findings(loader, pictures);
    for (const [index, picture] of pictures.entries())
      expect([together[index]]).toEqual(await findings(loader, [picture]));
  });
});
