import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startInfermill, upload, type TestInfermill } from "../../support/infermill.ts";
import { blankPng, plainPicture, writeColourModel } from "../../support/pictures.ts";
import { whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("bad pictures in the midst of good ones", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-model-"));
  let infermill: TestInfermill;

  beforeAll(async () => {
    writeColourModel(join(folder, "colours.onnx"));
    infermill = await startInfermill({
      models: {
        Colours: {
          loader: "SquareModelLoader",
          model_loader_file: fileURLToPath(new URL("../../loaders/square.ts", import.meta.url)),
          model_path: [join(folder, "colours.onnx")],
          class_names: ["red", "green", "blue"],
          max_batch_size: 8,
          max_queue_delay_ms: 100,
        },
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true });
  });

  test("four of 32 fail, each with its own reason, and 28 succeed with their own answer", async () => {
    const colours = ["red", "green", "blue"];
    const pictures = await Promise.all(
      Array.from({ length: 32 }, (_, index) =>
        plainPicture(
          ...(colours.map((_name, channel) => (index % 3 === channel ? 250 : 5)) as [number, number, number]),
        ),
      ),
    );
    const corrupt = await sharp({
      create: {
        width: 300,
        height: 300,
        channels: 3,
        background: "red",
        noise: { type: "gaussian", mean: 128, sigma: 60 },
      },
    })
      .jpeg()
      .toBuffer();
    pictures[5] = corrupt.subarray(0, corrupt.length / 3);
    pictures[11] = Buffer.from("This is no picture at all.\n");
    pictures[17] = await sharp({
      create: { width: 20_000, height: 20_000, channels: 3, background: "white" },
      limitInputPixels: false,
    })
      .png()
      .toBuffer();
    // The loader throws on pictures that are not square.
    pictures[23] = await sharp({ create: { width: 64, height: 32, channels: 3, background: "red" } })
      .jpeg()
      .toBuffer();
    expect(pictures[17].length).toBeLessThan(2_000_000);

    const predictions = await Promise.all(
      pictures.map((picture, index) =>
        upload(infermill.url, "Colours", picture, index === 17 ? "image/png" : "image/jpeg"),
      ),
    );
    const failed = new Map(
      predictions.flatMap(({ status, error }, index) =>
        status === "failed" ? [[index, error!] as const] : [],
      ),
    );
    expect([...failed.keys()]).toEqual([5, 11, 17, 23]);
    expect(failed.get(5)).toMatchObject({
      code: "bad_input",
      detail: expect.stringMatching(/truncated|premature|corrupt|damaged/i),
    });
    expect(failed.get(11)).toMatchObject({
      code: "bad_input",
      detail: expect.stringContaining("This is no picture"),
    });
    expect(failed.get(17)).toMatchObject({ code: "bad_input", detail: expect.stringContaining("20000") });
    expect(failed.get(23)).toMatchObject({ code: "loader_failed", detail: "not square" });
    for (const [index, { result }] of predictions.entries()) {
      if (!failed.has(index)) expect(result!.Fs[0]!.Lb).toBe(colours[index % 3]);
    }
  });

  test("a picture bomb is refused by its header: the engine's memory doesn't grow by its pixels", async () => {
    const bomb = blankPng(20_000, 20_000);
    const peaks = async () => {
      const answer = await fetch(`${infermill.url}/v1/models/Colours`);
      const { engines } = (await answer.json()) as { engines: { pid: number }[] };
      return engines.map(({ pid }) => peakMemoryMb(pid));
    };
    const before = await peaks();
    for (let index = 0; index < 4; index++) await upload(infermill.url, "Colours", bomb, "image/png");
    const after = await peaks();
    for (const [index, peak] of after.entries()) expect(peak - before[index]!).toBeLessThan(150);
  });
});

/** Largest resident memory that a process ever had, in MB; 0 where the system doesn't tell. */
function peakMemoryMb(pid: number): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024;
  } catch {
    return 0;
  }
}
