/** The local method call: no Redis, each model loaded once and kept, faults told in the dictionary. */
import { mkdtempSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { closeModels, ConfigError, executeModel, type PredictionRequest } from "../../../src/index.ts";
import { runInfermill } from "../../support/infermill.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

/** Tells what it is, how many of its kind were loaded, and how many of its calls ran at once. */
const LOADER = `
import { BadInputError, BaseModelLoader, type Finding, type PredictionRequest } from "infermill";

const counts = ((globalThis as any).counts ??= { loads: {}, closes: 0, failures: 0 });

export class CountingModelLoader extends BaseModelLoader {
  #running = 0;

  override async load() {
    if (this.settings["fails_at_first"] && counts.failures++ === 0) throw new Error("no such weights yet");
    await new Promise((resolve) => setTimeout(resolve, 20));
    counts.loads[this.modelName] = (counts.loads[this.modelName] ?? 0) + 1;
  }

  override async predict(_picture: Buffer, threshold: number, request: PredictionRequest): Promise<Finding[]> {
    if (request.Text === "bad") throw new BadInputError("this text can't be used");
    if (request.Text === "broken") throw new Error("something broke");
    this.#running++;
    await new Promise((resolve) => setTimeout(resolve, 5));
    const running = this.#running--;
    return [{ Cs: threshold, Lb: this.modelName, Dm: {}, Nobj: String(running), Info: String(request["Own"] ?? "") }];
  }

  override async close() {
    counts.closes++;
  }
}
`;

interface Counts {
  loads: Record<string, number>;
  closes: number;
}
const counts = () => (globalThis as unknown as { counts: Counts }).counts;

let folder: string;
let config: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "infermill-local-"));
  await writeFile(join(folder, "loader.ts"), LOADER);
  const model = { loader: "CountingModelLoader", model_loader_file: "loader.ts" };
  config = join(folder, "infermill.json");
  await writeFile(
    config,
    JSON.stringify({ models: { First: model, Second: model, Late: { ...model, fails_at_first: true } } }),
  );
});
afterEach(async () => {
  await closeModels();
  if (counts()) counts().loads = {};
});
afterAll(() => rmSync(folder, { recursive: true }));

const request = (keys: PredictionRequest): PredictionRequest => ({
  Tid: "1",
  Base_64: "AAAA",
  C_threshold: 0.25,
  ...keys,
});

describe("executeModel", () => {
  test("gives a dictionary for a dictionary, and JSON for JSON", async () => {
    const expected = { Tid: "1", Rc: "200", Rm: "Success", Fs: [{ Cs: 0.25, Lb: "First" }] };
    expect(await executeModel(request({ Model: "First" }), { config })).toMatchObject(expected);
    const text = await executeModel(JSON.stringify(request({ Model: "First" })), { config });
    expect(JSON.parse(text)).toMatchObject(expected);
  });

  test("hands unknown keys to the loader", async () => {
    const { Fs } = await executeModel(request({ Model: "First", Own: "key" }), { config });
    expect(Fs[0]!.Info).toBe("key");
  });

  test("loads each model once, however many ask at the same time, and never mixes them", async () => {
    const names = Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? "First" : "Second"));
    const responses = await Promise.all(names.map((Model) => executeModel(request({ Model }), { config })));
    expect(responses.map(({ Fs }) => Fs[0]!.Lb)).toEqual(names);
    expect(responses.map(({ Mtp }) => Mtp.at(-1)!.Src)).toEqual(names);
    expect(counts().loads).toEqual({ First: 1, Second: 1 });
  });

  test("calls a loader that can't overlap one request after the other", async () => {
    const responses = await Promise.all(
      Array.from({ length: 5 }, () => executeModel(request({ Model: "First" }), { config })),
    );
    expect(responses.map(({ Fs }) => Fs[0]!.Nobj)).toEqual(["1", "1", "1", "1", "1"]);
  });

  test("loads anew after closeModels, which closed what was open", async () => {
    await executeModel(request({ Model: "First" }), { config });
    const { closes } = counts();
    await closeModels();
    expect(counts().closes).toBe(closes + 1);
    await executeModel(request({ Model: "First" }), { config });
    expect(counts().loads).toEqual({ First: 2 });
  });

  test.each<[string, PredictionRequest, string, RegExp]>([
    ["no model is named", {}, "422", /^Model is missing.*First, Second, Late$/],
    ["a model that there is none of", { Model: "Third" }, "404", /no model "Third"; configured are: First/],
    [
      "a wrong key",
      { Model: "First", C_threshold: 2, Mtp: [] },
      "422",
      /^C_threshold must be a number from 0 to 1/,
    ],
    ["a picture that is no base64", { Model: "First", Base_64: "?" }, "422", /^Base_64 is not base64/],
    ["no picture", { Model: "First", Base_64: "" }, "422", /needs a picture/],
    [
      "a picture that only a server could read",
      { Model: "First", Base_64: "", image: "photos/a.jpg" },
      "422",
      /^image works through a server only; .* Base_64/,
    ],
    ["input that the loader refuses", { Model: "First", Text: "bad" }, "422", /^this text can't be used$/],
    ["a loader that throws", { Model: "First", Text: "broken" }, "500", /^something broke$/],
  ])("%s comes back as Rc and Rm, with the keys echoed", async (_name, keys, code, text) => {
    const response = await executeModel(request(keys), { config });
    expect(response).toMatchObject({ Tid: "1", Fs: [], Rc: code, Rm: expect.stringMatching(text) });
    const fromText = JSON.parse(await executeModel(JSON.stringify(request(keys)), { config }));
    expect(fromText).toMatchObject({ Rc: code, Rm: response.Rm });
  });

  test.each([
    ["{oops", /^the request is not JSON/],
    ["[1]", /^a request must be a JSON object, got a list$/],
  ])("the text %s comes back as Rc 422", async (text, message) => {
    const { Rc, Rm, Fs } = JSON.parse(await executeModel(text, { config }));
    expect([Rc, Fs]).toEqual(["422", []]);
    expect(Rm).toMatch(message);
  });

  test("a configuration or a model that can't be used is thrown, and tried again by the next call", async () => {
    const missing = { config: join(folder, "later.json") };
    await expect(executeModel(request({ Model: "First" }), missing)).rejects.toThrow(ConfigError);
    await writeFile(missing.config, await readFile(config));
    expect((await executeModel(request({ Model: "First" }), missing)).Rc).toBe("200");

    await expect(executeModel(request({ Model: "Late" }), { config })).rejects.toThrow("no such weights yet");
    expect((await executeModel(request({ Model: "Late" }), { config })).Rc).toBe("200");
  });
});

