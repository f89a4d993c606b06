import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

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

  const submit = async (Fid: string, query = "") => {
    const { body } = await send("POST", api.predictions() + query, { Fid });
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

  test("has one that was cancelled while it ran, before and after its worker is done with it", async () => {
    const id = await submit("cancelled");
    let finish = () => {};
    const consumer = consume(
      redis.url,
      api.config,
      "Echo",
      ({ data }) =>
        new Promise((done) => (data.request["Fid"] === "cancelled" ? (finish = () => done({})) : done({}))),
    );
    await until(async () => (await ids("?status=running")).length > 0, "its run");
    await send("DELETE", `${api.predictions()}/${id}`);
    expect(await ids("?status=cancelled")).toContain(id);
    finish();
    await consumer.close();
    expect(await ids("?status=cancelled")).toContain(id);
    // Though it is the one that ended last in BullMQ's set.
    expect(await ids("?status=succeeded&limit=1")).toHaveLength(1);
  });

  test("begins with an urgent prediction that was accepted last, however many others wait", async () => {
    for (let count = 0; count < 3; count++) await submit("low", "?priority=low");
    const urgent = await submit("high", "?priority=high");
    const normal = await submit("normal");
    for (const query of ["?status=queued&limit=2", "?limit=2"])
      expect(new Set(await ids(query))).toEqual(new Set([urgent, normal]));
  });

  test("is refused for an unknown model, status or limit", async () => {
    expect((await send("GET", api.predictions("None"))).status).toBe(404);
    const { status, body } = await send("GET", `${api.predictions()}?status=done&limit=0`);
    expect(status).toBe(422);
    expect(body.errors.map(({ key }: Json) => key)).toEqual(["status", "limit"]);
  });
});
