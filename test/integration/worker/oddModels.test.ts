/** Models that surprise at load, beside a good one in one configuration: each is served as far as that is right. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send, type Json } from "../../support/api.ts";
import { startInfermill, submit, upload, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { noSharedModels, sharedField } from "../../support/sharedModels.ts";

const COLOURS = { class_names: ["red", "green", "blue", "bright"] };

describe.skipIf(whyNoRedis ?? (sharedField ? undefined : noSharedModels))("beside a good model", () => {
  let folder: string;
  let infermill: TestInfermill;
  const file = (name: string) => [join(sharedField!, name)];
  const tensor = (value: number) => ({
    inputs: [
      { name: "images", datatype: "FP32", shape: [1, 3, 8, 8], data: Array(192).fill(value) as number[] },
    ],
  });
  const described = async (model: string): Promise<Json> =>
    (await send("GET", `${infermill.url}/v1/models/${model}`)).body;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "infermill-odd-"));
    const broken = join(folder, "broken.onnx");
    writeFileSync(broken, "these are no weights");
    infermill = await startInfermill({
      models: {
        Good: {
          loader: "ImageClassificationModelLoader",
          model_path: file("classifier-plain/plain.onnx"),
          ...COLOURS,
        },
        MixesRows: { loader: "OnnxTensorModelLoader", model_path: file("dynquant-batch/dynamic_int8.onnx") },
        FixedInside: { loader: "OnnxTensorModelLoader", model_path: file("fixed-reshape/mnist_like.onnx") },
        FailsOnGrey: { loader: "YoloModelLoader", model_path: file("empty-scene/fails_on_nothing.onnx") },
        Broken: { loader: "OnnxTensorModelLoader", model_path: [broken] },
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("the good one serves", async () => {
    const red = await sharp({ create: { width: 32, height: 32, channels: 3, background: "#ff0000" } })
      .png()
      .toBuffer();
    const { status, result } = await upload(infermill.url, "Good", red, "image/png", "?C_threshold=0.9");
    expect(status).toBe("succeeded");
    expect(result!.Fs.map(({ Lb }) => Lb)).toEqual(["red"]);
  });

  test("one that mixes rows and one with a fixed batch inside run one by one, and say so", async () => {
    for (const model of ["MixesRows", "FixedInside"]) {
      const { batch, notes } = await described(model);
      expect(batch.batch_limit, model).toBe(1);
      expect(notes.join("\n"), model).toContain("max_batch_size");
      const answers = await Promise.all(
        [0.1, 0.9, 0.1].map(async (value) => {
          const { status, result } = await submit(infermill.url, model, tensor(value));
          expect(status).toBe("succeeded");
          return (result as Json).outputs[0].data as number[];
        }),
      );
      expect(answers[0]).toEqual(answers[2]);
      expect(answers[0]).not.toEqual(answers[1]);
    }
  });

  test("one that fails where nothing is in the picture serves the others, and only such a picture fails", async () => {
    const make = (background: string) =>
      sharp({ create: { width: 320, height: 320, channels: 3, background } })
        .png()
        .toBuffer();
    expect((await described("FailsOnGrey")).ready).toBe(true);
    const bright = await upload(infermill.url, "FailsOnGrey", await make("#ffffff"), "image/png");
    expect([bright.status, bright.error]).toEqual(["succeeded", null]);
    const dark = await upload(infermill.url, "FailsOnGrey", await make("#000000"), "image/png");
    expect([dark.status, dark.error?.code]).toEqual(["failed", "loader_failed"]);
  });

  test("the broken one is named, with the reason, in readiness and in its description", async () => {
    const { status, body } = await send("GET", `${infermill.url}/health/ready`);
    expect(status).toBe(503);
    expect(body.problems).toHaveLength(body.models.Broken.problems.length);
    expect(body.problems.join("\n")).toMatch(/Broken: engine Broken-0: .*broken\.onnx/);
    expect(body.models.Good.ready).toBe(true);
    expect((await described("Broken")).engines[0]).toMatchObject({ state: "failed" });
  });
});
