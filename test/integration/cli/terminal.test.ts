/** What somebody reads who only looks at the terminal: a quiet start, errors as sentences, help with examples. */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify, stripVTControlCharacters } from "node:util";
import { afterAll, expect, test } from "vitest";
import { MAIN, runInfermill, SCRIPTED_LOADER, until } from "../../support/infermill.ts";
import { isOnPath, testRedisEnv, whyNoRedis } from "../../support/redis.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "infermill-terminal-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const ENV = { ...testRedisEnv, INFERMILL_CONFIG: "", INFERMILL_DATA_DIR: "", HOST: "", PORT: "" };

function writeConfig(name: string, models: Record<string, unknown>): string {
  const file = join(folder, `${name}.json`);
  writeFileSync(file, JSON.stringify({ port: 0, data_dir: name, models }));
  return file;
}

async function run(args: string[], env: NodeJS.ProcessEnv = {}) {
  const running = runInfermill(args, { cwd: folder, env });
  const { code } = await running.exited;
  return { code, output: running.output() };
}

test.skipIf(whyNoRedis ?? !isOnPath("script"))(
  "a start says little before its banner, in lines that people read",
  async () => {
    const Scripted = { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 1 };
    const command = `exec '${process.execPath}' '${MAIN}' start --config '${writeConfig("quiet", { Scripted })}'`;
    const terminal = spawn("script", ["-qfec", command, "/dev/null"], { env: ENV });
    let output = "";
    terminal.stdout.on("data", (chunk) => (output += stripVTControlCharacters(String(chunk))));
    const ended = new Promise((resolve) => terminal.once("close", resolve));
    await until(() => output.includes("Ctrl-C stops everything"), "the banner");
    terminal.stdin.write("\u0003");
    await ended;
    const lines = output.slice(0, output.indexOf("infermill is ready at")).trim().split(/\r?\n/);
    expect(lines).toEqual([
      expect.stringMatching(/^\[\d\d:\d\d:\d\d\] INFO \(infermill\): version .* starts, with .*quiet\.json$/),
      expect.stringMatching(/^\[\d\d:\d\d:\d\d\] INFO \(worker\): model loaded \{"model":"Scripted"/),
    ]);
    expect(output).toMatch(/INFO \(infermill\): stopping \(SIGINT\)/);
  },
);

test("an unforeseen error is a sentence, and a stack only where the log is to be detailed", async () => {
  const loader = join(folder, "broken.ts");
  writeFileSync(
    loader,
    `import { BaseModelLoader } from "infermill";
     export class BrokenModelLoader extends BaseModelLoader {
       override async load() { (undefined as any).open(); }
     }`,
  );
  writeFileSync(join(folder, "picture.jpg"), "");
  const config = writeConfig("broken", {
    Broken: { loader: "BrokenModelLoader", model_loader_file: loader },
  });
  const args = ["predict", "picture.jpg", "--model", "Broken", "--config", config];
  const { code, output } = await run(args);
  expect(code).toBe(1);
  expect(output).toMatch(/^infermill: .*Cannot read properties of undefined/);
  expect(output).not.toMatch(/^ +at /m);
  expect((await run(args, { LOG_LEVEL: "debug" })).output).toMatch(/^ +at .*broken\.ts/m);
});

test("a name that is nearly right is answered with the right one", async () => {
  const config = writeConfig("names", {
    Detector: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER },
  });
  writeFileSync(join(folder, "picture.jpg"), "");
  for (const [args, meant] of [
    [["strat"], "Did you mean start?"],
    [["start", "--confg", "x"], "Did you mean --config?"],
    [["predict", "picture.jpg", "--model", "Detektor", "--config", config], 'did you mean "Detector"?'],
    [["worker", "--models", "Detektor", "--config", config], 'did you mean "Detector"?'],
  ] as const) {
    const { code, output } = await run([...args]);
    expect(output).toContain(meant);
    expect(code, output).toBe(2);
  }
});

test.each([["init"], ["start"], ["doctor"], ["worker"], ["predict"], ["bulk"], ["models", "inspect"]])(
  "the help of %s has examples",
  async (...command) => {
    const { code, output } = await run([...command, "--help"]);
    expect(code).toBe(0);
    expect(output).toMatch(new RegExp(`\\nExamples:\\n {2}.*infermill ${command.join(" ")}`));
  },
);

test("npm warns of no setting of this project", async () => {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_config_/i.test(name)));
  const { stderr } = await promisify(execFile)("npm", ["pkg", "get", "name", "--loglevel", "warn"], {
    cwd: ROOT,
    env,
  });
  expect(stderr).toBe("");
});
