/** Who works on a bulk run: one at a time, whatever is away or asleep for longer than a lock lasts. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBulkCoordinator } from "../../../src/bulk/coordinator.ts";
import { openBulkRuns, type BulkRuns } from "../../../src/bulk/runs.ts";
import type { BulkResult } from "../../support/answers.ts";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import { createNames } from "../../../src/queue/names.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type TestApi } from "../../support/api.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { processNamed } from "../../support/processes.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const ENTRIES = 600;
/** Longer than the locks of jobs last, and a heartbeat. */
const OUTAGE_MS = 13_000;

describe.skipIf(whyNoRedis)("a bulk run in the middle of which", () => {
  let infermill: TestInfermill;
  beforeAll(async () => {
    infermill = await startInfermill({
      models: {
        Scripted: {
          loader: "ScriptedModelLoader",
          model_loader_file: SCRIPTED_LOADER,
          instances: 2,
          max_batch_size: 4,
        },
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
  });

  /** Of some 8 s, with a beginning. */
  async function start(): Promise<string> {
    const answer = await fetch(`${infermill.url}/v1/bulk?model=Scripted`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: Array.from({ length: ENTRIES }, (_, index) =>
        JSON.stringify({ request: { Fid: `c${index}`, Ms: 100 } }),
      ).join("\n"),
    });
    const { id } = (await answer.json()) as BulkRun;
    await until(async () => (await read(id)).counts.done > 100, "some results");
    return id;
  }

  async function read(id: string): Promise<BulkRun> {
    return (await (await fetch(`${infermill.url}/v1/bulk/${id}`)).json()) as BulkRun;
  }

  async function expectEachLineOnce(id: string): Promise<void> {
    const ended = await until(
      async () => {
        const run = await read(id);
        return run.finished_at && run;
      },
      "the end of the run",
      90_000,
    );
    expect(ended).toMatchObject({ status: "completed", error: null, counts: { succeeded: ENTRIES } });
    const text = await (await fetch(`${infermill.url}/v1/bulk/${id}/results`)).text();
    const lines = text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as BulkResult);
    const numbers = Array.from({ length: ENTRIES }, (_, index) => index);
    expect(lines.map(({ line }) => line - 1)).toEqual(numbers);
    expect(lines.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(numbers);
  }

  test("Redis is away for longer than locks last is completed, with one line for each entry", async () => {
    const id = await start();
    const pid = processNamed(infermill.child.pid!, /redis-server|valkey-server/);
    process.kill(pid, "SIGSTOP");
    await sleep(OUTAGE_MS);
    process.kill(pid, "SIGCONT");
    await expectEachLineOnce(id);
    expect(infermill.output()).not.toContain("can't continue");
  }, 180_000);

  test("its coordinator sleeps until another has taken over is completed, with one line for each entry", async () => {
    const config = join(infermill.folder, "infermill.json");
    const id = await start();
    const pid = processNamed(infermill.child.pid!, /main\.js coordinator$/);
    const other = runInfermill(["coordinator", "--config", config]);
    try {
      process.kill(pid, "SIGSTOP");
      await other.printed(/taken over from a lost coordinator/);
      const { done } = (await read(id)).counts;
      await until(async () => (await read(id)).counts.done > done, "results of the other coordinator");
      process.kill(pid, "SIGCONT");
      await expectEachLineOnce(id);
    } finally {
      process.kill(pid, "SIGCONT");
      other.child.kill("SIGINT");
      await other.exited;
    }
  }, 180_000);
});

describe.skipIf(whyNoRedis)("a run that another process works on", () => {
  let photos: string;
  let redis: RedisServer;
  let api: TestApi;
  let connection: Redis;
  let runs: BulkRuns;
  beforeAll(async () => {
    photos = mkdtempSync(join(tmpdir(), "infermill-photos-"));
    redis = await startTestRedis();
    api = await startTestApi(redis.url, { bulk_roots: { photos } });
    connection = openRedis(redis.url);
    runs = await openBulkRuns(api.config, redis.url);
  });
  afterAll(async () => {
    await runs?.close();
    connection?.disconnect();
    await api?.close();
    await redis?.close();
    rmSync(photos, { recursive: true });
  });

  async function startOwned(): Promise<{ id: string; owner: string }> {
    const { id } = (await send("POST", `${api.url}/v1/bulk`, { model: "Echo", folder: "photos" })).body;
    const owner = createNames(api.config.redis_prefix).bulkOwner(id);
    await connection.set(owner, "another process");
    return { id, owner };
  }

  const startCoordinator = () =>
    startBulkCoordinator({ config: api.config, redisUrl: redis.url, log: pino({ level: "silent" }) });

  test("is left alone by a coordinator that stops while it waits for it", async () => {
    const { id } = await startOwned();
    const entries = `${runs.folder(id).entriesFile}.part`;
    writeFileSync(entries, '"half.jpg"\n');
    const coordinator = await startCoordinator();
    await until(async () => (await runs.queue.getActiveCount()) > 0, "the wait");
    await coordinator.close();
    expect(readFileSync(entries, "utf8")).toBe('"half.jpg"\n');
    await runs.queue.remove(id);
  });

  test("waits for it, and that counts as no try", async () => {
    const { id, owner } = await startOwned();
    const coordinator = await startCoordinator();
    try {
      await until(async () => (await runs.queue.getDelayedCount()) > 0, "the end of the first wait");
      expect((await runs.queue.getJob(id))!.attemptsMade).toBe(0);
      await connection.del(owner);
      await until(async () => (await runs.read(id)).status === "completed", "the end of the run");
    } finally {
      await coordinator.close();
    }
  });
});
