/** docs/coming-from-imil.md is true: its mil_config.json is served, its local call runs, its table of models is the code's. */
import { execFile } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BUILT_IN_LOADERS } from "../../../src/loaders/registry.ts";
import { send } from "../../support/api.ts";
import { runInfermill, type InfermillProcess } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const text = readFileSync(join(ROOT, "docs/coming-from-imil.md"), "utf8");

/** The text of the block whose fence ends so. */
function blockOf(fence: string): string {
  const found = text.split("```").find((part) => part.startsWith(`${fence}\n`));
  if (found === undefined) throw new Error(`the document has no block ${fence}`);
  return found.slice(fence.length + 1);
}

const whyNot = whyNoRedis ?? (sharedModels && sharedPhotos ? undefined : noSharedModels);

describe.skipIf(whyNot)("with its mil_config.json and the weights exported", () => {
  let folder: string;
  let infermill: InfermillProcess;
  let url: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "infermill-from-imil-"));
    mkdirSync(join(folder, "weights"));
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(ROOT, join(folder, "node_modules/infermill"));
    writeFileSync(join(folder, "mil_config.json"), blockOf("json mil mil_config.json"));
    writeFileSync(join(folder, "local.mjs"), blockOf("js local.mjs"));
    for (const [from, to] of [
      [
        join(sharedModels!, "detecto_style/detecto_style_yolox_nano.onnx"),
        "weights/fasterrcnn_resnet50_fpn.onnx",
      ],
      [join(sharedModels!, "squeezenet1_1/squeezenet1_1.onnx"), "weights/squeezenet1_1.onnx"],
      [join(sharedPhotos!, "imil_people.jpg"), "people.jpg"],
    ] as const)
      copyFileSync(from, join(folder, to));
    infermill = runInfermill(["start", "--config", "mil_config.json"], { cwd: folder, env: { PORT: "0" } });
    [, url = ""] = await infermill.printed(/is ready at (\S+)/);
  });
  afterAll(async () => {
    infermill?.child.kill("SIGINT");
    await infermill?.exited;
    rmSync(folder, { recursive: true, force: true });
  });

  test("infermill start serves both models and its endpoint, and warns of the third once, with the way to export it", async () => {
    const picture = readFileSync(join(folder, "people.jpg")).toString("base64");
    for (const path of ["detect", "CocoObjectDetection_De"]) {
      const { body } = await send("POST", `${url}/${path}`, { Base_64: picture, C_threshold: 0.5 });
      expect([path, body.Rc, body.Fs.length]).toEqual([path, "200", 5]);
    }
    const { body } = await send("POST", `${url}/PyTorch`, { Base_64: picture, C_threshold: 0 });
    expect([body.Rc, body.Fs.length]).toEqual(["200", 1000]);
    const warnings = infermill.output().match(/infermill: warning: .*/g);
    expect(warnings).toHaveLength(1);
    expect(warnings![0]).toContain("CocoObjectDetection_Y7 is not served");
    expect(warnings![0]).toContain("python export.py --weights weights/yolov7.pt --grid");
  });

  test("the local call does what it says, from a project that has the package", async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ["local.mjs"], { cwd: folder });
    expect(stdout.trim().split("\n")).toEqual([
      "200 [ 'person', 'person', 'person', 'person', 'person' ]",
      '422 C_threshold must be a number from 0 to 1 (or one in a string), got "high"',
    ]);
  });
});

test("every loader that it names is a built-in one", () => {
  const named = [...text.matchAll(/`(\w+ModelLoader)`/g)].map(([, name]) => name!);
  const unknown = named.filter((name) => !(name in BUILT_IN_LOADERS) && !name.startsWith("Custom"));
  expect(named.length).toBeGreaterThan(8);
  expect(unknown).toEqual([]);
});