const whyNot = sharedModels && sharedPhotos ? undefined : noSharedModels;

describe.skipIf(whyNot)("with the reference models", () => {
  const milConfig = () => join(folder, "mil_config.json");
  beforeAll(() =>
    writeFile(
      milConfig(),
      JSON.stringify({
        ModelExecutor: { model_name: "CocoObjectDetection_De", model_loader_file: "default" },
        CocoObjectDetection_De: {
          model_path: [join(sharedModels!, "detecto_style/detecto_style_yolox_nano.onnx")],
          classes: [1],
        },
        CocoObjectDetection_Y8: { model_path: [join(sharedModels!, "yolov8n/yolov8n.onnx")], classes: [0] },
      }),
    ),
  );
  const people = () => join(sharedPhotos!, "imil_people.jpg");

  test("a mil_config.json serves both of its models side by side; without Model its model_name answers", async () => {
    const Base_64 = (await readFile(people())).toString("base64");
    const options = { config: milConfig() };
    const run = (Model: string) => executeModel({ Model, Base_64, C_threshold: 0.5 }, options);
    const [detecto, yolo, main] = await Promise.all([
      run("CocoObjectDetection_De"),
      run("CocoObjectDetection_Y8"),
      run(""),
    ]);
    for (const { Fs } of [detecto, yolo]) expect(Fs.map(({ Lb }) => Lb)).toEqual(Array(5).fill("person"));
    expect(detecto.Fs).not.toEqual(yolo.Fs);
    expect(main.Fs).toEqual(detecto.Fs);
  });

  test("infermill test prints each response as a line, and how long they took", async () => {
    const infermill = runInfermill([
      "test",
      "--config",
      milConfig(),
      "--model",
      "CocoObjectDetection_De",
      "--confidence",
      "0.5",
      "--iteration",
      "3",
      "--image",
      people(),
      "--prompt",
      "['fire', 'smoke', 'neutral']",
    ]);
    let stdout = "";
    infermill.child.stdout!.on("data", (chunk) => (stdout += chunk));
    expect((await infermill.exited).code, infermill.output()).toBe(0);
    const responses = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { Fs: unknown[]; Prompt: unknown; Rc: string });
    expect(responses.map(({ Fs, Rc }) => [Fs.length, Rc])).toEqual([
      [5, "200"],
      [5, "200"],
      [5, "200"],
    ]);
    expect(responses[0]!.Prompt).toEqual([["fire", "smoke", "neutral"]]);
    expect(infermill.output()).toMatch(
      /CocoObjectDetection_De: loaded in [\d.]+ ms, 3 runs: [\d.]+ ms on average, [\d.]+ at best, [\d.]+ at worst/,
    );
  });

  test.each<[string, string[], number, RegExp]>([
    ["a response that is no success", ["--confidence", "7"], 1, /C_threshold must be a number from 0 to 1/],
    ["a count that is none", ["--iteration", "0"], 2, /--iteration must be a whole number ≥ 1, got 0/],
    ["prompts that are no list", ["--prompt", "fire"], 2, /--prompt must be a JSON list/],
    ["a picture that isn't there", ["--image", "none.jpg"], 2, /there is no file none\.jpg/],
    ["a model that there is none of", ["--model", "Nobody"], 2, /no model "Nobody"; configured are: /],
    ["a configuration that isn't there", ["--config", "none.json"], 2, /there is no such file/],
  ])("infermill test ends with %s", async (_name, args, code, message) => {
    const given = ["--config", milConfig(), "--image", people(), ...args];
    const infermill = runInfermill(["test", ...given], { cwd: folder });
    expect((await infermill.exited).code, infermill.output()).toBe(code);
    expect(infermill.output()).toMatch(message);
  });
});
