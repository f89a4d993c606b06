/** The list of the predictions of all models. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createNames } from "../../../src/queue/names.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("the list of all predictions", () => {
  let redis: RedisServer;
  let api: TestApi;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, {
      models: { Echo: { loader: "EchoModelLoader" }, Other: { loader: "EchoModelLoader" } },
    });
  });
  afterAll(async () => {
    await api?.close();
    await redis?.close();
  });

  const submit = async (model: string, request: object = {}, query = "") =>
    (await send("POST", api.predictions(model) + query, request)).body.id as string;
  const list = async (query = ""): Promise<{ predictions: Json[]; next_cursor: string | null }> => {
    const { status, body } = await send("GET", `${api.url}/v1/predictions${query}`);
    expect([query, status]).toEqual([query, 200]);
    return body;
  };
  /** The ids of every page. */
  const pages = async (query: string): Promise<string[][]> => {
    const found: string[][] = [];
    let cursor: string | null = null;
    do {
      const page = await list(`?${query}${cursor === null ? "" : `&cursor=${cursor}`}`);
      found.push(page.predictions.map(({ id }) => id));
      cursor = page.next_cursor;
    } while (cursor !== null);
    return found;
  };

  test("has those that wait before those that ended, of every model, the last first", async () => {
    expect(await list()).toEqual({ predictions: [], next_cursor: null });
    const [first, second, third] = [
      await submit("Echo", { Fid: "1" }),
      await submit("Other", { Fid: "2" }),
      await submit("Echo", { Fid: "bad" }),
    ];
    await send("DELETE", `${api.predictions("Other")}/${second}`);
    const consumer = consume(redis.url, api.config, "Echo", async ({ data }) => {
      if (data.request["Fid"] === "bad") throw new Error("bad_input: no picture");
      return {};
    });
    await until(async () => (await list("?status=failed")).predictions.length === 1, "the one that fails");
    await until(async () => (await list("?status=succeeded")).predictions.length === 1, "the other one");
    await consumer.close();
    const low = await submit("Echo", {}, "?priority=low");
    const high = await submit("Other", {}, "?priority=high");

    const { predictions } = await list();
    expect(predictions.slice(0, 2).map(({ id }) => id)).toEqual([high, low]);
    expect(new Set(predictions.slice(2).map(({ id }) => id))).toEqual(new Set([first, second, third]));
    expect(predictions.at(-1).id).toBe(second);
    const succeeded = predictions.find(({ id }) => id === first);
    expect(succeeded).toEqual({
      id: first,
      model: "Echo",
      status: "succeeded",
      created_at: expect.stringMatching(/Z$/),
      started_at: expect.stringMatching(/Z$/),
      finished_at: expect.stringMatching(/Z$/),
      wait_ms: 1,
      run_ms: 4,
      attempts: 1,
      batch_size: 1,
      engine: "test/0",
      error: null,
      links: (await send("GET", `${api.predictions()}/${first}`)).body.links,
    });
    expect(predictions.find(({ id }) => id === third)).toMatchObject({
      status: "failed",
      run_ms: null,
      error: { code: "bad_input", detail: "no picture" },
    });
    expect(predictions[0]).toMatchObject({ status: "queued", started_at: null, attempts: 0 });
    expect(predictions[0].wait_ms).toBeGreaterThanOrEqual(0);
    expect(predictions.at(-1)).toMatchObject({ status: "cancelled", wait_ms: null });
  });

  test("has those of one model or status only", async () => {
    for (const [query, statuses] of [
      ["model=Other", ["queued", "cancelled"]],
      ["model=Other&status=queued", ["queued"]],
      ["status=cancelled", ["cancelled"]],
      ["status=failed", ["failed"]],
      ["status=running", []],
      ["status=expired", []],
    ] as const) {
      const found = (await list(`?${query}`)).predictions.map(({ status }) => status);
      expect([query, found]).toEqual([query, statuses]);
    }
    expect((await send("GET", `${api.url}/v1/predictions?model=None`)).status).toBe(404);
    for (const query of ["status=done", "limit=0", "limit=101", "limit=", "cursor=x", "cursor=ended-1"])
      expect([query, (await send("GET", `${api.url}/v1/predictions?${query}`)).status]).toEqual([query, 422]);
  });

  test("goes through all of them page by page, each once", async () => {
    const consumer = consume(redis.url, api.config, "Other", async () => ({}));
    await Promise.all(Array.from({ length: 25 }, () => submit("Other")));
    await until(
      async () => (await list("?model=Other&status=queued")).predictions.length === 0,
      "their ends",
    );
    await consumer.close();
    const waiting = await Promise.all(Array.from({ length: 12 }, () => submit("Echo")));

    for (const limit of [1, 5, 7, 100]) {
      const found = await pages(`limit=${limit}`);
      const ids = found.flat();
      // 25 more and 12 that wait beside the five of the first test.
      expect([limit, ids.length, new Set(ids).size]).toEqual([limit, 42, 42]);
      expect(new Set(ids.slice(0, 13))).toEqual(
        new Set([...waiting, ids.find((id) => !waiting.includes(id))]),
      );
      expect(Math.max(...found.map((page) => page.length))).toBeLessThanOrEqual(limit);
    }
    expect((await pages("limit=3&status=failed")).flat()).toHaveLength(1);
    expect((await pages("limit=3&status=cancelled")).flat()).toHaveLength(1);
    expect((await pages("limit=4&status=succeeded")).flat()).toHaveLength(27);
    expect((await pages("limit=5&status=queued")).flat()).toHaveLength(13);
  });

  test("goes on where many ended in the same millisecond, or are gone by now", async () => {
    const connection = openRedis(redis.url);
    const key = `${createNames(api.config.redis_prefix).queuePrefix("Other")}:Other`;
    const ids = Array.from({ length: 60 }, (_, index) => `same_${String(index).padStart(2, "0")}`);
    for (const id of ids) {
      await connection.zadd(`${key}:failed`, 1000, id);
      if (!id.endsWith("0"))
        await connection.hset(`${key}:${id}`, {
          timestamp: 1,
          finishedOn: 1000,
          failedReason: "bad_input: x",
        });
    }
    connection.disconnect();
    const found = (await pages("limit=7&status=failed")).flat().filter((id) => id.startsWith("same_"));
    expect(found).toEqual(ids.filter((id) => !id.endsWith("0")).toReversed());
  });
});
