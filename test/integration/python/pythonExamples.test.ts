/**
 * The loaders of examples/python-loaders, served: IMIL's two as they are and against their twins in TypeScript,
 * scikit-learn and onnxruntime in batches, a folder whose lines are those of the built-in loader.
 */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { closeModels, executeModel } from "../../../src/executeModel.ts";
import type { PredictionRequest, PredictionResponse } from "../../../src/index.ts";
import type { BulkResult } from "../../support/answers.ts";
import { imageEncoder, textEncoder, uselessMerges } from "../../support/clip.ts";
import { runInfermill, startInfermill, submit, upload, type TestInfermill } from "../../support/infermill.ts";
import { modelFile, temporaryFile } from "../../support/loaders.ts";
import { plainPicture } from "../../support/pictures.ts";
import { pythonWithPackages, whyNoPackages } from "../../support/python.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const EXAMPLES = fileURLToPath(new URL("../../../examples", import.meta.url));
const STUBS = fileURLToPath(new URL("../../python-stubs", import.meta.url));
const PROMPTS = ["a red hat", "the sea", "night"];
const PICTURES = 200;

const whyNot = whyNoRedis || whyNoPackages || (sharedModels && sharedPhotos ? false : noSharedModels);

describe.skipIf(whyNot)("the loaders of examples/python-loaders", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-python-"));
  const configFile = join(folder, "local.json");
  let infermill: TestInfermill;
  let models: Record<string, Record<string, unknown>>;

  beforeAll(async () => {
    const clipFolder = join(folder, "clip");
    mkdirSync(clipFolder);
    renameSync(await modelFile(imageEncoder()), join(clipFolder, "image.onnx"));
    renameSync(await modelFile(textEncoder()), join(clipFolder, "text.onnx"));
    const merges = await temporaryFile("txt", uselessMerges);
    const detector = join(sharedModels!, "detecto_style/detecto_style_yolox_nano.onnx");
    const squeezenet = join(sharedModels!, "squeezenet1_1/squeezenet1_1.onnx");
    const python = (loader: string, file: string) => ({
      loader,
      model_loader_file: join(EXAMPLES, "python-loaders", file),
      python: pythonWithPackages,
      instances: 1,
    });
    const imil = (loader: string) => ({
      ...python(loader, "custom_model_loader.py"),
      env: {
        PYTHONPATH: STUBS,
        CLIP_FOLDER: clipFolder,
        DETECTO_LABELS: join(sharedModels!, "labels/coco91.json"),
      },
    });
    const typescript = (loader: string, file: string) => ({
      loader,
      model_loader_file: join(EXAMPLES, "custom-loaders", file),
      instances: 1,
    });
    const classifier = {
      model_path: [squeezenet],
      class_names: ["imagenet"],
      instances: 1,
      max_batch_size: 8,
      max_queue_delay_ms: 100,
    };
    models = {
      CustomClipModelLoader: { ...imil("CustomClipModelLoader"), clip_model: "ViT-B/32" },
      ClipInTypeScript: {
        ...typescript("CustomClipModelLoader", "customClipModelLoader.ts"),
        model_path: [join(clipFolder, "image.onnx"), join(clipFolder, "text.onnx"), merges],
      },
      CustomDetectoModelLoader: { ...imil("CustomDetectoModelLoader"), model_path: [detector] },
      DetectoInTypeScript: {
        ...typescript("CustomDetectoModelLoader", "customDetectoModelLoader.ts"),
        model_path: [detector],
        // The stub of IMIL's package scales no picture down.
        max_size: 10_000,
      },
      Iris: {
        ...python("IrisModelLoader", "iris.py"),
        trees: 20,
        max_batch_size: 8,
        max_queue_delay_ms: 200,
      },
      OnnxClassifier: { ...python("OnnxClassifierModelLoader", "onnx_classifier.py"), ...classifier },
      BuiltInClassifier: { loader: "ImageClassificationModelLoader", ...classifier },
    };
    writeFileSync(configFile, JSON.stringify({ port: 0, data_dir: "data", models }));
    infermill = await startInfermill({ models, bulk_roots: { all: folder } });
  });
  afterAll(async () => {
    await closeModels();
    await infermill?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  async function post(model: string, request: PredictionRequest): Promise<PredictionResponse> {
    const answer = await fetch(`${infermill.url}/${model}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
    });
    return (await answer.json()) as PredictionResponse;
  }

  /** @param photos name of a folder below this test's own */
  async function bulk(model: string, photos: string, request: object): Promise<BulkResult[]> {
    const out = join(folder, `${model}-${photos}.ndjson`);
    const args = ["bulk", `all/${photos}`, "-m", model, "--server", infermill.url, "--out", out];
    const run = runInfermill([...args, "--request", JSON.stringify(request)], { cwd: folder });
    const { code } = await run.exited;
    expect(code, run.output()).toBe(0);
    const lines = readFileSync(out, "utf8").trim().split("\n");
    return lines
      .map((line) => JSON.parse(line) as BulkResult)
      .toSorted((a, b) => a.path!.localeCompare(b.path!));
  }

  function expectSameFindings(own: PredictionResponse | null, twin: PredictionResponse | null): void {
    expect(own!.Rc, own!.Rm).toBe("200");
    expect(own!.Fs.map(({ Lb }) => Lb)).toEqual(twin!.Fs.map(({ Lb }) => Lb));
    for (const [at, { Cs, Dm }] of own!.Fs.entries()) {
      const other = twin!.Fs[at]!;
      expect(Math.abs(Cs - other.Cs)).toBeLessThan(1e-3);
      for (const side of Object.keys(other.Dm) as "X"[])
        expect(Math.abs((Dm as { X: number })[side] - (other.Dm as { X: number })[side])).toBeLessThan(1e-3);
    }
  }

  /** A photo that Pillow and libvips decode to the same pixels. */
  const lossless = (name: string) => sharp(join(sharedPhotos!, name)).png({ compressionLevel: 1 }).toBuffer();

  const IMIL: [model: string, twin: string, request: () => Promise<PredictionRequest>][] = [
    [
      "CustomClipModelLoader",
      "ClipInTypeScript",
      async () => ({
        Prompt: [PROMPTS],
        C_threshold: 0,
        Base_64: (await plainPicture(200, 30, 60)).toString("base64"),
      }),
    ],
    [
      "CustomDetectoModelLoader",
      "DetectoInTypeScript",
      async () => ({
        C_threshold: "0.5",
        Base_64: [(await lossless("imil_people.jpg")).toString("base64")],
      }),
    ],
  ];

  test.each(IMIL)("%s finds what %s finds, by POST, locally and in bulk", async (model, twin, build) => {
    const request = { Tid: "7", Mtp: [{ Src: "camera" }], ...(await build()) };
    const answer = await post(model, request);
    expect(answer.Fs.length).toBeGreaterThan(2);
    expect(answer).toMatchObject({
      Tid: "7",
      Rc: "200",
      Rm: "Success",
      Mtp: [{ Src: "camera" }, { Src: model }],
    });
    expect(answer.Mtp[1]!.Stime).toMatch(/^\d{4}-\d\d-\d\d,\d\d:\d\d:\d\d\.\d{3} [AP]M$/);
    expectSameFindings(answer, await post(twin, request));

    const local = await executeModel({ ...request, Model: model }, { config: configFile });
    expectSameFindings(local, answer);

    const photos = `photos-${model}`;
    mkdirSync(join(folder, photos));
    const { Base_64, ...keys } = request;
    writeFileSync(join(folder, photos, "a.png"), Buffer.from([Base_64].flat()[0] as string, "base64"));
    writeFileSync(join(folder, photos, "b.png"), await lossless("darknet_dog.jpg"));
    const [a, b] = await bulk(model, photos, keys);
    expectSameFindings(a!.result!, answer);
    const [, ofTwin] = await bulk(twin, photos, keys);
    // CLIP's preprocessing scales, which Pillow and libvips do a little differently.
    if (model === "CustomDetectoModelLoader") expectSameFindings(b!.result!, ofTwin!.result!);
  });

  test("a key that the loader reads and the request lacks is the request's fault", async () => {
    const { status, error } = await submit(infermill.url, "CustomClipModelLoader", {
      Base_64: (await plainPicture(1, 2, 3)).toString("base64"),
    });
    expect([status, error]).toMatchObject([
      "failed",
      {
        code: "bad_input",
        detail: "the request must have the key Prompt, which this model's loader reads",
      },
    ]);
  });

  test("scikit-learn classifies a batch at once, of which a bad row fails alone", async () => {
    const rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3, 5.2, 2.3], "no row", [6, 2.2, 4, 1]];
    const predictions = await Promise.all(rows.map((Row) => submit(infermill.url, "Iris", { Row })));
    expect(predictions.map(({ result, error }) => result?.["Label"] ?? error?.detail)).toEqual([
      "setosa",
      "virginica",
      "Row must be a list of 4 numbers, got 'no row'",
      "versicolor",
    ]);
    expect(predictions.map(({ batch_size }) => batch_size)).toEqual([4, 4, null, 4]);
    expect(predictions[0]!.result!["Scores"]).toEqual([1, 0, 0]);
    await expect(submit(infermill.url, "Iris", {})).rejects.toThrow(/^422: .*Row/);
  });

  test("onnxruntime runs pictures in batches, of which a broken one fails alone", async () => {
    const photo = readFileSync(join(sharedPhotos!, "chelsea.png"));
    const predictions = await Promise.all(
      [photo, Buffer.from("no picture"), photo, photo].map((bytes) =>
        upload(infermill.url, "OnnxClassifier", bytes, "image/png", "?C_threshold=0.1"),
      ),
    );
    expect(predictions.map(({ status }) => status)).toEqual([
      "succeeded",
      "failed",
      "succeeded",
      "succeeded",
    ]);
    expect(predictions[0]!.result!.Fs[0]!.Lb).toMatch(/cat|tabby|lynx/);
    expect(predictions[1]!.error).toMatchObject({
      code: "bad_input",
      detail: expect.stringContaining("the picture can't be decoded"),
    });
    expect(predictions.map(({ batch_size }) => batch_size)).toEqual([4, null, 4, 4]);
    const { preprocess_ms, infer_ms } = predictions[0]!.timings!;
    expect(preprocess_ms).toBeGreaterThan(0);
    expect(infer_ms).toBeGreaterThan(0);
  });

  test("a folder gives the same lines as with the built-in loader of the same model", async () => {
    mkdirSync(join(folder, "tiles"));
    const whole = sharp(join(sharedPhotos!, "imil_people.jpg"));
    const { width, height } = await whole.metadata();
    // Of the model's own size and without loss, so that both see the very same pixels.
    for (let index = 0; index < PICTURES; index++) {
      const [left, top] = [(index * 37) % (width - 224), (index * 53) % (height - 224)];
      const tile = whole.clone().extract({ left, top, width: 224, height: 224 });
      await tile
        .png({ compressionLevel: 1 })
        .toFile(join(folder, "tiles", `${String(index).padStart(3, "0")}.png`));
    }
    const request = { C_threshold: 0.05 };
    const own = await bulk("OnnxClassifier", "tiles", request);
    const twin = await bulk("BuiltInClassifier", "tiles", request);
    const shown = (lines: BulkResult[]) =>
      lines.map(({ path, status, result }) => [path, status, result!.Rc, result!.Fs]);
    expect(own).toHaveLength(PICTURES);
    expect(own.flatMap(({ result }) => result!.Fs).length).toBeGreaterThan(PICTURES);
    expect(shown(own)).toEqual(shown(twin));
  });
});
