/** Loaders in Python that need no packages: what they may be, what they get and answer, how their faults are told. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/errors.ts";
import { closeModels, executeModel } from "../../../src/executeModel.ts";
import { checkLoaders } from "../../../src/loaders/openLoader.ts";
import type { Json } from "../../support/api.ts";
import { runInfermill, startInfermill, submit, type TestInfermill } from "../../support/infermill.ts";
import { plainPicture } from "../../support/pictures.ts";
import { python, whyNoPython } from "../../support/python.ts";
import { whyNoRedis } from "../../support/redis.ts";

const EXAMPLES = fileURLToPath(new URL("../../../examples/python-loaders", import.meta.url));
const LOADERS = fileURLToPath(new URL("../../loaders", import.meta.url));

const folder = mkdtempSync(join(tmpdir(), "infermill-python-"));
afterAll(async () => {
  await closeModels();
  rmSync(folder, { recursive: true, force: true });
});

function write(file: string, text: string): string {
  const path = join(folder, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

/** Writes a configuration of these models into the folder of their files. */
function configOf(models: Record<string, object>, name = "infermill.json"): string {
  return write(name, JSON.stringify({ port: 0, data_dir: "data", models }));
}

describe.skipIf(whyNoRedis || whyNoPython)("a loader in Python", () => {
  let infermill: TestInfermill;

  beforeAll(async () => {
    mkdirSync(join(folder, "test_module"));
    cpSync(join(LOADERS, "scripted.py"), join(folder, "test_module/scripted.py"));
    write("whole/__init__.py", "from .loader import PackageModelLoader\n");
    write("whole/words.py", "WORD = 'relative'\n");
    write(
      "whole/loader.py",
      "from .words import WORD\n\n\nclass PackageModelLoader:\n    def predict_request(self, request):\n        return {'Word': WORD}\n",
    );
    write(
      "probe.py",
      `import os
import sys
from dataclasses import dataclass

from infermill import BaseModelLoader, Output, attach_outputs


class ProbeModelLoader(BaseModelLoader):
    @dataclass
    class Options:
        greeting: str = "hello"
        scale: float = 1

    def predict_requests(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        response = {
            "Greeting": self.options.greeting,
            "Scale": self.options.scale,
            "Threads": os.environ["OMP_NUM_THREADS"],
            "Word": os.environ.get("WORD"),
            "Pictures": [len(picture.bytes) for picture in request.pictures],
            "Length": len(request["Base_64"]) if request.pictures else 0,
            "Keys": sorted(request),
            "Parent": os.getppid(),
            "Labels": self.settings["class_names"][:2],
        }
        return attach_outputs(response, [Output("raw", "application/x-raw", b"\\x00\\x01\\xff" * 3)])

    def describe(self):
        return {"labels": ["a", "b"], "picture": "optional", "notes": [f"python {sys.version_info[0]}"]}
`,
    );
    const own = { python, instances: 1 };
    infermill = await startInfermill({
      models: {
        Greeting: {
          loader: "GreetingModelLoader",
          model_loader_file: join(EXAMPLES, "greeting.py"),
          ...own,
        },
        Async: { loader: "AsyncModelLoader", model_loader_file: join(LOADERS, "scripted.py"), ...own },
        Package: { loader: "PackageModelLoader", model_loader_file: join(folder, "whole"), ...own },
        Module: {
          loader: "ScriptedModelLoader",
          model_loader_file: "test_module.scripted:ScriptedModelLoader",
          env: { PYTHONPATH: folder },
          ...own,
        },
        Probe: {
          loader: "ProbeModelLoader",
          model_loader_file: join(folder, "probe.py"),
          ...own,
          env: { WORD: "of the configuration" },
          greeting: "good day",
          scale: 2,
          intra_op_threads: 3,
          class_names: ["coco"],
          max_queue_delay_ms: 100,
        },
      },
    });
  });
  afterAll(() => infermill?.stop());

  test("may be a plain class with one method", async () => {
    const { result } = await submit(infermill.url, "Greeting", { Name: "Ada" });
    expect(result).toEqual({ Greeting: "Hello Ada" });
    const { error } = await submit(infermill.url, "Greeting", {});
    expect(error).toMatchObject({
      code: "bad_input",
      detail: "the request must have the key Name, which this model's loader reads",
    });
  });

  test("may have async methods, and stand in a package or a module", async () => {
    expect((await submit(infermill.url, "Async", { Fid: "7" })).result).toEqual({ Loaded: true, Fid: "7" });
    expect((await submit(infermill.url, "Package", {})).result).toEqual({ Word: "relative" });
    expect((await submit(infermill.url, "Module", { Fid: "8" })).result!.Fs[0]!.Lb).toBe("8");
  });

  test("gets its options, environment, threads, labels and pictures, and answers bytes beside its dictionary", async () => {
    const picture = await plainPicture(1, 2, 3);
    const Base_64 = [picture.toString("base64")];
    const both = await Promise.all([
      submit(infermill.url, "Probe", { Base_64, Tid: "1" }),
      submit(infermill.url, "Probe", {}),
    ]);
    expect(both.map(({ batch_size }) => batch_size)).toEqual([2, 2]);
    const prediction: Json = both[0];
    expect(prediction.result).toMatchObject({
      Greeting: "good day",
      Scale: 2,
      Threads: "3",
      Word: "of the configuration",
      Pictures: [picture.length],
      Length: Base_64[0]!.length,
      Keys: ["Base_64", "Tid"],
      Labels: ["person", "bicycle"],
    });
    expect(prediction.outputs).toMatchObject([{ name: "raw", media_type: "application/x-raw", bytes: 9 }]);
    const described: Json = await (await fetch(`${infermill.url}/v1/models/Probe`)).json();
    expect(described).toMatchObject({ labels: ["a", "b"], notes: ["python 3"] });
  });

  test("fails with its kind, its text and its own line; the log has the traceback of its file", async () => {
    const { error } = await submit(infermill.url, "Module", { Do: "throw" });
    expect(error).toMatchObject({
      code: "loader_failed",
      detail: expect.stringMatching(
        /^RuntimeError: told to throw \(scripted\.py, line \d+ in predict_requests\)$/,
      ),
    });
    const [line] = await infermill.printed(/^.*prediction failed: loader_failed: RuntimeError.*$/m);
    const { stack } = JSON.parse(line).err;
    expect(stack).toContain("scripted.py");
    expect(stack).not.toContain("infermill/engine.py");
  });
});

