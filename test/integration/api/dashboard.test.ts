/** The dashboard, on queues as full as they get. */
import { Queue } from "bullmq";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openBulkRuns } from "../../../src/bulk/runs.ts";
import { openBulkQueues } from "../../../src/queue/bulkQueue.ts";
import { createNames, newBulkRunId } from "../../../src/queue/names.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const FINISHED = 100_000;

describe.skipIf(whyNoRedis)("the dashboard", () => {
  let redis: RedisServer;
  let api: TestApi;

  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url);
    await addFinishedJobs();
  });
  afterAll(async () => {
    await api?.close();
    await redis?.close();
  });

  /** In the layout of BullMQ, since to run so many would take minutes. */
  async function addFinishedJobs() {
    const connection = openRedis(redis.url);
    const key = `${createNames(api.config.redis_prefix).queuePrefix("Echo")}:Echo`;
    const data = JSON.stringify({ request: { Tid: "1" }, inputs: [{ file: "ab/x-0" }] });
    const returnvalue = JSON.stringify({
      response: { Fs: [], Rc: "200" },
      timings: {},
      batch_size: 8,
      engine: "e",
    });
    for (let start = 0; start < FINISHED; start += 5000) {
      const pipeline = connection.pipeline();
      for (let index = start; index < start + 5000; index++) {
        const at = Date.now() - FINISHED + index;
        pipeline.hset(`${key}:done_${index}`, {
          name: "predict",
          data,
          opts: '{"attempts":3}',
          timestamp: at,
          processedOn: at,
          finishedOn: at,
          ats: 1,
          atm: 1,
          returnvalue,
        });
        pipeline.zadd(`${key}:completed`, at, `done_${index}`);
      }
      await pipeline.exec();
    }
    connection.disconnect();
  }

  const queues = (query = "") => send("GET", `${api.url}/dashboard/api/queues?${query}`);

  test("its page and what that loads come from here", async () => {
    const html = await (await fetch(`${api.url}/dashboard`)).text();
    expect(html).toContain('<base href="/dashboard/" />');
    for (const [, path] of html.matchAll(/(?:src|href)="(static\/[^"]+)"/g)) {
      expect([path, (await fetch(`${api.url}/dashboard/${path}`)).status]).toEqual([path, 200]);
    }
    expect(html).not.toMatch(/(src|href)="(https?:)?\/\//);
    expect(html).toContain('href="/favicon.ico"');
    const icon = await fetch(`${api.url}/favicon.ico`);
    expect([icon.status, icon.headers.get("Content-Type")]).toEqual([200, "image/svg+xml; charset=utf-8"]);
  });

  test("it shows every queue, and pages through 100,000 finished jobs quickly", async () => {
    const start = Date.now();
    const { body } = await queues("activeQueue=Echo&status=completed&page=1&jobsPerPage=20");
    expect(Date.now() - start).toBeLessThan(2000);
    expect(body.queues.map((queue: Json) => queue.name)).toEqual([
      "Echo",
      "Tiny",
      "bulk Echo",
      "bulk Tiny",
      "_bulk",
      "_webhooks",
    ]);
    expect(body.queues[0].counts.completed).toBe(FINISHED);
    expect(body.queues[0].jobs).toHaveLength(20);
    expect(body.queues[0].pagination.pageCount).toBe(FINISHED / 20);
    const last = await queues("activeQueue=Echo&status=completed&page=5000&jobsPerPage=20");
    expect(last.body.queues[0].jobs).toHaveLength(20);
  });

  test("large inputs and large dictionaries leave it small", async () => {
    const picture = Buffer.alloc(3_000_000, "picture").toString("base64");
    const { body: prediction } = await send("POST", api.predictions(), {
      Base_64: picture,
      Msk_img: [picture],
    });
    const { body } = await queues("activeQueue=Echo&status=prioritized");
    const [job] = body.queues[0].jobs;
    expect(job.id).toBe(prediction.id);
    expect(job.data.inputs).toEqual([{ file: expect.stringContaining(prediction.id) }]);
    expect(job.data.request.Msk_img[0]).toMatch(/… \(4000000 characters\)$/);
    expect(job.externalUrl.href).toBe(prediction.links.self);
    expect(JSON.stringify(body).length).toBeLessThan(20_000);
  });

  test("it shows a bulk run of the command line: counts, rate and failures, and its predictions", async () => {
    const id = newBulkRunId();
    const runs = await openBulkRuns(api.config, redis.url);
    await runs.register(
      {
        id,
        model: "Echo",
        source: { kind: "folder", folder: "/photos" },
        request: {},
        priority: "low",
        created: Date.now(),
        results_file: "/results.ndjson",
      },
      0,
    );
    await runs.heartbeat(id, "owner", {
      status: "running",
      total: 10,
      succeeded: 3,
      failed: 1,
      skipped: { total: 0, by_reason: {} },
      rate: 12.5,
    });
    await runs.close();
    const bulk = await openBulkQueues(api.config, redis.url);
    await bulk.bulkQueue("Echo").submit({ id, request: {}, priority: "low" }, [[{ index: 4, inputs: [] }]]);
    await bulk.close();

    const { body } = await queues("activeQueue=_bulk&status=active");
    const shown = body.queues.find((queue: Json) => queue.name === "_bulk");
    expect(shown.counts).toMatchObject({ active: 1, waiting: 0, completed: 0, failed: 0 });
    expect(shown.jobs).toEqual([
      expect.objectContaining({
        id,
        progress: 40,
        data: expect.objectContaining({
          counts: { total: 10, done: 4, succeeded: 3, failed: 1 },
          images_per_second: 12.5,
        }),
      }),
    ]);
    expect((await send("GET", `${api.url}/dashboard/api/queues/_bulk/${id}`)).body).toMatchObject({
      job: { id, name: "Echo" },
      status: "active",
    });
    const waiting = body.queues.find((queue: Json) => queue.name === "bulk Echo");
    expect(waiting.counts.prioritized).toBe(1);
    const metrics = await (await fetch(`${api.url}/metrics`)).text();
    expect(metrics).toContain('infermill_queue_predictions{model="Echo",queue="bulk",state="waiting"} 1');
  });

  test("it can't end, revive or remove predictions", async () => {
    const { body: prediction } = await send("POST", api.predictions("Tiny"), {});
    for (const [method, path] of [
      ["PUT", `/api/queues/Tiny/${prediction.id}/clean`],
      ["PUT", "/api/queues/Tiny/empty"],
      ["PUT", "/api/queues/Tiny/pause"],
      ["PUT", "/api/queues/Echo/clean/completed"],
      ["PUT", "/api/queues/Echo/done_1/retry"],
      ["PUT", "/api/queues/Tiny/obliterate"],
    ]) {
      const response = await fetch(`${api.url}/dashboard${path}`, { method: method! });
      expect([path, response.status]).toEqual([path, 405]);
    }
    const connection = openRedis(redis.url);
    const queue = new Queue("Tiny", {
      connection,
      prefix: createNames(api.config.redis_prefix).queuePrefix("Tiny"),
    });
    expect(await queue.getPrioritizedCount()).toBe(1);
    expect(await queue.isPaused()).toBe(false);
    await queue.close();
    connection.disconnect();
  });
});
