import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkResult } from "../../support/answers.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { runInfermill, SCRIPTED_LOADER, until } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

const SLOW_PICTURES = 200;

describe.skipIf(whyNoRedis)("infermill bulk", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-bulk-cli-"));
  const config = join(folder, "infermill.json");
  const photos = join(folder, "photos");

  beforeAll(() => {
    const models = {
      CocoObjectDetection: {
        loader: "CenterNetModelLoader",
        model_path: ["demo://centernet"],
        class_names: ["coco"],
      },
      Scripted: {
        loader: "ScriptedModelLoader",
        model_loader_file: SCRIPTED_LOADER,
        instances: 1,
        max_batch_size: 4,
      },
    };
    writeFileSync(config, JSON.stringify({ port: 0, data_dir: "data", models }));
    mkdirSync(photos);
    for (const name of ["march-pastoral", "nagasaki-boats"] as const) {
      writeFileSync(join(photos, `${name}.jpg`), readFileSync(findSamplePhoto(name)!));
    }
    writeFileSync(join(photos, "letter"), "%PDF-1.7");
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function linesOf(file: string): BulkResult[] {
    return readFileSync(file, "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as BulkResult);
  }

  test("writes a line for each picture, draws copies, sums up and exits with 0", async () => {
    const out = join(folder, "results.ndjson");
    const copies = join(folder, "copies");
    const bulk = runInfermill(
      [
        "bulk",
        photos,
        "--model",
        "CocoObjectDetection",
        "--config",
        config,
        "--out",
        out,
        "--list-skipped",
        "--annotate",
        copies,
      ],
      { cwd: folder },
    );
    expect(await bulk.exited).toEqual({ code: 0, signal: null });
    expect(bulk.output()).toMatch(/^left out +1: not a picture 1$/m);
    expect(bulk.output()).toMatch(/^skipped +not a picture: letter \(a PDF\)$/m);
    const byPath = new Map(linesOf(out).map((line) => [line.path!, line]));
    expect([...byPath.keys()].toSorted()).toEqual(["march-pastoral.jpg", "nagasaki-boats.jpg"]);
    expect(
      byPath.get("march-pastoral.jpg")!.result!.Fs.filter(({ Lb }) => Lb === "sheep").length,
    ).toBeGreaterThanOrEqual(3);
    expect(bulk.output()).toMatch(/2 of 2 done: 2 succeeded, 0 failed/);
    expect(bulk.output()).toMatch(/labels\s+sheep \d/);

    expect(readdirSync(copies).toSorted()).toEqual(["march-pastoral.jpg", "nagasaki-boats.jpg"]);
    const before = await sharp(join(photos, "march-pastoral.jpg")).stats();
    const after = await sharp(join(copies, "march-pastoral.jpg")).stats();
    expect((await sharp(join(copies, "march-pastoral.jpg")).metadata()).width).toBe(
      (await sharp(join(photos, "march-pastoral.jpg")).metadata()).width,
    );
    // The photo is sepia; boxes and labels bring colour.
    expect(after.channels[1]!.stdev).not.toBeCloseTo(before.channels[1]!.stdev, 0);
  });

  test("exits with 1 when a picture failed, and with 2 on wrong usage", async () => {
    const mixed = join(folder, "mixed");
    mkdirSync(mixed);
    writeFileSync(join(mixed, "good.jpg"), readFileSync(findSamplePhoto("nagasaki-boats")!));
    writeFileSync(join(mixed, "bad.jpg"), "no picture");
    const out = join(folder, "mixed.ndjson");
    const some = runInfermill(["bulk", mixed, "-m", "CocoObjectDetection", "-c", config, "--out", out], {
      cwd: folder,
    });
    expect((await some.exited).code).toBe(1);
    expect(
      linesOf(out)
        .map(({ status }) => status)
        .toSorted(),
    ).toEqual(["failed", "succeeded"]);

    const linked = join(folder, "linked");
    symlinkSync(photos, linked);
    for (const args of [
      ["bulk", photos],
      ["bulk", photos, "-m", "None", "-c", config],
      ["bulk", join(folder, "nowhere"), "-m", "Scripted", "-c", config],
      ["bulk", photos, "-m", "Scripted", "-c", config, "--request", "nonsense"],
      ["bulk", photos, "-m", "Scripted", "-c", config, "--glob", "*a*b*c*d*e*.jpg"],
      ["bulk", "--resume", `bulk_${"0".repeat(32)}`, "-c", config, "--out", "other.ndjson"],
      // A link to the pictures would have them drawn over.
      ["bulk", linked, "-m", "Scripted", "-c", config, "--annotate", linked],
    ]) {
      const wrong = runInfermill(args, { cwd: folder });
      expect({ args, code: (await wrong.exited).code }).toEqual({ args, code: 2 });
    }
  });

  test("Ctrl-C exits with 130 and prints the command that resumes it; no line is missing or doubled", async () => {
    const many = join(folder, "many");
    mkdirSync(many);
    for (let index = 0; index < SLOW_PICTURES; index++)
      writeFileSync(join(many, `${index}.jpg`), "the scripted loader reads no picture");
    const out = join(folder, "many.ndjson");
    const args = [
      "bulk",
      many,
      "-m",
      "Scripted",
      "-c",
      config,
      "--out",
      out,
      "--request",
      '{"Fid":"x","Ms":200}',
    ];
    const first = runInfermill(args, { cwd: folder });
    await until(() => existsSync(out) && linesOf(out).length > 20, "some results");
    first.child.kill("SIGINT");
    expect((await first.exited).code).toBe(130);
    const resume = /bulk --resume (bulk_\w+)/.exec(first.output())!;
    const done = linesOf(out).length;
    expect(done).toBeLessThan(SLOW_PICTURES);

    const second = runInfermill(["bulk", "--resume", resume[1]!, "-c", config], { cwd: folder });
    expect(await second.exited).toEqual({ code: 0, signal: null });
    expect(
      linesOf(out)
        .map(({ path }) => path!)
        .toSorted(),
    ).toEqual(Array.from({ length: SLOW_PICTURES }, (_, index) => `${index}.jpg`).toSorted());
  });
});
