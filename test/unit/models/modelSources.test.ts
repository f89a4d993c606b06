/** What a source in `model_path` may be, and how demo models are converted once. */
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setImmediate } from "node:timers/promises";
import { InferenceSession } from "onnxruntime-node";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { InfermillError } from "../../../src/errors.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { ModelSourceError, resolveModelPath, type SourceOptions } from "../../../src/models/sources.ts";

let folder: string;
let options: SourceOptions;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "infermill-sources-"));
  options = { baseDir: folder, dataDir: path.join(folder, "data") };
});

afterEach(() => rm(folder, { recursive: true, force: true }));

async function refusal(source: string, overrides: Partial<SourceOptions> = {}): Promise<string> {
  const thrown: unknown = await resolveModelPath(source, { ...options, ...overrides }).catch(
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(ModelSourceError);
  return (thrown as InfermillError).message;
}

describe("paths", () => {
  test("a relative path starts from the base folder, an absolute one stays as it is", async () => {
    const file = path.join(folder, "models", "own.onnx");
    await mkdir(path.dirname(file));
    await writeFile(file, "");
    expect(await resolveModelPath("models/own.onnx", options)).toBe(file);
    expect(await resolveModelPath(file, options)).toBe(file);
  });

  test("a file of labels passes", async () => {
    await writeFile(path.join(folder, "labels.txt"), "cat\ndog\n");
    expect(await resolveModelPath("labels.txt", options)).toBe(path.join(folder, "labels.txt"));
  });

  test("a missing file is refused with the path that was looked at", async () => {
    expect(await refusal("models/none.onnx")).toBe(
      `"models/none.onnx" must be a file that exists, but there is no ${path.join(folder, "models", "none.onnx")}`,
    );
  });

  test("a folder is refused", async () => {
    await mkdir(path.join(folder, "models.onnx"));
    expect(await refusal("models.onnx")).toContain("must be a file, but");
  });

  test.each([
    ["yolov8n.pt", "torch.onnx.export"],
    ["resnet.PTH", "torch.onnx.export"],
    ["keras.h5", "tf2onnx"],
    ["frozen.pb", "tf2onnx"],
    ["mobile.tflite", "tf2onnx"],
  ])("%s is refused with a way to export it to ONNX, whether it exists or not", async (source, way) => {
    const message = await refusal(source);
    expect(message).toContain(`"${source}" must be an .onnx or .ort file`);
    expect(message).toContain(way);
  });
});

describe("schemes", () => {
  test("an unknown scheme is refused with the known ones", async () => {
    expect(await refusal("gs://bucket/model.onnx")).toBe(
      '"gs://bucket/model.onnx" must be a path or begin with demo:// or hf:// or https://, got gs://',
    );
  });

  test("an unknown demo model is refused with the known ones", async () => {
    expect(await refusal("demo://yolo")).toBe(
      '"demo://yolo" must be one of demo://centernet, demo://emotion, demo://blazeface',
    );
  });

  test("a demo model without its package is refused with two ways out", async () => {
    const message = await refusal("demo://centernet", { packageSearchFolders: [folder] });
    expect(message).toContain("npm i -D @vladmandic/human");
    expect(message).toContain("name an .onnx file of your own");
  });
});

describe("demo models", () => {
  test("a demo model is converted once and kept under its versions", async () => {
    const told: string[] = [];
    const onProgress = ({ message }: { message: string }) => told.push(message);
    const file = await resolveModelPath("demo://emotion", { ...options, onProgress });
    expect(path.relative(options.dataDir, file)).toMatch(/^models[/\\]emotion-\d+\.\d+\.\d+-\d+\.onnx$/);
    const { mtimeMs } = await stat(file);

    expect(await resolveModelPath("demo://emotion", { ...options, onProgress })).toBe(file);
    expect((await stat(file)).mtimeMs).toBe(mtimeMs);
    expect(told).toHaveLength(1);
  });

  test("two conversions at once show other readers no file or the whole one, and leave nothing else", async () => {
    const models = path.join(options.dataDir, "models");
    const conversions = Promise.all([
      resolveModelPath("demo://blazeface", options),
      resolveModelPath("demo://blazeface", options),
    ]);
    const sizesSeen = new Set<number>();
    let isConverting = true;
    const look = async () => {
      while (isConverting) {
        const names = await readdir(models).catch((): string[] => []);
        for (const name of names.filter((each) => each.endsWith(".onnx"))) {
          sizesSeen.add((await stat(path.join(models, name))).size);
        }
        await setImmediate();
      }
    };
    const looking = look();
    const files = await conversions;
    isConverting = false;
    await looking;

    expect(files[0]).toBe(files[1]);
    expect(await readdir(models)).toEqual([path.basename(files[0])]);
    const { size } = await stat(files[0]);
    expect([...sizesSeen].filter((seen) => seen !== size)).toEqual([]);
    const session = await InferenceSession.create(files[0]);
    expect(session.inputNames).toEqual(["input"]);
  });

  test("a conversion that fails leaves no file behind and says why", async () => {
    const human = path.join(folder, "node_modules", "@vladmandic", "human");
    await mkdir(path.join(human, "models"), { recursive: true });
    await writeFile(path.join(human, "package.json"), '{"version":"0.0.1"}');
    await writeFile(
      path.join(human, "models", "emotion.json"),
      '{"format":"layers-model","modelTopology":{"node":[]},"weightsManifest":[]}',
    );
    const message = await refusal("demo://emotion", { packageSearchFolders: [folder] });
    expect(message).toContain('expected a TensorFlow.js model of format "graph-model", got "layers-model"');
    await expect(readdir(options.dataDir)).rejects.toThrow("ENOENT");
  });

  test("a write that fails leaves no unfinished file behind", async () => {
    await mkdir(options.dataDir);
    await writeFile(path.join(options.dataDir, "models"), "a file where a folder is needed");
    expect(await refusal("demo://emotion")).toContain("can't be converted to");
    expect(await readdir(options.dataDir)).toEqual(["models"]);
  });
});

test("both sample photos are JPEG files", async () => {
  for (const name of ["march-pastoral", "nagasaki-boats"] as const) {
    const start = (await readFile(findSamplePhoto(name)!)).subarray(0, 3);
    expect([...start], name).toEqual([0xff, 0xd8, 0xff]);
  }
});
