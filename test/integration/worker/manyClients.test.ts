import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import { findingsOf } from "../../../src/imil/response.ts";
import { openModel } from "../../../src/engines/openModel.ts";
import { attachPictures } from "../../../src/imil/requestPictures.ts";
import type { Prediction } from "../../support/answers.ts";
import { startInfermill, upload, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const PICTURES = 500;
const CLIENTS = 32;

/** Crops of the photos, each with an answer of its own. */
async function makePictures(): Promise<Buffer[]> {
  const photos = readdirSync(sharedPhotos!).filter((name) => /\.(jpg|png)$/.test(name));
  const sources = await Promise.all(
    photos.map((name) =>
      sharp(readFileSync(join(sharedPhotos!, name)))
        .resize(600, 600, { fit: "cover" })
        .removeAlpha()
        .raw()
        .toBuffer(),
    ),
  );
  return Promise.all(
    Array.from({ length: PICTURES }, (_, index) =>
      sharp(sources[index % sources.length], { raw: { width: 600, height: 600, channels: 3 } })
        .extract({ left: (index * 37) % 300, top: (index * 53) % 300, width: 300, height: 300 })
        .jpeg()
        .toBuffer(),
    ),
  );
}

describe.skipIf(whyNoRedis ?? (sharedModels ? undefined : noSharedModels))(
  "500 pictures of 32 clients at once",
  () => {
    let infermill: TestInfermill;
    let pictures: Buffer[];
    let expected: string[];

    beforeAll(async () => {
      const section = {
        loader: "ImageClassificationModelLoader",
        model_path: [join(sharedModels!, "squeezenet1_1/squeezenet1_1.onnx")],
        class_names: ["imagenet"],
      };
      infermill = await startInfermill({
        models: {
          Batched: { ...section, max_batch_size: 8, instances: 2 },
          Single: { ...section, max_batch_size: 1, instances: 1 },
        },
      });
      pictures = await makePictures();
      const config = await loadConfig({ file: join(infermill.folder, "infermill.json"), env: {} });
      const loader = await openModel(config, "Single", () => {});
      expected = [];
      for (const picture of pictures)
        expected.push(
          describeFindings({
            Fs: [...findingsOf(await loader.predictRequest(attachPictures({}, [picture])))],
          }),
        );
      await loader.close();
    });
    afterAll(() => infermill?.stop());

    /** All findings, with scores to a tenth: batches may differ in the last bits. */
    function describeFindings(response: { Fs: { Lb: string; Cs: number }[] }): string {
      return response.Fs.slice(0, 1)
        .map(({ Lb }) => Lb)
        .join();
    }

    async function sendAll(model: string): Promise<Prediction[]> {
      const predictions: Prediction[] = [];
      let next = 0;
      const client = async () => {
        while (next < PICTURES) {
          const index = next++;
          predictions[index] = await upload(infermill.url, model, pictures[index]!);
        }
      };
      await Promise.all(Array.from({ length: CLIENTS }, client));
      return predictions;
    }

    test("all succeed in batches, and each response belongs to its picture", async () => {
      expect(new Set(expected).size).toBeGreaterThan(50);
      const predictions = await sendAll("Batched");
      expect(predictions.filter(({ status }) => status === "succeeded")).toHaveLength(PICTURES);
      expect(predictions.map(({ result }) => describeFindings(result!))).toEqual(expected);
      const batches = predictions.reduce((sum, { batch_size }) => sum + 1 / batch_size!, 0);
      console.log(`mean batch size ${(PICTURES / batches).toFixed(2)}`);
      expect(PICTURES / batches).toBeGreaterThan(1);
    });

    test("with max_batch_size 1 the answers are the same", async () => {
      const predictions = await sendAll("Single");
      expect(new Set(predictions.map(({ batch_size }) => batch_size))).toEqual(new Set([1]));
      expect(predictions.map(({ result }) => describeFindings(result!))).toEqual(expected);
    });
  },
);
