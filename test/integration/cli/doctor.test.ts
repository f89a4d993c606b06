/** `infermill doctor`: what it finds where all is well, and where something is not. */
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Diagnosis } from "../../../src/cli/doctorChecks.ts";
import { openRedis } from "../../support/api.ts";
import { runInfermill } from "../../support/infermill.ts";
import { writeColourModel } from "../../support/pictures.ts";
import { whyNoPython } from "../../support/python.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-doctor-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
writeColourModel(join(folder, "colours.onnx"));
writeFileSync(join(folder, "pointer.onnx"), "version https://git-lfs.github.com/spec/v1\n");
writeFileSync(
  join(folder, "greeting.py"),
  "class GreetingModelLoader:\n    def predict_request(self, request): return {}\n",
);
const Colours = { loader: "ImageClassificationModelLoader", model_path: ["colours.onnx"] };

async function run(args: string[], env: NodeJS.ProcessEnv = {}) {
  const running = runInfermill(["doctor", ...args], { cwd: folder, env });
  const { code } = await running.exited;
  return { code, output: running.output() };
}

async function diagnose(config: Record<string, unknown>, env?: NodeJS.ProcessEnv) {
  const file = join(folder, "infermill.json");
  writeFileSync(file, JSON.stringify({ port: 0, data_dir: "data", models: { Colours }, ...config }));
  const { code, output } = await run(["--config", file, "--json"], env);
  // Libraries of the GPU may write lines of their own before it.
  const report = JSON.parse(output.slice(output.indexOf("{\n"))) as { problems: number; checks: Diagnosis[] };
  const found = (check: string) => report.checks.filter((each) => each.check === check);
  return { code, problems: report.problems, found };
}

describe.skipIf(whyNoRedis)("infermill doctor", () => {
  test.skipIf(whyNoPython)(
    "finds no problem where all is there, says what is there, and leaves nothing behind",
    async () => {
      const Greeting = { loader: "GreetingModelLoader", model_loader_file: "greeting.py" };
      const { code, found } = await diagnose({ data_dir: "none/yet", models: { Colours, Greeting } });
      expect(code).toBe(0);
      for (const check of [
        "node",
        "sharp",
        "onnxruntime",
        "gpu",
        "configuration",
        "data_dir",
        "port",
        "redis",
      ])
        expect(found(check), check).toMatchObject([{ status: "ok" }]);
      expect(found("onnxruntime")[0]!.found).toMatch(/runs a graph; execution providers: cpu/);
      expect(found("redis")[0]!.found).toMatch(/(redis|valkey)-server \d/);
      expect(found("model")).toMatchObject([
        { status: "ok", found: expect.stringMatching(/Colours .*colours\.onnx \(\d+ bytes\)/) },
        { status: "ok", found: expect.stringMatching(/Greeting .*Python 3\./) },
      ]);
      expect(() => mkdirSync(join(folder, "none"))).not.toThrow();
    },
  );

  test("says a line for each check where somebody reads it, with what to do; without a configuration, too", async () => {
    const { output } = await run([]);
    expect(output).toMatch(/^ok {7}node {11}\d+\./m);
    expect(output).toMatch(/^warning {2}configuration {2}there is no config\/infermill\.json/m);
    expect(output).toMatch(/^ +→ `infermill init` writes one/m);
    // Who knows who listens on the usual port of this machine.
    expect(output).toMatch(/\n[01] problems?, 1 warning\.\n$/);
  });

  test("finds what keeps a model from being served, each with its reason", async () => {
    const { code, problems, found } = await diagnose({
      models: {
        Colours,
        Gone: { ...Colours, model_path: ["gone.onnx"] },
        Pointer: { ...Colours, model_path: ["pointer.onnx"] },
        Misspelt: { ...Colours, clases: [] },
        Python: { loader: "GreetingModelLoader", model_loader_file: "greeting.py", python: "no-such-python" },
      },
    });
    expect(code).toBe(1);
    expect(problems).toBe(4);
    expect(found("model")).toMatchObject([
      { status: "ok" },
      { status: "problem", found: expect.stringContaining("models.Gone.model_path.0") },
      { status: "problem", advice: expect.stringContaining("git lfs pull") },
      { status: "problem", found: expect.stringContaining('did you mean "classes"') },
      { status: "problem", found: expect.stringContaining("models.Python.python") },
    ]);
  });

  test("finds a faulty configuration, and goes on with the rest", async () => {
    const { code, found } = await diagnose({ prot: 1 });
    expect(code).toBe(1);
    expect(found("configuration")).toMatchObject([
      { status: "problem", found: expect.stringContaining("prot") },
    ]);
    expect(found("redis")).toMatchObject([{ status: "ok" }]);
  });

  test("finds a port that is taken, and knows its own kind", async () => {
    const server = createServer((_req, res) => void res.end('{"status":"live"}')).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    try {
      expect((await diagnose({ port })).found("port")).toMatchObject([{ status: "ok" }]);
      server.removeAllListeners("request").on("request", (_req, res) => void res.end("<html>"));
      const { code, found } = await diagnose({ port });
      expect(code).toBe(1);
      expect(found("port")).toMatchObject([{ status: "problem", advice: expect.stringContaining("PORT") }]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  test("finds a data folder that can't be written, and folders that aren't there", async () => {
    const { code, found } = await diagnose({
      data_dir: "colours.onnx/data",
      bulk_roots: { photos: "no-photos" },
      annotate_roots: { marked: "colours.onnx/marked", here: "not/yet" },
    });
    expect(code).toBe(1);
    expect(found("data_dir")).toMatchObject([
      { status: "problem", advice: expect.stringContaining("INFERMILL_DATA_DIR") },
    ]);
    expect(found("bulk_roots")).toMatchObject([{ status: "warning" }]);
    expect(found("annotate_roots")).toMatchObject([{ status: "warning" }, { status: "ok" }]);
  });

  test("finds a device that this machine lacks", async () => {
    // Whatever this machine has, it has no hundred GPUs.
    const { code, found } = await diagnose({
      models: { Colours: { ...Colours, device: ["cpu", "cuda:99"] } },
    });
    expect(code).toBe(1);
    expect(found("device")).toMatchObject([
      {
        status: "problem",
        found: expect.stringContaining("cuda:99"),
        advice: expect.stringContaining('"cpu"'),
      },
    ]);
  });

  test("warns of a Redis that may lose predictions, and of one that is nearly full", async () => {
    const redis = await startTestRedis();
    const connection = openRedis(redis.url);
    try {
      expect((await diagnose({ redis_url: redis.url })).found("redis")).toMatchObject([{ status: "ok" }]);
      await connection.config("SET", "appendonly", "no");
      await connection.config("SET", "maxmemory-policy", "allkeys-lru");
      await connection.config("SET", "maxmemory", "1mb");
      const { code, found } = await diagnose({ redis_url: redis.url });
      expect(code).toBe(0);
      expect(found("redis")).toMatchObject([
        { status: "ok" },
        { status: "warning", found: expect.stringContaining("noeviction") },
        { status: "warning", found: expect.stringContaining("appendonly") },
      ]);
      expect(found("redis memory")).toMatchObject([{ status: "warning" }]);
    } finally {
      connection.disconnect();
      await redis.close();
    }
  });

  test("finds a Redis that is away", async () => {
    const { code, found } = await diagnose({}, { REDIS_URL: "redis://:secret@127.0.0.1:9" });
    expect(code).toBe(1);
    expect(found("redis")).toMatchObject([
      { status: "problem", found: expect.not.stringContaining("secret") },
    ]);
  });
});
