/** What a coordinator does with bulk runs by itself: no worker runs here, so that entries wait in the bulkQueue. */
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBulkCoordinator, type BulkCoordinator } from "../../../src/bulk/coordinator.ts";
import { startHeartbeat } from "../../../src/bulk/heartbeat.ts";
import { openBulkRuns, type BulkRuns } from "../../../src/bulk/runs.ts";
import { BadInputError, RedisUnavailableError } from "../../../src/errors.ts";
import { failedRow, type BulkChunkData } from "../../../src/queue/bulkChunks.ts";
import { openBulkQueues } from "../../../src/queue/bulkQueue.ts";
import { Deliveries } from "../../../src/queue/deliveries.ts";
import { createNames, newBulkRunId } from "../../../src/queue/names.ts";
import { defineScripts } from "../../../src/queue/scripts.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type TestApi } from "../../support/api.ts";
import { runInfermill, until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const NDJSON = { "Content-Type": "application/x-ndjson" };

describe.skipIf(whyNoRedis)("a coordinator", () => {
  let redis: RedisServer;
  let api: TestApi;
  let runs: BulkRuns;
  let connection: Redis;
  let bulkQueue: Queue;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url);
    runs = await openBulkRuns(api.config, redis.url);
    connection = openRedis(redis.url);
    bulkQueue = new Queue("Echo", {
      connection,
      prefix: createNames(api.config.redis_prefix).bulkQueuePrefix("Echo"),
    });
  });
  afterAll(async () => {
    await bulkQueue?.close();
    connection?.disconnect();
    await runs?.close();
    await api?.close();
    await redis?.close();
  });

  async function sendManifest(entries: number, keys = {}, query = "", model = "Echo"): Promise<string> {
    const lines = Array.from({ length: entries }, (_, index) =>
      JSON.stringify({ custom_id: `c${index}`, ...keys }),
    );
    return (await send("POST", `${api.url}/v1/bulk?model=${model}${query}`, lines.join("\n"), NDJSON)).body
      .id;
  }

  async function readLines(id: string): Promise<string[]> {
    const text = await (await fetch(`${api.url}/v1/bulk/${id}/results`)).text();
    return text.split("\n").filter(Boolean);
  }

  function startCoordinator(): Promise<BulkCoordinator> {
    const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });
    return startBulkCoordinator({ config: api.config, redisUrl: redis.url, log });
  }

  test("doesn't call a run complete whose entries were cut off", async () => {
    const id = await sendManifest(3);
    truncateSync(join(api.config.data_dir, "bulk", id, "entries.ndjson"), 0);
    const coordinator = await startCoordinator();
    try {
      const reason = await until(
        async () => (await runs.queue.getJob(id))?.failedReason,
        "the end of the first try",
      );
      expect(reason).toContain("should hold 3 entries, 0 were found");
      expect(await runs.read(id)).toMatchObject({ status: "running", finished_at: null });
    } finally {
      await coordinator.close();
    }
  });

  test("enqueues a run that an api wrote down before it died, unless its key stands for another", async () => {
    const headers = { ...NDJSON, "Idempotency-Key": "once" };
    const submit = async () =>
      (await send("POST", `${api.url}/v1/bulk?model=Echo`, '{"custom_id":"a"}', headers)).body.id as string;
    const names = createNames(api.config.redis_prefix);
    const [unkeyed, keyed] = [await sendManifest(1), await submit()];
    await connection.del(names.bulkIdempotency("once"));
    const repeated = await submit();
    for (const id of [unkeyed, keyed]) await runs.queue.remove(id);

    const coordinator = await startCoordinator();
    try {
      await until(async () => (await runs.read(unkeyed)).status === "running", "the forgotten run");
      await until(async () => (await runs.read(repeated)).status === "running", "the repeated run");
      await until(
        () =>
          runs.read(keyed).then(
            () => false,
            () => true,
          ),
        "the removal of the one that was asked for again",
      );
      expect(await runs.queue.getJob(keyed)).toBeUndefined();
    } finally {
      for (const id of [unkeyed, repeated]) await send("DELETE", `${api.url}/v1/bulk/${id}`);
      await coordinator.close();
    }
  });

  test("that resumes a run counts on from what is done, which is nobody's rate", async () => {
    const id = await sendManifest(5);
    const lines = [0, 1, 2].map((index) => `{"index":${index},"status":"succeeded","line":${index + 1}}\n`);
    writeFileSync(join(api.config.data_dir, "bulk", id, "results.ndjson"), lines.join(""));
    const key = createNames(api.config.redis_prefix).bulkRun(id);
    await connection.hset(key, { status: "running", succeeded: 3 });
    const coordinator = await startCoordinator();
    const beats = new Set<string | null>();
    try {
      await until(async () => {
        const { counts, images_per_second, eta_seconds } = await runs.read(id);
        expect({ counts, images_per_second, eta_seconds }).toEqual({
          counts: { total: 5, done: 3, succeeded: 3, failed: 0 },
          images_per_second: null,
          eta_seconds: null,
        });
        beats.add(await connection.hget(key, "updated"));
        return beats.size > 3;
      }, "some heartbeats");
    } finally {
      await send("DELETE", `${api.url}/v1/bulk/${id}`);
      await coordinator.close();
    }
  });

  test("that lets go of a run stops what follows it, whatever it ended of", async () => {
    const id = await sendManifest(1);
    const [log, { signal }] = [pino({ level: "silent" }), new AbortController()];
    const heartbeat = await startHeartbeat(id, { runs, log, signal });
    try {
      expect(heartbeat.stop.aborted).toBe(false);
      await heartbeat.end();
      expect([heartbeat.order(), heartbeat.stop.aborted]).toEqual(["continue", true]);
    } finally {
      await send("DELETE", `${api.url}/v1/bulk/${id}`);
    }
  });

  test("reads ahead 64 MiB of pictures that came inside a manifest, and no more", async () => {
    const picture = Buffer.concat([Buffer.from([0xff, 0xd8, 0xff]), Buffer.alloc(4 * 1024 * 1024)]);
    const id = await sendManifest(20, { image: picture.toString("base64") });
    const coordinator = await startCoordinator();
    try {
      await until(async () => (await bulkQueue.getPrioritizedCount()) > 0, "the window");
      expect(await bulkQueue.getPrioritizedCount()).toBe(16);
    } finally {
      await send("DELETE", `${api.url}/v1/bulk/${id}`);
      await coordinator.close();
    }
  });

  test("that takes over a cancelled run takes what its dead predecessor left out of the bulk queue", async () => {
    const { config } = api;
    const { data_dir, redis_prefix } = config;
    const models = { Echo: { loader: "CenterNetModelLoader", model_path: ["demo://centernet"] } };
    writeFileSync(config.file, JSON.stringify({ data_dir, redis_prefix, models }));
    const dying = runInfermill(["coordinator", "--config", config.file], { env: { REDIS_URL: redis.url } });
    const id = await sendManifest(100);
    await until(async () => (await bulkQueue.getPrioritizedCount()) === 64, "a full window");
    dying.child.kill("SIGKILL");
    await dying.exited;
    const cancelling = send("DELETE", `${api.url}/v1/bulk/${id}`);
    const coordinator = await startCoordinator();
    try {
      await cancelling;
      await until(async () => (await runs.read(id)).status === "cancelled", "the end of the run");
      expect(await bulkQueue.getPrioritizedCount()).toBe(0);
    } finally {
      await coordinator.close();
    }
  });

  test("sends word of a cancelled run where the api could not; the cancellation stands all the same", async () => {
    const webhook = encodeURIComponent("https://example.org/told");
    const id = await sendManifest(3, {}, `&webhook=${webhook}`);
    const cutOff = await openBulkRuns(api.config, redis.url, async () => {
      throw new RedisUnavailableError("Redis went away");
    });
    const deliveries = new Deliveries(connection, createNames(api.config.redis_prefix), api.config);
    let coordinator: BulkCoordinator | undefined;
    try {
      expect(await cutOff.cancel(id)).toMatchObject({ id, status: "cancelled" });
      const pending = async () => (await deliveries.search({ status: "pending" })).deliveries;
      expect(await pending()).toEqual([]);
      coordinator = await startCoordinator();
      await until(async () => (await pending()).length > 0, "the delivery");
      expect(await pending()).toMatchObject([{ event: "bulk.cancelled" }]);
    } finally {
      await coordinator?.close();
      await deliveries.close();
      await cutOff.close();
    }
  });

  test("works on a few runs of a model and priority side by side, and none waits for a less urgent one or another model", async () => {
    const start = (model: string, priority: string) => sendManifest(1, {}, `&priority=${priority}`, model);
    const low: string[] = [];
    for (let number = 0; number < 9; number++) low.push(await start("Echo", "low"));
    const others = [await start("Echo", "high"), await start("Tiny", "low")];
    const statusOf = async (id: string) => (await runs.read(id)).status;
    const coordinator = await startCoordinator();
    try {
      await until(
        async () =>
          (await Promise.all([...low.slice(0, 8), ...others].map(statusOf))).every(
            (status) => status === "running",
          ),
        "all that need not wait",
      );
      expect(await statusOf(low[8]!)).toBe("queued");
      // Cancelled while it waits for its turn, and one that has its turn leaves it to the next.
      const waiting = await start("Echo", "low");
      const cancel = async (id: string) => (await send("DELETE", `${api.url}/v1/bulk/${id}`)).body.status;
      expect(await cancel(waiting)).toBe("cancelled");
      expect(await statusOf(low[8]!)).toBe("queued");
      expect(await cancel(low[0]!)).toBe("cancelled");
      await until(async () => (await statusOf(low[8]!)) === "running", "the next one");
      await Promise.all([...low.slice(1), ...others].map(cancel));
    } finally {
      await coordinator.close();
    }
  }, 30_000);

  test("sends a chunk again that a worker of 0.1 took for one prediction, and nothing of it is lost", async () => {
    const prefix = createNames(api.config.redis_prefix).bulkQueuePrefix("Echo");
    const scripts = defineScripts(connection);
    const taken: string[] = [];
    const worker = new Worker(
      "Echo",
      async (job) => {
        taken.push(job.id!);
        // What 0.1 does with whatever has an expires_at that is over.
        if (taken.length === 1) {
          expect(job.data).toMatchObject({ expires_at: 1, inputs: [] });
          throw new UnrecoverableError("expired: it waited for longer than its ttl_ms");
        }
        const { entries } = job.data as BulkChunkData;
        const rows = entries.map(({ index }) => failedRow(index, new BadInputError("seen").toSummary()));
        await scripts.keepRows(worker.toKey, job.id!, rows);
        return entries.length;
      },
      { connection, prefix, concurrency: 1 },
    );
    const id = await sendManifest(1);
    const coordinator = await startCoordinator();
    try {
      await until(async () => (await runs.read(id)).status === "completed", "the end of the run");
      expect((await runs.read(id)).counts).toMatchObject({ total: 1, failed: 1 });
      expect(taken).toEqual([`${id}-0_1`, `${id}-0_1`]);
      const [line] = await readLines(id);
      expect(JSON.parse(line!)).toMatchObject({ custom_id: "c0", error: { detail: "seen" } });
    } finally {
      await coordinator.close();
      await worker.close();
    }
  }, 30_000);

  test("is not needed to leave nothing in the bulk queue of a run that is cancelled or deleted", async () => {
    const bulkQueues = await openBulkQueues(api.config, redis.url);
    const names = createNames(api.config.redis_prefix);
    const id = await sendManifest(5);
    const submit = (runId: string) =>
      bulkQueues.bulkQueue("Echo").submit(
        { id: runId, request: {}, priority: "low" },
        [0, 1, 2].map((index) => [{ index, inputs: [] }]),
      );
    const left = async () => (await bulkQueue.getJobs()).map((job) => job.id);
    try {
      // As an owner that died leaves it: one entry ended, the others wait.
      await submit(id);
      const token = "a worker";
      const worker = new Worker("Echo", undefined, { connection, prefix: names.bulkQueuePrefix("Echo") });
      const job = await worker.getNextJob(token);
      await job.log("a large response");
      await job.moveToCompleted({ response_log: 0 }, token, false);
      const response = `${worker.toKey(job.id!)}:logs`;
      expect(await connection.exists(response)).toBe(1);
      await worker.close();
      const other = newBulkRunId();
      await submit(other);
      expect(await left()).toHaveLength(6);
      await send("DELETE", `${api.url}/v1/bulk/${id}`);
      expect(await left()).toEqual([2, 1, 0].map((index) => `${other}-${index}_1`));
      expect(await connection.exists(response)).toBe(0);
      await submit(id);
      await send("DELETE", `${api.url}/v1/bulk/${id}`);
      expect(await left()).toHaveLength(3);
    } finally {
      await bulkQueues.close();
    }
  });
});
