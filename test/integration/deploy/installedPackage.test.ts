/** docs/custom-loaders.md, followed by somebody who has the package and nothing else. */
import { execFile, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encodeModel } from "../../../src/models/onnxProto.ts";
import { imageEncoder, textEncoder, uselessMerges } from "../../support/clip.ts";
import { detector } from "../../support/detector.ts";
import { submit } from "../../support/infermill.ts";
import { plainPicture } from "../../support/pictures.ts";
import { testRedisEnv, whyNoRedis } from "../../support/redis.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const run = promisify(execFile);

test("npm ci in the clone runs no install script of onnxruntime-node", () => {
  // npm writes this flag again when its version changes; without the flag the script isn't run, and .npmrc needs no setting for it.
  const { packages } = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")) as {
    packages: Record<string, { hasInstallScript?: boolean }>;
  };
  expect(
    packages["node_modules/onnxruntime-node"],
    "remove its hasInstallScript from package-lock.json",
  ).not.toHaveProperty("hasInstallScript");
});

describe.skipIf(whyNoRedis)("in an empty folder with the installed package", () => {
  let folder: string;
  let picture: Buffer;
  const env = {
    ...process.env,
    ...testRedisEnv,
    INFERMILL_CONFIG: "",
    PORT: "0",
    NO_COLOR: "1",
  };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "infermill-installed-"));
    picture = await plainPicture(250, 240, 230);
    writeFileSync(join(folder, "light.jpg"), picture);
    // Without the scripts: they would build dist anew under the feet of the other tests.
    await run("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", folder], {
      cwd: ROOT,
      env,
    });
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
    const options = ["--no-audit", "--no-fund", "--prefer-offline", "--loglevel", "error"];
    await run("npm", ["install", `./infermill-${version}.tgz`, ...options], { cwd: folder, env });
  }, 180_000);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** The blocks of the document that are files: their text by path, one after the other where there are several. */
  function filesOfDocument(): Map<string, string[]> {
    const document = readFileSync(join(ROOT, "docs/custom-loaders.md"), "utf8");
    const files = new Map<string, string[]>();
    for (const [, path, text] of document.matchAll(/^```\w+ (?:config )?(\S+\/\S+)\n(.*?)^```$/gms))
      files.set(path!, [...(files.get(path!) ?? []), text!]);
    return files;
  }

  function write(path: string, content: string | Uint8Array) {
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }

  async function predict(config: string, ...args: string[]) {
    const command = ["infermill", "test", "--image", "light.jpg", "--config", config, ...args];
    const { stdout } = await run("npx", ["--no-install", ...command], { cwd: folder, env });
    return JSON.parse(stdout.split("\n")[0]!) as { Rc: string; Fs: { Lb: string; Cs: number }[] };
  }

  test("the plain command installs it, and fetches no CUDA libraries", () => {
    // Empty files stand for them, where there are any for this platform.
    const binaries = join(
      folder,
      "node_modules/onnxruntime-node/bin/napi-v6",
      process.platform,
      process.arch,
    );
    const providers = readdirSync(binaries).filter((name) => name.includes("_providers_"));
    expect(providers.map((name) => [name, statSync(join(binaries, name)).size])).toEqual(
      providers.map((name) => [name, 0]),
    );
  });

  test("a strict tsc takes a loader of one's own, with no types but Node's", async () => {
    const types = join(folder, "node_modules/@types");
    mkdirSync(types, { recursive: true });
    for (const name of ["@types/node", "undici-types"]) {
      const place = join(folder, "node_modules", name);
      // They may have come with a dependency.
      if (!existsSync(place)) symlinkSync(join(ROOT, "node_modules", name), place);
    }
    write(
      "typed/loader.ts",
      `import { BaseModelLoader } from "infermill";
       import { InfermillClient } from "infermill/client";
       export const client = new InfermillClient("http://127.0.0.1:8448");
       export class TypedModelLoader extends BaseModelLoader {}`,
    );
    const compilerOptions = {
      strict: true,
      module: "nodenext",
      target: "es2023",
      types: ["node"],
      noEmit: true,
    };
    write("typed/tsconfig.json", JSON.stringify({ compilerOptions }));
    const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
    await run("node", [tsc, "-p", join(folder, "typed")]).catch(({ stdout }: { stdout: string }) =>
      expect(stdout).toBe(""),
    );
  });

  test("its source maps bring their sources", () => {
    const map = readFileSync(join(folder, "node_modules/infermill/dist/index.js.map"), "utf8");
    expect(JSON.parse(map)).toMatchObject({ sourcesContent: [expect.stringContaining("export")] });
  });

  test("the smallest loader of the document is served", async () => {
    const files = filesOfDocument();
    for (const path of ["colours/DominantColourModelLoader.ts", "colours/infermill.json"])
      write(path, files.get(path)![0]!);
    const args = ["--no-install", "infermill", "start", "--config", "colours/infermill.json"];
    // A group of its own: Ctrl-C reaches npx and what it started.
    const child = spawn("npx", args, { cwd: folder, env, detached: true });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
    const ended = new Promise((resolve) => child.once("close", resolve));
    try {
      const url = await new Promise<string>((resolve, reject) => {
        child.stdout.on("data", () => {
          const [, found] = /is ready at (\S+)/.exec(output) ?? [];
          if (found) resolve(found);
        });
        void ended.then(() => reject(new Error(`infermill ended:\n${output}`)));
      });
      const { status, result } = await submit(url, "Colours", { Base_64: picture.toString("base64") });
      expect(status).toBe("succeeded");
      expect(result!.Fs).toEqual([{ Cs: 1, Lb: "light", Dm: {} }]);

      const [, client] = /^```js (?:\S+)\n(.*?)^```$/ms.exec(
        readFileSync(join(ROOT, "docs/http-api.md"), "utf8"),
      )!;
      write("client/predict.mjs", client!);
      const said = await run("node", ["client/predict.mjs", url, "Colours", "light.jpg"], {
        cwd: folder,
        env,
      });
      expect(said.stdout).toBe("light 1\n");
    } finally {
      process.kill(-child.pid!, "SIGINT");
      await ended;
    }
  });

  test("without a configuration, start says what to do; init makes what runs", async () => {
    const infermill = (...args: string[]) =>
      run("npx", ["--no-install", "infermill", ...args], { cwd: folder, env });
    const failure = await infermill("start").catch((error: { code: number; stderr: string }) => error);
    expect(failure).toMatchObject({ code: 2, stderr: expect.stringContaining("npx infermill init ") });
    // Its weights are a development dependency of the clone.
    expect(failure.stderr).toContain("after npm install @vladmandic/human");
    await infermill("init", "made");
    const { $schema } = JSON.parse(readFileSync(join(folder, "made/config/infermill.json"), "utf8"));
    expect($schema).toBe("../../node_modules/infermill/config/infermill.schema.json");
    const args = ["made/sample.png", "--config", "made/config/infermill.json", "--model", "Spot"];
    const { stdout } = await infermill("predict", ...args);
    expect(JSON.parse(stdout)).toMatchObject({ Fs: [{ Lb: "spot" }] });
  });

  test("IMIL's two examples run as the document shows them", async () => {
    const files = filesOfDocument();
    for (const [path, texts] of files) {
      const [, name] = /^examples\/custom-loaders\/(\w+\.ts)$/.exec(path) ?? [];
      if (name) write(join(name.includes("Clip") ? "clip" : "detecto", basename(path)), texts.join("\n"));
    }
    for (const path of ["clip/infermill.json", "detecto/infermill.json"]) write(path, files.get(path)![0]!);
    write("clip/image.onnx", encodeModel(imageEncoder()));
    write("clip/text.onnx", encodeModel(textEncoder()));
    write("clip/tokenizer.json", uselessMerges);
    write("detecto/helmets.onnx", encodeModel(detector([{ box: [0, 0, 1, 1], label: 2, score: 0.75 }])));

    const prompt = ["--prompt", '["fire", "smoke"]', "--confidence", "0"];
    const clip = await predict("clip/infermill.json", ...prompt);
    expect(clip).toMatchObject({ Rc: "200", Fs: [{ Lb: "fire" }, { Lb: "smoke" }] });
    expect(clip.Fs[0]!.Cs + clip.Fs[1]!.Cs).toBeCloseTo(1, 3);
    const detecto = await predict("detecto/infermill.json", "--confidence", "0.6");
    expect(detecto).toMatchObject({ Rc: "200", Fs: [{ Lb: "vest", Cs: 0.75 }] });
  });
});
