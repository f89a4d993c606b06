import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { pino } from "pino";
import { afterAll, describe, expect, test } from "vitest";
import { supervise } from "../../../src/cli/supervisor.ts";
import type { Prediction } from "../../support/answers.ts";
import { isListening } from "../../../src/redis/serverProcess.ts";
import { freePort } from "../../support/freePort.ts";
import {
  MAIN,
  runInfermill,
  SCRIPTED_LOADER,
  submit,
  until,
  type InfermillProcess,
} from "../../support/infermill.ts";
import { commandOf, processesBelow, processNamed } from "../../support/processes.ts";
import { isOnPath, startTestRedis, testRedisEnv, whyNoRedis } from "../../support/redis.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-start-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function writeConfig(name: string, config: Record<string, unknown>): string {
  const file = join(folder, `${name}.json`);
  const models = {
    Scripted: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 2 },
  };
  writeFileSync(file, JSON.stringify({ port: 0, data_dir: name, log_level: "warn", models, ...config }));
  return file;
}

async function urlOf(infermill: InfermillProcess): Promise<string> {
  return (await infermill.printed(/is ready at (\S+)/))[1]!;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test("a process that could not be started again is tried until it can", async () => {
  const script = join(folder, "supervised.mjs");
  writeFileSync(script, "process.send({ type: 'ready', pid: process.pid }); setInterval(() => {}, 1000);");
  const lines: string[] = [];
  const log = pino({}, { write: (line) => void lines.push(line) });
  const supervised = supervise("worker", script, [], { env: process.env, log });
  const { pid } = await supervised.ready;
  const program = process.execPath;
  try {
    process.execPath = join(folder, "none");
    process.kill(Number(pid), "SIGKILL");
    await until(
      () => lines.some((line) => line.includes("the worker could not be started")),
      "the failed start",
    );
    process.execPath = program;
    await until(
      () => processesBelow(process.pid).some((each) => commandOf(each).includes(script)),
      "the next start",
    );
  } finally {
    process.execPath = program;
    await supervised.stop(5000);
  }
});

describe.skipIf(whyNoRedis)("infermill start", () => {
  test("says how to try it, plain where no terminal reads it, and with a key where one is needed", async () => {
    const key = "a-key-of-the-tests";
    const infermill = runInfermill(["start", "--config", writeConfig("keys", { api_keys: [key] })], {
      env: { CI: "true", NO_COLOR: undefined },
    });
    try {
      const url = await urlOf(infermill);
      const [, command] = await infermill.printed(/^ {2}(curl .*)$/m);
      expect(command).toContain(`-H "Authorization: Bearer $INFERMILL_API_KEY"`);
      const headers = { Authorization: `Bearer ${key}` };
      expect((await fetch(`${url}/v1/models`, { headers })).status).toBe(200);
      expect((await fetch(`${url}/v1/models`)).status).toBe(401);
    } finally {
      infermill.child.kill("SIGTERM");
      await infermill.exited;
    }
  });

  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "%s stops everything and leaves no process",
    async (signal) => {
      const infermill = runInfermill(["start", "--config", writeConfig(signal, {})]);
      await urlOf(infermill);
      // Redis, api, worker and two engines at least.
      const processes = processesBelow(infermill.child.pid!);
      expect(processes.length).toBeGreaterThanOrEqual(5);
      infermill.child.kill(signal);
      expect(await infermill.exited).toEqual({ code: 0, signal: null });
      expect(processes.filter(isAlive)).toEqual([]);
    },
  );

  test.skipIf(!isOnPath("script"))(
    "a terminal that is closed stops everything in order, and what runs is finished",
    async () => {
      const file = writeConfig("terminal", { log_level: "info" });
      const command = `exec '${process.execPath}' '${MAIN}' start --config '${file}'`;
      // A terminal of its own, which ends with the process that made it.
      const terminal = spawn("script", ["-qfec", command, "/dev/null"], { env: testRedisEnv });
      let output = "";
      terminal.stdout.on("data", (chunk) => (output += chunk));
      const url = await until(
        () => /is ready at (\S+)/.exec(stripVTControlCharacters(output))?.[1],
        "the start",
      );
      const { links } = await submit(url, "Scripted", { Fid: "running", Ms: 2000 }, 0);
      await until(
        async () => ((await (await fetch(url + links.self)).json()) as Prediction).status === "running",
        "the prediction's start",
      );
      const processes = processesBelow(terminal.pid!);
      terminal.kill("SIGKILL");
      await until(() => !processes.some(isAlive), "the end of all processes");

      const again = runInfermill(["start", "--config", file]);
      const prediction = (await (await fetch((await urlOf(again)) + links.self)).json()) as Prediction;
      again.child.kill("SIGINT");
      await again.exited;
      expect(prediction).toMatchObject({ status: "succeeded", attempts: 1 });
    },
  );

  test("an input that can't be removed keeps neither the others nor the worker from going on", async () => {
    const file = writeConfig("swept", {});
    // No file can be removed as one that is a folder.
    const stuck = join(folder, "swept/inputs/aa/stuck");
    const old = join(folder, "swept/inputs/bb/old");
    mkdirSync(stuck, { recursive: true });
    mkdirSync(dirname(old));
    writeFileSync(old, "");
    for (const path of [stuck, old]) utimesSync(path, 0, 0);
    const infermill = runInfermill(["start", "--config", file]);
    const url = await urlOf(infermill);
    await infermill.printed(/not every input or output that was left over could be removed/);
    expect([existsSync(stuck), existsSync(old)]).toEqual([true, false]);
    expect(await submit(url, "Scripted", { Fid: "a" })).toMatchObject({ status: "succeeded" });
    infermill.child.kill("SIGINT");
    expect((await infermill.exited).code).toBe(0);
    expect(infermill.output()).not.toContain("starting it again");
  });

  test("what runs when it is stopped is finished, what waits is kept, and a second start resumes it", async () => {
    const file = writeConfig("again", {});
    const first = runInfermill(["start", "--config", file]);
    const firstUrl = await urlOf(first);
    const ended = await submit(firstUrl, "Scripted", { Fid: "ended" });
    const waiting = await Promise.all(
      Array.from({ length: 60 }, (_, index) => submit(firstUrl, "Scripted", { Fid: `${index}`, Ms: 300 }, 0)),
    );
    first.child.kill("SIGINT");
    expect((await first.exited).code).toBe(0);

    const second = runInfermill(["start", "--config", file]);
    const url = await urlOf(second);
    expect(await (await fetch(url + ended.links.self)).json()).toEqual(ended);
    for (const [index, { links }] of waiting.entries()) {
      const prediction = (await (await fetch(`${url}${links.self}?wait=60`)).json()) as typeof ended;
      expect(prediction).toMatchObject({ status: "succeeded", attempts: expect.any(Number) });
      expect(prediction.result!.Fs[0]!.Lb).toBe(`${index}`);
    }
    second.child.kill("SIGINT");
    await second.exited;
  });

  test("a second SIGINT ends everything at once, and a second start has what was accepted", async () => {
    const file = writeConfig("hurried", {});
    const first = runInfermill(["start", "--config", file]);
    const firstUrl = await urlOf(first);
    const running = await submit(firstUrl, "Scripted", { Fid: "long", Ms: 40_000 }, 0);
    await until(async () => (await statusOf(firstUrl, running)) === "running", "the prediction's start");
    const processes = processesBelow(first.child.pid!);
    const api = processNamed(first.child.pid!, /main\.js api$/);
    first.child.kill("SIGINT");
    await until(() => !isAlive(api), "the end of the api");
    first.child.kill("SIGINT");
    expect(await first.exited).toEqual({ code: 130, signal: null });
    await until(() => !processes.some(isAlive), "the end of all processes", 5000);

    const second = runInfermill(["start", "--config", file]);
    expect(["queued", "running"]).toContain(await statusOf(await urlOf(second), running));
    second.child.kill("SIGINT");
    await second.exited;
  });

  async function statusOf(url: string, { links }: Prediction): Promise<string> {
    return ((await (await fetch(url + links.self)).json()) as Prediction).status;
  }

  test("when it is killed its api, worker and engines end too, and the next start takes over its Redis", async () => {
    const file = writeConfig("killed", {});
    const first = runInfermill(["start", "--config", file]);
    const ended = await submit(await urlOf(first), "Scripted", { Fid: "kept" });
    const processes = processesBelow(first.child.pid!);
    first.child.kill("SIGKILL");
    await first.exited;
    // All but Redis, which waits for the next start.
    await until(() => processes.filter(isAlive).length <= 1, "the end of api, worker and engines", 20_000);

    const second = runInfermill(["start", "--config", file]);
    const url = await urlOf(second);
    expect(await (await fetch(url + ended.links.self)).json()).toEqual(ended);
    second.child.kill("SIGINT");
    await second.exited;
    expect(processes.filter(isAlive)).toEqual([]);
  });

  test("an api that is killed is started again on its port", async () => {
    const infermill = runInfermill(["start", "--config", writeConfig("api", { port: await freePort() })]);
    const url = await urlOf(infermill);
    process.kill(processNamed(infermill.child.pid!, /main\.js api$/), "SIGKILL");
    await until(
      async () => (await fetch(`${url}/health/live`).catch(() => undefined))?.ok,
      "the api's return",
    );
    expect(await submit(url, "Scripted", { Fid: "after" })).toMatchObject({ status: "succeeded" });
    infermill.child.kill("SIGINT");
    await infermill.exited;
  });

  test("a port that is taken ends it with a clear error", async () => {
    const taken = await listen(createServer());
    const port = portOf(taken);
    const infermill = runInfermill(["start", "--config", writeConfig("taken", { port })]);
    expect((await infermill.exited).code).not.toBe(0);
    expect(infermill.output()).toContain(
      `can't listen on 127.0.0.1:${port}: something listens there already`,
    );
    taken.close();
  });

  test("a model that can't be loaded ends it with a clear error", async () => {
    const broken = join(folder, "broken.onnx");
    writeFileSync(broken, "no model");
    const file = writeConfig("broken", {
      models: { Broken: { loader: "YoloModelLoader", model_path: [broken], class_names: ["coco"] } },
    });
    const infermill = runInfermill(["start", "--config", file]);
    expect((await infermill.exited).code).not.toBe(0);
    expect(infermill.output()).toContain(broken);
  });
});