test.skipIf(whyNoPython)(
  "executeModel and the command line run a loader in Python without a worker",
  async () => {
    const model = { loader: "GreetingModelLoader", model_loader_file: join(EXAMPLES, "greeting.py"), python };
    const config = configOf({ Greeting: model }, "local.json");
    expect(await executeModel({ Name: "Ada" }, { config })).toMatchObject({ Greeting: "Hello Ada" });
    expect(await executeModel({}, { config })).toMatchObject({ Rc: "422" });

    const run = runInfermill(["test", "--config", config, "--iteration", "2"]);
    await run.exited;
    expect(run.output()).toContain("the request must have the key Name");
  },
);

describe.skipIf(whyNoPython)("a fault of a loader in Python is told at start", () => {
  async function problemOf(settings: Record<string, unknown>): Promise<string> {
    const model = { loader: "MineModelLoader", python, ...settings };
    const config = configOf({ Mine: model }, `faulty-${crypto.randomUUID()}.json`);
    try {
      await loadConfig({ file: config, env: {}, check: checkLoaders });
    } catch (error) {
      if (error instanceof ConfigError)
        return error.faults.map(({ key, problem }) => `${key} ${problem}`).join("\n");
      throw error;
    }
    const local = executeModel({}, { config });
    return local.then(
      () => "no fault was found",
      (error: Error) => error.message,
    );
  }

  const loader = (body: string) => write(`${crypto.randomUUID().slice(0, 8)}/mine.py`, `${body}\n`);
  const sound = "class MineModelLoader:\n    def predict_request(self, request):\n        return {}\n";

  test.each<[string, () => Record<string, unknown>, RegExp]>([
    [
      "no interpreter",
      () => ({ model_loader_file: loader(sound), python: "no/such/venv" }),
      /^models\.Mine\.python must be a Python interpreter or the folder of a virtual environment, there is none at .*no\/such\/venv/,
    ],
    [
      "an interpreter that is none",
      () => ({ model_loader_file: loader(sound), python: write("false.sh", "") }),
      /^models\.Mine\.python .*false\.sh can't be run as Python 3\.9 or later: /,
    ],
    [
      "no file",
      () => ({ model_loader_file: "nowhere.py" }),
      /^models\.Mine\.model_loader_file must be a Python file, there is none at .*nowhere\.py/,
    ],
    [
      "a package that isn't installed",
      () => ({ model_loader_file: loader(`import cv2\n\n\n${sound}`) }),
      /^models\.Mine\.model_loader_file .*mine\.py \(mine\.py, line 1\) imports "cv2", which isn't installed for .*python.* \(Python 3\.\d+\.\d+\): run .* -m pip install opencv-python-headless/,
    ],
    [
      "a package that a package lacks",
      () => ({
        model_loader_file: loader(`import sys\nsys.path.append('x')\nimport no_such_thing\n${sound}`),
      }),
      /^models\.Mine\.model_loader_file .* imports "no_such_thing", which isn't installed for .*pip install no_such_thing/,
    ],
    [
      "a syntax error",
      () => ({ model_loader_file: loader("class MineModelLoader\n    pass") }),
      /^models\.Mine\.model_loader_file .*mine\.py can't be imported: SyntaxError: .*\(line 1\)/,
    ],
    [
      "another class",
      () => ({ model_loader_file: loader(sound.replaceAll("Mine", "Mind")) }),
      /^models\.Mine\.loader must be a class of .*mine\.py, got "MineModelLoader"; the file has MindModelLoader; did you mean "MindModelLoader"\?/,
    ],
    [
      "a name that is no loader's",
      () => ({ loader: "Mine", model_loader_file: loader(sound) }),
      /^models\.Mine\.loader must be the name of a class that ends in ModelLoader/,
    ],
    [
      "a class without the method",
      () => ({ model_loader_file: loader("class MineModelLoader:\n    pass") }),
      /^models\.Mine\.loader must be a class with a method predict_request \(or predict_requests\), MineModelLoader of .* has neither/,
    ],
    [
      "an import that raises",
      () => ({ model_loader_file: loader(`${sound}\nraise OSError("no licence")`) }),
      /^models\.Mine\.model_loader_file .*mine\.py can't be imported: OSError: no licence \(mine\.py, line \d+\)/,
    ],
    [
      "a constructor that raises",
      () => ({
        model_loader_file: loader(
          `${sound}\n    def __init__(self, config, name):\n        raise KeyError("clip_model")`,
        ),
      }),
      /^models\.Mine: the constructor of MineModelLoader failed: KeyError: 'clip_model' \(mine\.py, line \d+ in __init__\)/,
    ],
    [
      "options that it doesn't take",
      () => ({
        model_loader_file: loader(
          `from dataclasses import dataclass\nfrom typing import Literal\nfrom infermill import BaseModelLoader\nclass MineModelLoader(BaseModelLoader):\n    @dataclass\n    class Options:\n        size: int\n        mode: Literal["fast", "good"] = "fast"`,
        ),
        mode: "best",
        modd: 1,
      }),
      /^models\.Mine\.modd is no setting of MineModelLoader; did you mean "mode"\?; models\.Mine\.size is missing: it must be a whole number; models\.Mine\.mode must be one of "fast", "good", got "best"/,
    ],
    [
      "options that its JSON Schema doesn't take",
      () => ({
        model_loader_file: loader(
          `from infermill import BaseModelLoader\nclass MineModelLoader(BaseModelLoader):\n    Options = {"properties": {"size": {"type": "integer", "minimum": 1}}, "required": ["size"]}`,
        ),
        size: 0,
      }),
      /^models\.Mine\.size must be ≥ 1, got 0/,
    ],
    [
      "a description that is none",
      () => ({
        model_loader_file: loader(`${sound}\n    def describe(self):\n        return {"labels": "all"}`),
      }),
      /^what describe\(\) returned can't be used: labels: /,
    ],
  ])("%s", async (_what, settings, problem) => {
    expect(await problemOf(settings())).toMatch(problem);
  });
});
