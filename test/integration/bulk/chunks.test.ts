/** What a worker does with the chunks of a bulk queue: entries travel together, and each ends by itself. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import { PRIORITIES } from "../../../src/core/prediction.ts";
import { chunkId } from "../../../src/queue/bulkChunks.ts";
import { openBulkQueues, type BulkQueue, type BulkQueues } from "../../../src/queue/bulkQueue.ts";
import type { Completion } from "../../../src/queue/jobs.ts";
import { createNames, newBulkRunId } from "../../../src/queue/names.ts";
import { openPredictions, type Predictions } from "../../../src/queue/predictions.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import type { BulkResult } from "../../support/answers.ts";
import { openRedis } from "../../support/api.ts";
import { runInfermill, SCRIPTED_LOADER, until, type InfermillProcess } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("a chunk", () => {
  let redis: RedisServer;
  let connection: Redis;
  let folder: string;
  let journal: string;
  let bulkQueues: BulkQueues;
  let bulkQueue: BulkQueue;
  let predictions: Predictions;
  let worker: InfermillProcess;
  let run: string;

  beforeAll(async () => {
    redis = await startTestRedis();
    connection = openRedis(redis.url);
    folder = mkdtempSync(join(tmpdir(), "infermill-chunks-"));
    journal = join(folder, "journal");
    const scripted = {
      loader: "ScriptedModelLoader",
      model_loader_file: SCRIPTED_LOADER,
      instances: 1,
      max_batch_size: 4,
      attempts: 2,
      folder,
      journal,
    };
    writeFileSync(
      join(folder, "infermill.json"),
      JSON.stringify({ data_dir: "data", models: { Scripted: scripted } }),
    );
    const config = await loadConfig({ file: join(folder, "infermill.json"), env: {} });
    bulkQueues = await openBulkQueues(config, redis.url);
    bulkQueue = bulkQueues.bulkQueue("Scripted");
    predictions = await openPredictions(config, redis.url);
    worker = await startWorker();
  });
  afterAll(async () => {
    await stop(worker, "SIGTERM");
    await predictions?.close();
    await bulkQueues?.close();
    connection?.disconnect();
    await redis?.close();
    rmSync(folder, { recursive: true });
  });
  beforeEach(() => {
    run = newBulkRunId();
    writeFileSync(journal, "");
  });
  afterEach(async () => {
    const left = (await bulkQueue.find(run)).map(({ id }) => id);
    await bulkQueue.withdraw(left);
    await until(async () => {
      await bulkQueue.remove(left);
      return (await bulkQueue.find(run)).length === 0;
    }, "an empty bulk queue");
  });

  async function startWorker(): Promise<InfermillProcess> {
    const started = runInfermill(["worker", "--config", join(folder, "infermill.json")], {
      env: { REDIS_URL: redis.url },
    });
    await started.printed(/model loaded/);
    return started;
  }

  async function stop(process: InfermillProcess | undefined, signal: NodeJS.Signals): Promise<void> {
    process?.child.kill(signal);
    await process?.exited;
  }

  /** One chunk; answers its id. */
  async function send(requests: object[]): Promise<string> {
    const entries = requests.map((request, index) => ({
      index,
      request: { Fid: `e${index}`, ...request },
      inputs: [],
    }));
    await bulkQueue.submit({ id: run, request: {}, priority: "low" }, [entries]);
    return chunkId(run, entries);
  }

  async function look(id: string) {
    const [state] = await bulkQueue.read([{ id, seen: 0 }]);
    return { ...state!, rows: state!.rows.map((row) => JSON.parse(row) as BulkResult) };
  }

  const ended = (id: string) =>
    until(
      async () => {
        const state = await look(id);
        return state.state !== "under way" && state;
      },
      "the end of the chunk",
      60_000,
    );

  /** How often each entry was run. */
  function runsOf(): Record<string, number> {
    const ran = readFileSync(journal, "utf8").split(/\s+/).filter(Boolean);
    return ran.reduce<Record<string, number>>((all, fid) => ({ ...all, [fid]: (all[fid] ?? 0) + 1 }), {});
  }

  const none = (count: number) => Array.from({ length: count }, () => ({}));

  test("of ten ends with ten rows, and counts as ten wherever entries are counted", async () => {
    await stop(worker, "SIGTERM");
    const id = await send(none(10));
    expect(await predictions.bulkDepth("Scripted")).toMatchObject({ waiting: 10, running: 0 });
    worker = await startWorker();
    const { state, rows } = await ended(id);
    expect(state).toBe("completed");
    expect(rows.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(none(10).map((_, at) => at));
    expect(rows[0]).toMatchObject({
      status: "succeeded",
      result: { Fs: [{ Lb: `e${rows[0]!.index}` }] },
      timings: { infer_ms: expect.any(Number) },
      finished_at: expect.stringMatching(/Z$/),
    });
    expect(await predictions.bulkDepth("Scripted")).toMatchObject({ waiting: 0, completed: 10 });
    const report = await until(async () => {
      const [{ models }] = (await predictions.workers()) as [Awaited<ReturnType<Predictions["workers"]>>[0]];
      return models["Scripted"]!.totals.predictions >= 10 && models["Scripted"];
    }, "the worker's report");
    expect(report.totals).toMatchObject({ predictions: 10, succeeded: 10 });
  });

  test("with one that kills the engine fails that one; the others succeed", async () => {
    const { rows } = await ended(await send(none(8).map((_, at) => (at === 3 ? { Do: "crash" } : {}))));
    const failed = rows.filter(({ status }) => status === "failed");
    expect(failed.map(({ index }) => index)).toEqual([3]);
    expect(failed[0]!.error).toMatchObject({ code: "engine_lost" });
    expect(rows).toHaveLength(8);
  });

  test("is tried again for the entry that asks for it, and for no other", async () => {
    const { rows } = await ended(await send(none(6).map((_, at) => (at === 2 ? { Do: "retry once" } : {}))));
    expect(rows.map(({ status }) => status)).toEqual(none(6).map(() => "succeeded"));
    expect(rows.at(-1)!.index).toBe(2);
    expect(runsOf()).toEqual({ e0: 1, e1: 1, e2: 2, e3: 1, e4: 1, e5: 1 });
  });

  test("whose entries take long tells of each as it ends; withdrawn, it begins no further one", async () => {
    const id = await send(none(32).map(() => ({ Ms: 400 })));
    await until(async () => (await look(id)).rows.length > 0, "the first rows");
    expect((await look(id)).state).toBe("under way");
    expect(await bulkQueue.withdraw([id])).toEqual([]);
    const { state, rows } = await ended(id);
    expect(state).toBe("completed");
    expect(rows.length).toBeGreaterThan(0);
    expect(rows.length).toBeLessThan(32);
    expect(Object.keys(runsOf())).toHaveLength(rows.length);
  });

  test("whose worker dies runs only what had not ended, at another worker", async () => {
    const id = await send(none(24).map(() => ({ Ms: 300 })));
    const before = await until(async () => {
      const { rows } = await look(id);
      return rows.length > 0 && rows.map(({ index }) => index);
    }, "the first rows");
    await stop(worker, "SIGKILL");
    worker = await startWorker();
    const { rows } = await ended(id);
    expect(new Set(rows.map(({ index }) => index)).size).toBe(24);
    expect(rows).toHaveLength(24);
    const ran = runsOf();
    expect(before.map((index) => ran[`e${index}`])).toEqual(before.map(() => 1));
  }, 60_000);

  test("of 0.1, which is one prediction, is still taken", async () => {
    const names = createNames("infermill");
    const queue = new Queue("Scripted", { connection, prefix: names.bulkQueuePrefix("Scripted") });
    const id = `${run}-7`;
    const job = await queue.add(
      "predict",
      { request: { Fid: "old" }, inputs: [] },
      { jobId: id, priority: PRIORITIES.low, attempts: 1 },
    );
    const completion = await until(async () => {
      const found = await queue.getJob(job.id!);
      return found?.finishedOn ? (found.returnvalue as Completion) : false;
    }, "its end");
    expect(completion.response).toMatchObject({ Fs: [{ Lb: "old" }] });
    await queue.close();
  });
});
