/** `infermill init`, and what its README says, followed to the first answer. */
import { execFile, spawn } from "node:child_process";
import {
  existsSync,
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
import { promisify, stripVTControlCharacters } from "node:util";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import { MAIN, runInfermill, until } from "../../support/infermill.ts";
import { plainPicture, writeColourModel } from "../../support/pictures.ts";
import { whyNoPython } from "../../support/python.ts";
import { isOnPath, testRedisEnv, whyNoRedis } from "../../support/redis.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const ENV = { ...testRedisEnv, INFERMILL_CONFIG: "", INFERMILL_DATA_DIR: "", PORT: "0", NO_COLOR: "1" };

const parent = mkdtempSync(join(tmpdir(), "infermill-init-"));
afterAll(() => rmSync(parent, { recursive: true, force: true }));
let folder: string;
let count = 0;
/** A project that has the package. */
beforeEach(() => {
  folder = join(parent, String(count++));
  mkdirSync(join(folder, "node_modules/.bin"), { recursive: true });
  symlinkSync(ROOT, join(folder, "node_modules/infermill"));
  // npm makes the command executable when it installs it.
  const command = `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`;
  writeFileSync(join(folder, "node_modules/.bin/infermill"), command, { mode: 0o755 });
});

const textOf = (...names: string[]) => readFileSync(join(folder, ...names), "utf8");

async function init(...args: string[]): Promise<{ code: number | null; output: string }> {
  const running = runInfermill(["init", ...args], { cwd: folder });
  const { code } = await running.exited;
  return { code, output: running.output() };
}

/** Runs the two commands of the README: the first until it is ready, the second to its answer. */
async function followReadme(): Promise<Prediction> {
  const readme = textOf("README.md");
  const [start, request] = [...readme.matchAll(/^```bash\n(.*?)^```$/gms)].map(([, block]) => block!);
  expect(readme.trim().split("\n").filter(Boolean).length, "lines of the README").toBeLessThanOrEqual(10);
  // A group of its own: Ctrl-C reaches npx and what it started.
  const child = spawn("bash", ["-c", start!], { cwd: folder, env: ENV, detached: true });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  const ended = new Promise((resolve) => child.once("close", resolve));
  try {
    const url = await until(() => {
      if (child.exitCode !== null) throw new Error(output);
      return /is ready at (\S+)/.exec(output)?.[1];
    }, "the start");
    const { stdout } = await promisify(execFile)(
      "bash",
      ["-c", request!.replace("http://127.0.0.1:8448", url)],
      {
        cwd: folder,
      },
    );
    return JSON.parse(stdout) as Prediction;
  } finally {
    if (child.exitCode === null) process.kill(-child.pid!, "SIGINT");
    await ended;
  }
}

describe.skipIf(whyNoRedis ?? (isOnPath("curl") && isOnPath("bash") ? undefined : "needs bash and curl"))(
  "the README of infermill init leads to an answer",
  () => {
    test("of a loader in TypeScript: the disc of the sample picture, boxed", async () => {
      expect(await init()).toMatchObject({ code: 0 });
      const prediction = await followReadme();
      expect(prediction).toMatchObject({ model: "Spot", status: "succeeded" });
      const [{ Lb, Dm }] = prediction.result!.Fs as unknown as [{ Lb: string; Dm: Record<string, number> }];
      expect(Lb).toBe("spot");
      // The disc is drawn at (200, 110) with a radius of 60, on 320 × 240; the loader sees 64 pixels a side.
      const disc = { X: 140 / 320, Y: 50 / 240, W: 120 / 320, H: 120 / 240 };
      for (const [key, value] of Object.entries(disc))
        expect(Math.abs(Dm[key]! - value)).toBeLessThan(1 / 64);
    });

    test.skipIf(whyNoPython)("of a loader in Python", async () => {
      expect(await init("--python")).toMatchObject({ code: 0 });
      expect(await followReadme()).toMatchObject({ status: "succeeded", result: { Words: 5 } });
    });

    test("of a model, with the loader that fits it", async () => {
      writeColourModel(join(folder, "colours.onnx"));
      const { code, output } = await init("--model", "colours.onnx");
      expect(code, output).toBe(0);
      expect(output).toContain("colours.onnx gets the ImageClassificationModelLoader");
      expect(output).toContain("The file doesn't say its labels");
      expect(JSON.parse(textOf("config/infermill.json")).models).toEqual({
        colours: { loader: "ImageClassificationModelLoader", model_path: ["../colours.onnx"] },
      });
      expect(await followReadme()).toMatchObject({ model: "colours", status: "succeeded" });
    });
  },
);

describe("infermill init", () => {
  test("names the schema of the package that the project has, and brings one where there is none", async () => {
    await init("with");
    const { $schema } = JSON.parse(textOf("with/config/infermill.json"));
    expect(existsSync(join(folder, "with/config", $schema))).toBe(true);
    expect(existsSync(join(folder, "with/config/infermill.schema.json"))).toBe(false);
    rmSync(join(folder, "node_modules"), { recursive: true });
    await init("without");
    expect(JSON.parse(textOf("without/config/infermill.json")).$schema).toBe("./infermill.schema.json");
    expect(JSON.parse(textOf("without/config/infermill.schema.json"))).toHaveProperty("properties.models");
  });

  test("overwrites nothing: it refuses a folder that has one of its files, a README stays", async () => {
    writeFileSync(join(folder, "README.md"), "mine");
    expect(await init()).toMatchObject({
      code: 0,
      output: expect.stringContaining("README.md is there already"),
    });
    expect(textOf("README.md")).toBe("mine");
    writeFileSync(join(folder, "config/infermill.json"), "mine, too");
    rmSync(join(folder, "sample.png"));
    const { code, output } = await init();
    expect(code).toBe(2);
    expect(output).toMatch(/has config\/infermill\.json, .* already, nothing was written/);
    expect(textOf("config/infermill.json")).toBe("mine, too");
    expect(existsSync(join(folder, "sample.png"))).toBe(false);
  });

  test.each([
    [["--model", "none.onnx"], /must be a file that exists/],
    [["--model", "picture.jpg"], /picture\.jpg is no \.onnx file/],
    [["--model", "x.onnx", "--python"], /exclude each other/],
  ])("%j is refused with the reason, and nothing is written", async (args, reason) => {
    writeFileSync(join(folder, "picture.jpg"), await plainPicture(1, 2, 3));
    const { code, output } = await init(...args);
    expect(code).toBe(2);
    expect(output).toMatch(reason);
    expect(existsSync(join(folder, "config"))).toBe(false);
  });

  test.skipIf(!isOnPath("script"))("asks on a terminal, and takes a return for its default", async () => {
    const command = `exec '${process.execPath}' '${MAIN}' init`;
    const terminal = spawn("script", ["-qfec", command, "/dev/null"], { cwd: folder, env: ENV });
    let output = "";
    terminal.stdout.on("data", (chunk) => (output += stripVTControlCharacters(String(chunk))));
    const ended = new Promise((resolve) => terminal.once("close", resolve));
    for (const [question, answer] of [
      ["Folder [.]: ", "asked"],
      ["a loader of your own): ", ""],
      ["python [typescript]: ", ""],
    ] as const) {
      await until(() => output.includes(question), question);
      terminal.stdin.write(`${answer}\n`);
    }
    await ended;
    expect(output).toContain("cd asked");
    expect(existsSync(join(folder, "asked/loaders/SpotModelLoader.ts"))).toBe(true);
  });
});

test("infermill start without a configuration says what to do, and exits as for wrong usage", async () => {
  const running = runInfermill(["start"], { cwd: folder });
  expect(await running.exited).toMatchObject({ code: 2 });
  expect(running.output()).toContain("npx infermill init ");
  // The clone has the weights.
  expect(running.output()).toContain(
    "npx infermill start --demo              serves the demo detector, whose weights are here",
  );
});
