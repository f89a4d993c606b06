import { cpSync, mkdtempSync, readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PredictionRequest } from "../../../src/index.ts";
import type { Prediction } from "../../support/answers.ts";
import { imageEncoder, textEncoder, uselessMerges } from "../../support/clip.ts";
import { detector } from "../../support/detector.ts";
import { runInfermill, startInfermill, submit, type TestInfermill } from "../../support/infermill.ts";
import { modelFile, temporaryFile } from "../../support/loaders.ts";
import { plainPicture } from "../../support/pictures.ts";
import { whyNoRedis } from "../../support/redis.ts";

const EXAMPLES = fileURLToPath(new URL("../../../examples/custom-loaders", import.meta.url));
const PROMPTS = ["a red hat", "the sea", "night"];

describe.skipIf(whyNoRedis)("IMIL's two examples, served", () => {
  let infermill: TestInfermill;
  let picture: string;

  beforeAll(async () => {
    const clip = [
      await modelFile(imageEncoder()),
      await modelFile(textEncoder()),
      await temporaryFile("txt", uselessMerges),
    ];
    const helmets = await modelFile(
      detector([
        { box: [0.1, 0.2, 0.5, 0.6], label: 2, score: 0.75 },
        { box: [0.25, 0, 0.75, 1], label: 1, score: 0.875 },
        { box: [0, 0, 0.5, 0.5], label: 1, score: 0.25 },
      ]),
    );
    const custom = (loader: string, file: string) => ({
      loader,
      model_loader_file: join(EXAMPLES, file),
      instances: 1,
    });
    infermill = await startInfermill({
      models: {
        CustomClipModelLoader: {
          ...custom("CustomClipModelLoader", "customClipModelLoader.ts"),
          model_path: clip,
          clip_model: "ViT-B/16",
        },
        BuiltInClip: { loader: "ClipModelLoader", model_path: clip, instances: 1 },
        CustomDetectoModelLoader: {
          ...custom("CustomDetectoModelLoader", "customDetectoModelLoader.ts"),
          model_path: [helmets],
          labels: ["helmet", "vest"],
        },
        DetectoOfCoco: {
          ...custom("CustomDetectoModelLoader", "customDetectoModelLoader.ts"),
          model_path: [helmets],
          classes: [1],
        },
      },
    });
    picture = (await plainPicture(200, 30, 60)).toString("base64");
  });
  afterAll(() => infermill?.stop());

  async function succeed(model: string, request: PredictionRequest): Promise<Prediction["result"]> {
    const { status, result, error } = await submit(infermill.url, model, { Base_64: picture, ...request });
    expect(status, JSON.stringify(error)).toBe("succeeded");
    return result;
  }

  test("CustomClipModelLoader answers as the built-in loader does", async () => {
    const request = { Tid: "7", Prompt: [PROMPTS], C_threshold: "0" };
    const result = await succeed("CustomClipModelLoader", request);
    expect(result).toMatchObject({ Tid: "7", Rc: "200", Rm: "Success" });
    expect(result!.Mtp.at(-1)!.Src).toBe("CustomClipModelLoader");
    expect(result!.Fs.map(({ Lb, Dm }) => [Lb, Dm])).toEqual(PROMPTS.map((text) => [text, {}]));
    expect(result!.Fs.reduce((sum, { Cs }) => sum + Cs, 0)).toBeCloseTo(1, 3);
    const builtIn = await succeed("BuiltInClip", request);
    for (const [at, { Cs }] of result!.Fs.entries()) expect(Cs).toBeCloseTo(builtIn!.Fs[at]!.Cs, 3);

    const { Cs: middle } = result!.Fs.toSorted((a, b) => b.Cs - a.Cs)[1]!;
    const above = await succeed("CustomClipModelLoader", { ...request, C_threshold: middle });
    expect(above!.Fs).toEqual(result!.Fs.filter(({ Cs }) => Cs >= middle));
  });

  test("CustomClipModelLoader refuses what it can't use", async () => {
    const refused = async (request: PredictionRequest) => {
      const { error } = await submit(infermill.url, "CustomClipModelLoader", {
        Base_64: picture,
        ...request,
      });
      return [error?.code, error?.detail];
    };
    expect(await refused({ Prompt: [["fire", 7]] })).toEqual([
      "bad_input",
      "Prompt[0][1] must be a text, got 7",
    ]);
    expect(await refused({ Prompt: ["a"], Base_64: [picture, picture] })).toEqual([
      "bad_input",
      "Base_64 must hold one picture, got 2",
    ]);
    await expect(submit(infermill.url, "CustomClipModelLoader", { Base_64: picture })).rejects.toThrow(
      /^422: .*Prompt/,
    );
  });

  test("CustomDetectoModelLoader has the labels of its section, and COCO's without", async () => {
    const own = await succeed("CustomDetectoModelLoader", {});
    expect(own!.Fs).toEqual([
      { Cs: 0.875, Lb: "helmet", Dm: { X: 0.25, Y: 0, W: 0.5, H: 1 } },
      { Cs: 0.75, Lb: "vest", Dm: { X: 0.1, Y: 0.2, W: 0.4, H: 0.4 } },
    ]);
    const coco = await succeed("DetectoOfCoco", { C_threshold: 0.2 });
    expect(coco!.Fs.map(({ Lb, Cs }) => [Lb, Cs])).toEqual([
      ["person", 0.875],
      ["person", 0.25],
    ]);
  });
});