describe.skipIf(whyNoRedis)("a process with an embedded Redis of its own", () => {
  /** Whether the Redis of this data folder, which was started, runs. */
  async function redisRuns(name: string): Promise<boolean> {
    expect(existsSync(join(folder, name, "redis/redis.log"))).toBe(true);
    return isListening(join(folder, name, "redis/redis.sock"));
  }

  function writeFarConfig(name: string): string {
    const model_path = ["hf://acme/detector/model.onnx"];
    return writeConfig(name, { models: { Far: { loader: "YoloModelLoader", model_path } } });
  }

  test("an api whose port is taken ends, and its Redis with it", async () => {
    const taken = await listen(createServer());
    const infermill = runInfermill(["api", "--config", writeConfig("taken-api", { port: portOf(taken) })]);
    expect((await infermill.exited).code).toBe(2);
    expect(infermill.output()).toContain("something listens there already");
    expect(await redisRuns("taken-api")).toBe(false);
    taken.close();
  });

  test("an api that a foreign process manager started with a channel ends at SIGINT", async () => {
    const args = ["api", "--config", writeConfig("managed", { log_level: "info" })];
    const infermill = runInfermill(args, { hasChannel: true });
    await infermill.printed(/listening on/);
    infermill.child.kill("SIGINT");
    expect(await infermill.exited).toEqual({ code: 0, signal: null });
    expect(await redisRuns("managed")).toBe(false);
  });

  test("an api says at once that Redis is away, and that it stops, with a readable time", async () => {
    const redis = await startTestRedis();
    const args = ["api", "--config", writeConfig("told", { log_level: "info" })];
    const infermill = runInfermill(args, { env: { REDIS_URL: redis.url } });
    await infermill.printed(/listening on/);
    await redis.close();
    await infermill.printed(/Redis at unix:.* can't be reached/, 5000);
    infermill.child.kill("SIGTERM");
    expect(await infermill.exited).toEqual({ code: 0, signal: null });
    // A pipe may hold the first of two lines back for longer than the second.
    expect(infermill.output()).toMatch(/"time":"\d{4}-\d\d-\d\dT.*"stopping \(SIGTERM\): /);
    expect(infermill.output()).toContain('"msg":"stopped"');
  });

  test("an api that waits for a Redis says so within seconds", async () => {
    const args = ["api", "--config", writeConfig("waiting", {})];
    const infermill = runInfermill(args, { env: { REDIS_URL: "redis://127.0.0.1:1" } });
    await infermill.printed(/Redis at redis:\/\/127.0.0.1:1 doesn't answer yet/, 8000);
    infermill.child.kill("SIGTERM");
    await infermill.exited;
  });

  test("a worker whose model can't be fetched ends, and its Redis with it", async () => {
    const hub = await listen(createHttpServer((_req, res) => res.writeHead(404).end()));
    const env = {
      HF_ENDPOINT: `http://127.0.0.1:${portOf(hub)}`,
      INFERMILL_CACHE_DIR: join(folder, "cache"),
    };
    const infermill = runInfermill(["worker", "--config", writeFarConfig("unknown-model")], { env });
    expect((await infermill.exited).code).toBe(1);
    expect(infermill.output()).toContain("hf://acme/detector/model.onnx");
    expect(await redisRuns("unknown-model")).toBe(false);
    hub.close();
  });

  test("a worker that is interrupted while it fetches a model takes its Redis with it", async () => {
    const silentHub = createServer();
    const asked = once(silentHub, "connection");
    await listen(silentHub);
    const env = {
      HF_ENDPOINT: `http://127.0.0.1:${portOf(silentHub)}`,
      INFERMILL_CACHE_DIR: join(folder, "cache"),
    };
    const infermill = runInfermill(["worker", "--config", writeFarConfig("interrupted")], { env });
    const [socket] = (await asked) as [Socket];
    expect(await redisRuns("interrupted")).toBe(true);
    infermill.child.kill("SIGINT");
    expect(await infermill.exited).toEqual({ code: 0, signal: null });
    expect(await redisRuns("interrupted")).toBe(false);
    socket.destroy();
    silentHub.close();
  });
});

test("faults of the configuration are listed together, those of loaders among them, with exit code 2", async () => {
  const file = writeConfig("faults", {
    models: {
      Missing: { loader: "YoloModelLoader", model_path: ["nowhere.onnx"] },
      Unknown: { loader: "YoloModellLoader", model_path: [] },
      Custom: { loader: "CustomModelLoader", model_loader_file: "custom.ts" },
      Extra: { loader: "YoloModelLoader", model_path: [SCRIPTED_LOADER], iou_tres: 0.5, conf_thres: 2 },
    },
  });
  const infermill = runInfermill(["start", "--config", file]);
  expect((await infermill.exited).code).toBe(2);
  for (const key of [
    "Missing.model_path.0",
    "Unknown.loader",
    "Custom.model_loader_file",
    "Extra.iou_tres",
    "Extra.conf_thres",
  ]) {
    expect(infermill.output()).toContain(`models.${key} `);
  }
});

async function listen<T extends Server>(server: T): Promise<T> {
  await once(server.listen(0, "127.0.0.1"), "listening");
  return server;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
