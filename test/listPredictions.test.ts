import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../src/redis/provideRedis.ts";
import { consume, send, startTestApi, type Json, type TestApi } from "./support/api.ts";
import { until } from "./support/infermill.ts";
import { startTestRedis, whyNoRedis } from "./support/redis.ts";

describe.skipIf(whyNoRedis)("the list of a model's predictions", () => {
  let redis: RedisServer;
  let api: TestApi;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url);
  });
  afterAll(async () => {
    await api?.close();
    await redis?.close();
  });

  const submit = async (Fid: string) => {
    const { body } = await send("POST", api.predictions(), { Fid });
    return body.id as string;
  };
  const list = async (query = ""): Promise<Json[]> => {
    const { status, body } = await send("GET", `${api.predictions()}${query}`);
    expect(status).toBe(200);
    return body.predictions;
  };
  const ids = async (query: string) => (await list(query)).map(({ id }) => id);

  test("is empty at first, and has each with its status, the newest first", async () => {
    expect(await list()).toEqual([]);
    const cancelled = await submit("cancelled");
    await send("DELETE", `${api.predictions()}/${cancelled}`);
    const succeeded = await submit("succeeded");
    const failed = await submit("failed");
    const consumer = consume(redis.url, api.config, "Echo", async ({ data }) => {
      if (data.request["Fid"] === "failed") throw new Error("bad_input: no picture");
      return { Rm: "seen" };
    });
    await until(async () => (await ids("?status=succeeded")).length > 0, "the one that succeeds");
    await until(async () => (await list()).every(({ finished_at }) => finished_at), "their ends");
    await consumer.close();
    const queued = await submit("queued");

    expect((await list()).map(({ id, status }) => [id, status])).toEqual([
      [queued, "queued"],
      [failed, "failed"],
      [succeeded, "succeeded"],
      [cancelled, "cancelled"],
    ]);
    for (const [status, id] of Object.entries({ queued, failed, succeeded, cancelled }))
      expect(await ids(`?status=${status}`)).toEqual([id]);
    expect(await list("?status=running")).toEqual([]);
    expect(await ids("?limit=2")).toEqual([queued, failed]);
    const [inList] = await list("?status=succeeded");
    expect(inList).toEqual((await send("GET", `${api.predictions()}/${succeeded}`)).body);
    expect(inList.result.Rm).toBe("seen");
  });

  test("is refused for an unknown model, status or limit", async () => {
    expect((await send("GET", api.predictions("None"))).status).toBe(404);
    const { status, body } = await send("GET", `${api.predictions()}?status=done&limit=0`);
    expect(status).toBe(422);
    expect(body.errors.map(({ key }: Json) => key)).toEqual(["status", "limit"]);
  });
});