describe.skipIf(whyNoRedis)("a custom loader that is at fault", () => {
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "infermill-faulty-"));
    await writeFile(
      join(folder, "faulty.ts"),
      `import { BaseModelLoader } from "infermill";
       export class ThrowingModelLoader extends BaseModelLoader {
         constructor(config: any, modelName: string) {
           super(config, modelName);
           throw new Error("no licence in this section");
         }
       }
       export class SilentModelLoader extends BaseModelLoader {
         override async predictRequest(): Promise<any> {}
       }
       export class NumberModelLoader extends BaseModelLoader {
         override async predict(): Promise<any> { return 42; }
       }`,
    );
    cpSync(join(EXAMPLES, "customClipModelLoader.ts"), join(folder, "clip.ts"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  async function refusal(settings: Record<string, unknown>): Promise<string> {
    const file = join(folder, "refused.json");
    await writeFile(file, JSON.stringify({ port: 0, models: { Mine: settings } }));
    const running = runInfermill(["start", "--config", file]);
    const { code } = await running.exited;
    expect(code).not.toBe(0);
    return running.output();
  }

  test("in its constructor stops the start with the reason", async () => {
    expect(await refusal({ loader: "ThrowingModelLoader", model_loader_file: "faulty.ts" })).toContain(
      "models.Mine: the constructor of ThrowingModelLoader failed: no licence in this section",
    );
    const clip = { loader: "CustomClipModelLoader", model_loader_file: "clip.ts", clip_model: "ViT-B/64" };
    expect(await refusal(clip)).toContain(
      'the constructor of CustomClipModelLoader failed: clip_model must be one of ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px, got "ViT-B/64"',
    );
  });

  test("by its name, its file or its parent stops the start with what to do", async () => {
    await writeFile(join(folder, "stranger.ts"), "export class StrangerModelLoader {}");
    expect(await refusal({ loader: "Clip", model_loader_file: "clip.ts" })).toContain(
      "models.Mine.loader must be the name of a class that ends in ModelLoader",
    );
    expect(await refusal({ loader: "CustomClipModelLoader", model_loader_file: "gone.ts" })).toContain(
      `models.Mine.model_loader_file must be a TypeScript or JavaScript file, there is none at ${join(folder, "gone.ts")}`,
    );
    expect(await refusal({ loader: "StrangerModelLoader", model_loader_file: "stranger.ts" })).toContain(
      "models.Mine.loader must extend BaseModelLoader",
    );
  });

  test("in what it returns fails the prediction with what was expected", async () => {
    const faulty = { model_loader_file: join(folder, "faulty.ts"), instances: 1 };
    const infermill = await startInfermill({
      models: {
        Silent: { ...faulty, loader: "SilentModelLoader" },
        Number: { ...faulty, loader: "NumberModelLoader" },
      },
    });
    try {
      const Base_64 = (await plainPicture(1, 2, 3)).toString("base64");
      const failure = async (model: string) => {
        const { status, error } = await submit(infermill.url, model, { Base_64 });
        expect(status).toBe("failed");
        return [error!.code, error!.detail];
      };
      expect(await failure("Silent")).toEqual([
        "loader_failed",
        "the loader must return a response dictionary, got undefined",
      ]);
      expect(await failure("Number")).toEqual([
        "loader_failed",
        "predict() of NumberModelLoader must return a list of findings, got 42",
      ]);
    } finally {
      await infermill.stop();
    }
  });
});

describe("docs/custom-loaders.md", () => {
  const document = readFileSync(new URL("../../../docs/custom-loaders.md", import.meta.url), "utf8");

  test.each(["customClipModelLoader.ts", "customDetectoModelLoader.ts"])("shows all of %s", (name) => {
    const blocks = [...document.matchAll(/^```ts (\S+)\n(.*?)^```$/gms)]
      .filter(([, file]) => file === `examples/custom-loaders/${name}`)
      .map(([, , text]) => text!);
    const withoutBlankLines = (text: string) => text.split("\n").filter((line) => line.trim() !== "");
    expect(withoutBlankLines(blocks.join("\n"))).toEqual(
      withoutBlankLines(readFileSync(join(EXAMPLES, name), "utf8")),
    );
  });
});
