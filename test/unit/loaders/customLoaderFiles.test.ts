import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { modelSchema } from "../../../src/config/schema.ts";
import { ConfigError } from "../../../src/errors.ts";
import {
  BadInputError,
  BaseModelLoader,
  CenterNetModelLoader,
  type LoaderClass,
} from "../../../src/index.ts";
import { keepClasses, readClassNames } from "../../../src/loaders/labels.ts";
import { cocoLabels } from "../../../src/loaders/labels/coco.ts";
import { BUILT_IN_LOADERS, loadLoaderClass } from "../../../src/loaders/registry.ts";
import { buildModelSection, checkModelSection } from "../../../src/loaders/section.ts";

/** Far from the clone: nothing here resolves "infermill", "zod" or "sharp" by itself. */
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "infermill-loaders-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(file: string, text: string): Promise<void> {
  await mkdir(path.dirname(path.join(folder, file)), { recursive: true });
  await writeFile(path.join(folder, file), text);
}

const load = (loader: string, file?: string) =>
  loadLoaderClass({ modelName: "Mine", loader, model_loader_file: file, baseDir: folder });

const context = () => ({
  baseDir: folder,
  device: "cpu",
  intraOpThreads: 1,
  maxPicturePixels: 1e6,
  modelPaths: ["/m.onnx"],
});

const ECHO = `
import { BaseModelLoader, type Finding, type PredictionRequest } from "infermill";

export class CustomEchoModelLoader extends BaseModelLoader {
  override async predict(picture: Buffer, threshold: number, request: PredictionRequest): Promise<Finding[]> {
    return [{ Cs: threshold, Lb: \`\${this.settings["greeting"]} \${picture.length}\`, Dm: {} }];
  }
}
`;

describe("a custom loader file", () => {
  it("in TypeScript gets the running infermill, wherever it stands", async () => {
    await write("echo.ts", ECHO);
    const Echo = await load("CustomEchoModelLoader", "echo.ts");
    expect(Object.getPrototypeOf(Echo)).toBe(BaseModelLoader);
    const model = modelSchema.parse({
      loader: "CustomEchoModelLoader",
      model_loader_file: "echo.ts",
      greeting: "hello",
    });
    const section = await buildModelSection("Mine", model, Echo, context());
    const loader = new Echo({ Mine: section }, "Mine");
    expect(loader).toBeInstanceOf(BaseModelLoader);
    const response = await loader.predictRequest({ Base_64: "AAAA", C_threshold: 0.25, Tid: "7" });
    expect(response).toMatchObject({ Tid: "7", Rc: "200", Fs: [{ Cs: 0.25, Lb: "hello 3", Dm: {} }] });
  });

  it("in JavaScript works the same, with any of the usual endings and as the default export", async () => {
    const named = `import { BaseModelLoader } from "infermill"; export class PlainModelLoader extends BaseModelLoader {}`;
    const common = `const { BaseModelLoader } = require("infermill"); exports.PlainModelLoader = class PlainModelLoader extends BaseModelLoader {};`;
    const byDefault = `import { BaseModelLoader } from "infermill"; export default class PlainModelLoader extends BaseModelLoader {}`;
    for (const [file, text] of [
      ["plain.js", named],
      ["plain.mjs", named],
      ["plain.cjs", common],
      ["plain.mts", named],
      ["default.js", byDefault],
    ] as const) {
      await write(file, text);
      expect(Object.getPrototypeOf(await load("PlainModelLoader", file)), `${file} extends`).toBe(
        BaseModelLoader,
      );
    }
  });

  it("may build on a built-in loader, on a file beside it, and throw infermill's errors", async () => {
    await write(
      "parts/refusal.ts",
      `import { BadInputError } from "infermill"; export const refusal: Error = new BadInputError("no");`,
    );
    await write(
      "parts/sheep.ts",
      `import { CenterNetModelLoader } from "infermill";
       import { refusal } from "./refusal.ts";
       export class SheepModelLoader extends CenterNetModelLoader { static readonly refusal = refusal; }`,
    );
    const Sheep = await load("SheepModelLoader", "parts/sheep.ts");
    expect(Object.getPrototypeOf(Sheep)).toBe(CenterNetModelLoader);
    expect((Sheep as unknown as { refusal: Error }).refusal).toBeInstanceOf(BadInputError);
  });

  it("may import zod, sharp and onnxruntime-node although its folder has none of them", async () => {
    await write(
      "borrower.ts",
      `import { BaseModelLoader } from "infermill";
       import { z } from "zod";
       import sharp from "sharp";
       import * as ort from "onnxruntime-node";
       export class BorrowerModelLoader extends BaseModelLoader {
         static readonly options = z.object({ size: z.int().default(7) });
         static readonly has = [typeof sharp, typeof ort.InferenceSession.create];
       }`,
    );
    const Borrower = await load("BorrowerModelLoader", "borrower.ts");
    expect((Borrower as unknown as { has: string[] }).has).toEqual(["function", "function"]);
    expect(Borrower.options!.parse({})).toEqual({ size: 7 });
  });

  it("gets a package of its own folder before infermill's", async () => {
    await write(
      "own/node_modules/zod/package.json",
      `{ "name": "zod", "version": "0.0.1", "main": "index.js" }`,
    );
    await write("own/node_modules/zod/index.js", `exports.mine = "from the user's own folder";`);
    await write(
      "own/loader.ts",
      `import { BaseModelLoader } from "infermill";
       import { mine } from "zod";
       export class OwnModelLoader extends BaseModelLoader { static readonly mine = mine; }`,
    );
    const Own = (await load("OwnModelLoader", "own/loader.ts")) as unknown as { mine: string };
    expect(Own.mine).toBe("from the user's own folder");
  });
});

