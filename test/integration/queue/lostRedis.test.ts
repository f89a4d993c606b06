import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import { findRedisProgram } from "../../../src/redis/findRedisProgram.ts";
import { launch, waitUntilListening, type ServerProcess } from "../../../src/redis/serverProcess.ts";
import { SCRIPTED_LOADER, startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { testRedisEnv, whyNoRedis } from "../../support/redis.ts";

const OUTAGE_MS = 20_000;
const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);

describe.skipIf(whyNoRedis)("when Redis is killed under load and comes back after 20 s", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-outage-"));
  const socketPath = join(folder, "redis.sock");
  let redis: ServerProcess;
  let infermill: TestInfermill;

  const startRedis = async () => {
    const program = await findRedisProgram({ env: testRedisEnv });
    redis = await launch(program, {
      folder,
      socketPath,
      lockFile: join(folder, "lock"),
      logFile: join(folder, "log"),
    });
    await waitUntilListening(redis, socketPath, AbortSignal.timeout(20_000));
  };

  beforeAll(async () => {
    await startRedis();
    infermill = await startInfermill(
      {
        models: {
          Scripted: {
            loader: "ScriptedModelLoader",
            model_loader_file: SCRIPTED_LOADER,
            instances: 2,
            max_batch_size: 4,
          },
        },
      },
      { REDIS_URL: `unix://${socketPath}` },
    );
  });
  afterAll(async () => {
    await infermill?.stop();
    redis?.process.kill("SIGKILL");
    await redis?.exited;
    rmSync(folder, { recursive: true });
  });

  test("submissions get 503 at once meanwhile, and every accepted prediction ends once with its own answer", async () => {
    const url = `${infermill.url}/v1/models/Scripted/predictions`;
    const accepted = new Map<string, string>();
    const refusals: { status: number; ms: number }[] = [];
    let isOn = true;
    let next = 0;
    const clients = Array.from({ length: 8 }, async () => {
      while (isOn) {
        const Fid = `${next++}`;
        const startedAt = Date.now();
        const answer = await fetch(url, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ Fid, Ms: 20 }),
        });
        const { id } = (await answer.json()) as Prediction;
        if (answer.status === 202) accepted.set(id, Fid);
        else refusals.push({ status: answer.status, ms: Date.now() - startedAt });
        await sleep(20);
      }
    });
    await until(() => accepted.size > 100, "some load");

    redis.process.kill("SIGKILL");
    await redis.exited;
    await sleep(OUTAGE_MS);
    expect(refusals.length).toBeGreaterThan(100);
    expect(new Set(refusals.map(({ status }) => status))).toEqual(new Set([503]));
    const waits = refusals.map(({ ms }) => ms).toSorted((a, b) => a - b);
    expect(waits[waits.length >> 1]).toBeLessThan(500);
    await startRedis();

    const before = accepted.size;
    await until(() => accepted.size > before + 100, "load after the outage");
    isOn = false;
    await Promise.all(clients);
    for (const [id, Fid] of accepted) {
      const ended = await until(async () => {
        const prediction = (await (await fetch(`${url}/${id}`)).json()) as Prediction;
        return FINAL.has(prediction.status) && prediction;
      }, `the end of ${id}`);
      expect(ended).toMatchObject({ status: "succeeded", error: null });
      expect(ended.result!.Fs[0]!.Lb).toBe(Fid);
    }
  }, 180_000);
});
