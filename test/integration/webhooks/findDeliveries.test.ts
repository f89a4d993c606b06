/** Webhook deliveries by what they tell of, page by page. */
import { Worker } from "bullmq";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Deliveries } from "../../../src/queue/deliveries.ts";
import { createNames, newBulkRunId } from "../../../src/queue/names.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const HOOK = "https://hooks.example.com/in";

describe.skipIf(whyNoRedis)("webhook deliveries", () => {
  let redis: RedisServer;
  let api: TestApi;
  let connection: ReturnType<typeof openRedis>;
  let deliveries: Deliveries;
  const run = newBulkRunId();
  const ids: string[] = [];
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url);
    connection = openRedis(redis.url);
    deliveries = new Deliveries(connection, createNames(api.config.redis_prefix), api.config);
    for (let count = 0; count < 12; count++)
      ids.push((await send("POST", `${api.predictions()}?webhook=${HOOK}`, {})).body.id);
    const data = { id: run, links: {} };
    const event = { type: "bulk.completed", timestamp: new Date().toISOString(), data } as const;
    await deliveries.send({ url: HOOK, events: ["bulk.completed"] }, event);
  });
  afterAll(async () => {
    await deliveries?.close();
    connection?.disconnect();
    await api?.close();
    await redis?.close();
  });

  const find = async (query: string): Promise<Json> => {
    const { status, body } = await send("GET", `${api.url}/v1/webhooks/deliveries?${query}`);
    expect([query, status]).toEqual([query, 200]);
    return body;
  };

  test("are found by their prediction, whatever their status", async () => {
    const { deliveries: found, next_cursor } = await find(`prediction=${ids[3]}`);
    expect(found).toMatchObject([
      { prediction: { model: "Echo", id: ids[3] }, run: null, status: "pending" },
    ]);
    expect(next_cursor).toBeNull();
    expect((await find(`prediction=${ids[3]}&status=failed`)).deliveries).toEqual([]);
    expect((await find("prediction=none")).deliveries).toEqual([]);
    const { links } = (await send("GET", `${api.predictions()}/${ids[3]}`)).body;
    expect((await send("GET", api.url + links.deliveries)).body.deliveries).toEqual(found);
  });

  test("are found by their bulk run", async () => {
    const { deliveries: found } = await find(`run=${run}`);
    expect(found).toMatchObject([{ run, prediction: null, event: "bulk.completed" }]);
  });

  test("are listed page by page, each once", async () => {
    expect((await find("")).deliveries).toEqual([]);
    for (const limit of [1, 4, 5, 13, 100]) {
      const found: Json[] = [];
      let cursor = "";
      do {
        const page = await find(`status=pending&limit=${limit}${cursor}`);
        expect(page.deliveries.length).toBeLessThanOrEqual(limit);
        found.push(...page.deliveries);
        cursor = page.next_cursor === null ? "" : `&cursor=${page.next_cursor}`;
      } while (cursor !== "");
      expect([limit, new Set(found.map(({ id }) => id)).size, found.length]).toEqual([limit, 13, 13]);
    }
  });

  test("are listed once while they are sent", async () => {
    const event = {
      type: "bulk.failed",
      timestamp: new Date().toISOString(),
      data: { id: run, links: {} },
    } as const;
    const webhook = { url: HOOK, events: ["bulk.failed" as const] };
    await Promise.all(Array.from({ length: 300 }, () => deliveries.send(webhook, event)));
    const names = createNames(api.config.redis_prefix);
    const sender = new Worker(names.deliveryQueue, () => Promise.resolve({ status: "delivered" }), {
      connection,
      prefix: names.queuePrefix(undefined),
      concurrency: 10,
    });
    const queue = deliveries.queues.get(undefined)!;
    for (let isSent = false; !isSent;) {
      isSent = (await queue.getJobCountByTypes("wait", "active")) === 0;
      const { deliveries: found } = await deliveries.search({ run, limit: 1000 });
      expect(new Set(found.map(({ id }) => id)).size).toBe(found.length);
    }
    await sender.close();
    expect((await deliveries.search({ run, status: "delivered", limit: 1000 })).deliveries).toHaveLength(301);
  });

  test.each(["offset=", "limit=", "limit=%205", "offset=1e3", "cursor=", "cursor=x", "offset=-1", "limit=0"])(
    "aren't listed by ?%s, which is no number",
    async (query) => {
      const { status, body } = await send("GET", `${api.url}/v1/webhooks/deliveries?${query}`);
      expect([status, body.errors[0].key]).toEqual([422, query.split("=")[0]]);
    },
  );
});