describe("a loader that can't be used is refused with the setting and the way out", () => {
  const refused = async (loader: string, file?: string): Promise<string> => {
    const outcome = await load(loader, file).catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(ConfigError);
    return (outcome as Error).message;
  };

  it("because no built-in loader is called so", async () => {
    const message = await refused("YolosModelLoader");
    expect(message).toContain("models.Mine.loader must be a built-in loader (");
    for (const name of Object.keys(BUILT_IN_LOADERS)) expect(message).toContain(name);
    expect(message).toContain("or model_loader_file must name the file");
    expect(message).toContain('did you mean "YoloModelLoader"?');
    expect(await refused("constructorModelLoader")).toContain("must be a built-in loader");
  });

  it("because its name doesn't end in ModelLoader", async () => {
    expect(await refused("Echo", "echo.ts")).toBe(
      'configuration: models.Mine.loader must be the name of a class that ends in ModelLoader, got "Echo"',
    );
  });

  it("because its file is missing, or a folder", async () => {
    expect(await refused("GoneModelLoader", "gone.ts")).toBe(
      `configuration: models.Mine.model_loader_file must be a TypeScript or JavaScript file, there is none at ${path.join(folder, "gone.ts")}`,
    );
    expect(await refused("GoneModelLoader", ".")).toContain("there is none at");
  });

  it("because its file exports something else, which is listed", async () => {
    await write("other.ts", `export class OtherModelLoader {}; export const answer = 42;`);
    expect(await refused("WantedModelLoader", "other.ts")).toMatch(
      /models\.Mine\.loader must be exported by .*other\.ts, got "WantedModelLoader"; the file exports .*OtherModelLoader.*/,
    );
    await write("empty.ts", "");
    expect(await refused("WantedModelLoader", "empty.ts")).toContain("the file exports nothing");
  });

  it("because it doesn't extend BaseModelLoader", async () => {
    await write("stranger.ts", `export class StrangerModelLoader { async load() {} }`);
    expect(await refused("StrangerModelLoader", "stranger.ts")).toContain(
      'models.Mine.loader must extend BaseModelLoader (import { BaseModelLoader } from "infermill"), StrangerModelLoader of',
    );
  });

  it("because its file throws, has a syntax error, or imports what isn't there", async () => {
    await write("throws.ts", `\n\nthrow new Error("no licence");\nexport class ThrowsModelLoader {}`);
    expect(await refused("ThrowsModelLoader", "throws.ts")).toMatch(
      /model_loader_file .*throws\.ts can't be imported: no licence/,
    );
    await write("broken.ts", `export class BrokenModelLoader {{`);
    expect(await refused("BrokenModelLoader", "broken.ts")).toMatch(/broken\.ts can't be imported: /);
    await write(
      "lonely.ts",
      `import x from "a-package-that-nobody-has"; export class LonelyModelLoader { x = x }`,
    );
    expect(await refused("LonelyModelLoader", "lonely.ts")).toMatch(
      /can't be imported: .*a-package-that-nobody-has/,
    );
  });
});

describe("the section of a model", () => {
  const check = (model: Record<string, unknown>, Loader: LoaderClass = CenterNetModelLoader) =>
    checkModelSection(
      "M",
      modelSchema.parse({ loader: "CenterNetModelLoader", model_path: ["m.onnx"], ...model }),
      Loader,
      {
        baseDir: folder,
        source: "infermill.json",
      },
    );

  it("holds the loader's options with their defaults, labels, and what the engine decided", async () => {
    const model = modelSchema.parse({
      loader: "CenterNetModelLoader",
      model_path: ["m.onnx"],
      class_names: ["coco"],
      iou_thres: 0.6,
    });
    expect(
      await buildModelSection("M", model, CenterNetModelLoader, {
        ...context(),
        device: "cuda:1",
        intraOpThreads: 3,
      }),
    ).toMatchObject({
      conf_thres: 0.3,
      iou_thres: 0.6,
      class_names: cocoLabels,
      model_path: ["/m.onnx"],
      device: "cuda:1",
      intra_op_threads: 3,
      max_picture_pixels: 1e6,
      max_batch_size: 8,
    });
  });

  it("reports all faults at once, each with its key", async () => {
    const faults = await check({
      model_path: [],
      class_names: ["cat", "dog"],
      classes: ["dgo"],
      conf_thres: 2,
      iou_tres: 0.5,
      confidence: 0.5,
    });
    expect(faults.map(({ source, key }) => `${source}: ${key}`)).toEqual([
      "infermill.json: models.M.classes",
      "infermill.json: models.M.model_path",
      "infermill.json: models.M.conf_thres",
      "infermill.json: models.M.iou_tres",
      "infermill.json: models.M.confidence",
    ]);
    expect(faults.map(({ problem }) => problem)).toEqual([
      '"dgo" is no label of the model; did you mean "dog"?',
      "must name the model's .onnx file, got []",
      "must be ≤ 1, got 2",
      'is no setting of CenterNetModelLoader; did you mean "iou_thres"?',
      'is no setting of CenterNetModelLoader; did you mean "conf_thres"?',
    ]);
  });

  it("takes any key where the loader declares no options, and only the declared ones where it does", async () => {
    class FreeModelLoader extends BaseModelLoader {}
    class StrictModelLoader extends BaseModelLoader {
      static readonly options = z.object({ greeting: z.string() });
    }
    class LooseModelLoader extends BaseModelLoader {
      static readonly options = z.looseObject({ greeting: z.string() });
    }
    const keys = { model_loader_file: "x.ts", greeting: "hello", volume: 11 };
    expect(await check(keys, FreeModelLoader)).toEqual([]);
    expect(await check(keys, LooseModelLoader)).toEqual([]);
    expect((await check(keys, StrictModelLoader)).map(({ key }) => key)).toEqual(["models.M.volume"]);
    expect((await check({ model_loader_file: "x.ts" }, StrictModelLoader)).map(({ key }) => key)).toEqual([
      "models.M.greeting",
    ]);
  });
});

describe("labels", () => {
  it("are built in for ImageNet and COCO, in index order", async () => {
    const imagenet = await readClassNames(["imagenet"], folder);
    expect([
      imagenet.length,
      imagenet[0],
      imagenet[285],
      imagenet[967],
      imagenet[999]?.split(",")[0],
    ]).toEqual([1000, "tench, Tinca tinca", "Egyptian cat", "espresso", "toilet tissue"]);
    const coco = await readClassNames(["coco"], folder);
    expect([coco.length, coco[0], coco[16], coco[18], coco[79]]).toEqual([
      80,
      "person",
      "dog",
      "sheep",
      "toothbrush",
    ]);
  });

  it("are read from a list, JSON of both forms, or lines", async () => {
    await write("list.json", `\n["cat", "dog"]`);
    await write("object.json", `{ "1": "dog", "0": "cat" }`);
    await write("lines.txt", "cat\r\ndog\r\n\r\n");
    for (const value of [
      ["cat", "dog"],
      "list.json",
      "object.json",
      "lines.txt",
      path.join(folder, "lines.txt"),
    ]) {
      expect(await readClassNames(value, folder)).toEqual(["cat", "dog"]);
    }
  });

  it("of a faulty file are refused with what is wrong", async () => {
    await write("hole.json", `{ "0": "cat", "2": "dog" }`);
    await write("numbers.json", `["cat", 7]`);
    await write("cut.json", `["cat", `);
    await write("blank.txt", "cat\n\ndog");
    await write("nothing.txt", "\n\n");
    await expect(readClassNames("none.txt", folder)).rejects.toThrow(
      /got .*none\.txt: there is no such file/,
    );
    await expect(readClassNames("hole.json", folder)).rejects.toThrow("has no label for class 1");
    await expect(readClassNames("numbers.json", folder)).rejects.toThrow('got {"1":7}');
    await expect(readClassNames("cut.json", folder)).rejects.toThrow("begins like JSON but is none");
    await expect(readClassNames("blank.txt", folder)).rejects.toThrow("class 1 is empty");
    await expect(readClassNames("nothing.txt", folder)).rejects.toThrow("holds no labels");
  });

  it("and indices select classes; a label that two classes share selects both", () => {
    const kept = (classes: (string | number)[], labels = ["crane", "dog", "crane", "cat"]) =>
      [0, 1, 2, 3].filter(keepClasses(classes, labels));
    expect(kept([])).toEqual([0, 1, 2, 3]);
    expect(kept(["crane"])).toEqual([0, 2]);
    expect(kept(["cat", 1])).toEqual([1, 3]);
    expect(kept([2], [])).toEqual([2]);
    expect(() => kept(["cat", "crain", 4, -1])).toThrow(
      '"crain" is no label of the model; did you mean "crane"?; class 4 is out of range, the model has the classes 0 to 3; class -1 is out of range',
    );
    expect(() => keepClasses(["tench"], ["tench, Tinca tinca"])).toThrow(
      'did you mean "tench, Tinca tinca"?',
    );
  });
});
