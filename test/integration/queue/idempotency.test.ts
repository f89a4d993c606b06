/** Submissions under a key or an id of the client's own. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, send, startTestApi, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const request = { Tid: "1", Base_64: Buffer.from("a picture").toString("base64") };
const sameOtherwiseOrdered = { Base_64: request.Base_64, Tid: "1" };

describe.skipIf(whyNoRedis)("idempotent submissions", () => {
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

  const post = (key: string, body: unknown, model = "Echo") =>
    send("POST", api.predictions(model), body, { "Idempotency-Key": key });

  test("the same key and the same request give the first prediction again, whose input still waits", async () => {
    const first = await post("order 1", request);
    const inputs = await api.storedInputs();
    expect([first.status, inputs.length]).toEqual([202, 1]);
    const second = await post("order 1", sameOtherwiseOrdered);
    expect(second.status).toBe(202);
    expect(second.body).toEqual(first.body);
    expect(await api.storedInputs()).toEqual(inputs);
  });

  test("the same key with another dictionary or another picture is refused with 422", async () => {
    const first = await post("order 2", request);
    for (const other of [
      { ...request, Tid: "2" },
      { ...request, Base_64: Buffer.from("b picture").toString("base64") },
      { Tid: "1" },
    ]) {
      const inputs = await api.storedInputs();
      const { status, body } = await post("order 2", other);
      expect([status, body.code]).toEqual([422, "idempotency_conflict"]);
      expect(await api.storedInputs()).toEqual(inputs);
    }
    expect((await post("order 2", request)).body.id).toBe(first.body.id);
  });

  test("twenty submissions with one key at once make one prediction", async () => {
    const before = (await api.storedInputs()).length;
    const answers = await Promise.all(Array.from({ length: 20 }, () => post("at once", request)));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 202));
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    expect((await api.storedInputs()).length).toBe(before + 1);
  });

  test("a key belongs to its model", async () => {
    expect((await post("shared", {}, "Echo")).status).toBe(202);
    expect((await post("shared", { Tid: "other" }, "Tiny")).status).toBe(202);
  });

  test("a known key needs no room in the queue", async () => {
    const { status } = await post("fits", {}, "Tiny");
    expect(status).toBe(202);
    expect((await post("too much", {}, "Tiny")).status).toBe(429);
    expect((await post("fits", {}, "Tiny")).status).toBe(202);
  });

  test("a key covers each of many requests", async () => {
    const first = await post("many", [{ Tid: "a" }, { Tid: "b" }]);
    const again = await post("many", [{ Tid: "a" }, { Tid: "changed" }]);
    expect(again.body.predictions[0].id).toBe(first.body.predictions[0].id);
    expect(again.body.predictions[1]).toMatchObject({ code: "idempotency_conflict", index: 1 });
  });

  test.each([[""], ["x".repeat(256)], ["na\u00efve"]])("the key %j is refused", async (key) => {
    const { status, body } = await post(key, {});
    expect([status, body.errors[0].key]).toEqual([422, "Idempotency-Key"]);
  });

  test("PUT submits under the client's id, and once more gives the same prediction", async () => {
    const url = `${api.predictions()}/frame-0042`;
    const first = await send("PUT", url, request);
    expect([first.status, first.body.id]).toEqual([202, "frame-0042"]);
    expect((await send("PUT", url, request)).body).toEqual(first.body);
    const picture = await fetch(url, {
      method: "PUT",
      headers: { "Content-Type": "image/jpeg" },
      body: "another picture",
    });
    expect(picture.status).toBe(422);
  });

  test.each([["12345"], ["a:b"], ["meta"], ["prioritized"], [".hidden"], ["x".repeat(129)]])(
    "PUT refuses the id %s, and GET knows no such prediction",
    async (id) => {
      const url = `${api.predictions()}/${encodeURIComponent(id)}`;
      expect((await send("PUT", url, {})).status).toBe(422);
      const { status, body } = await send("GET", url);
      expect([status, body.code]).toEqual([404, "prediction_not_found"]);
    },
  );

  test("a repeat of what has ended is answered with 200 and the result", async () => {
    const consumer = consume(redis.url, api.config, "Echo", async ({ data }) => ({ Tid: data.request.Tid }));
    try {
      await send("POST", api.predictions(), { Tid: "5" }, { "Idempotency-Key": "ends", Prefer: "wait=30" });
      const { status, body } = await post("ends", { Tid: "5" });
      expect([status, body.status, body.result.Tid]).toEqual([200, "succeeded", "5"]);
    } finally {
      await consumer.close();
    }
  });
});
