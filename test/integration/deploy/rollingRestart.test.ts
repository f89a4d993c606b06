/** A new version comes in without a pause: under load each process is stopped in order and started again, of each kind one after the other. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import type { Prediction } from "../../support/answers.ts";
import { send } from "../../support/api.ts";
import { freePort } from "../../support/freePort.ts";
import { runInfermill, SCRIPTED_LOADER, until, type InfermillProcess } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const CLIENTS = 6;
/** Leaves the processes that start some of the machine. */
const PAUSE_MS = 50;
/** What a client does at most to have one prediction settled; a restarted process is back in a few seconds. */
const MAX_TRIES = 100;
const RETRY_PAUSE_MS = 100;
const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);

describe.skipIf(whyNoRedis)("a rolling restart of two apis and two workers under load", () => {
  let redis: RedisServer;
  let folder: string;
  let urls: string[];
  const running = new Map<string, InfermillProcess>();

  beforeAll(async () => {
    redis = await startTestRedis();
    folder = mkdtempSync(join(tmpdir(), "rolling-"));
    const ports = [await freePort(), await freePort()];
    urls = ports.map((port) => `http://127.0.0.1:${port}`);
    for (const [index, port] of ports.entries()) {
      const config = {
        port,
        data_dir: "data",
        models: {
          Scripted: {
            loader: "ScriptedModelLoader",
            model_loader_file: SCRIPTED_LOADER,
            max_batch_size: 4,
            journal: join(folder, "journal"),
          },
        },
      };
      writeFileSync(join(folder, `${index}.json`), JSON.stringify(config));
    }
    await Promise.all(["api 0", "api 1", "worker 0", "worker 1"].map(startProcess));
  });
  afterAll(async () => {
    for (const { child } of running.values()) child.kill("SIGKILL");
    await Promise.all([...running.values()].map(({ exited }) => exited));
    await redis?.close();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  async function startProcess(name: string): Promise<void> {
    const [command, index] = name.split(" ");
    const config = join(folder, `${index}.json`);
    const started = runInfermill([command!, "--config", config], { env: { REDIS_URL: redis.url } });
    running.set(name, started);
    await started.printed(/"msg":"(listening on|serving) /);
  }

  /** As a load balancer and a careful client do: another api at each try, with the same key. */
  async function settle(key: string, faults: string[]): Promise<Prediction> {
    let self: string | undefined;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const url = urls[(Number(key) + tries) % urls.length]!;
      try {
        const { status, body } = self
          ? await send("GET", `${url}${self}?wait=5`)
          : await send(
              "POST",
              `${url}/v1/models/Scripted/predictions`,
              { Fid: key, Ms: 20 },
              { "Idempotency-Key": key, Prefer: "wait=5" },
            );
        if (status === 200 && FINAL.has(body.status)) return body;
        if (status < 300) self = body.links.self;
        else if (status === 503) await sleep(RETRY_PAUSE_MS);
        else faults.push(`${status}: ${JSON.stringify(body)}`);
      } catch {
        // Refused or cut off: it isn't known whether it was accepted.
        await sleep(RETRY_PAUSE_MS);
      }
    }
    throw new Error(`the prediction ${key} is not settled after ${MAX_TRIES} tries`);
  }

  test("is seen by no client that repeats with its key: nothing is lost, refused or run twice", async () => {
    const faults: string[] = [];
    const settled = new Map<string, Prediction>();
    let next = 0;
    let isOn = true;
    const load = Array.from({ length: CLIENTS }, async () => {
      while (isOn) {
        const key = `${next++}`;
        settled.set(key, await settle(key, faults));
        await sleep(PAUSE_MS);
      }
    });
    const more = async (count: number) => {
      const before = settled.size;
      await until(() => settled.size >= before + count, `${count} more predictions`);
    };
    await more(50);
    const restart = async (name: string) => {
      const stopped = running.get(name)!;
      stopped.child.kill("SIGTERM");
      expect(await stopped.exited, stopped.output()).toEqual({ code: 0, signal: null });
      // Without it the others serve.
      await more(30);
      await startProcess(name);
      await more(30);
    };
    for (const index of [0, 1]) await Promise.all([restart(`worker ${index}`), restart(`api ${index}`)]);
    isOn = false;
    await Promise.all(load);

    expect(faults).toEqual([]);
    expect(settled.size).toBe(next);
    for (const [key, { status, result }] of settled)
      expect([status, result?.Fs[0]?.Lb], key).toEqual(["succeeded", key]);
    expect(new Set([...settled.values()].map(({ id }) => id)).size).toBe(next);
    const runs = readFileSync(join(folder, "journal"), "utf8").trim().split(/\s+/);
    const sorted = (keys: Iterable<string>) => [...keys].toSorted((a, b) => Number(a) - Number(b));
    expect(sorted(runs)).toEqual(sorted(settled.keys()));
    const depths = await send("GET", `${urls[0]}/v1/models/Scripted`);
    expect(depths.body.queue).toMatchObject({ waiting: 0, running: 0, delayed: 0, failed: 0 });
  }, 90_000);
});
