/** The limit of a queue is exact, however many submit at once and from how many processes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("max_queue_length", () => {
  const limit = 37;
  let redis: RedisServer;
  let apis: TestApi[];

  beforeAll(async () => {
    redis = await startTestRedis();
    const models = Object.fromEntries(
      ["Raw", "Mixed", "Many"].map((name) => [name, { loader: "EchoModelLoader", max_queue_length: limit }]),
    );
    const shared = { redis_prefix: "test-limit", models };
    apis = await Promise.all([startTestApi(redis.url, shared), startTestApi(redis.url, shared)]);
  });
  afterAll(async () => {
    await Promise.all(apis?.map((api) => api.close()) ?? []);
    await redis?.close();
  });

  test("of 200 pictures that come at once to two apis, exactly max_queue_length are accepted", async () => {
    const statuses = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const response = await fetch(apis[index % 2]!.predictions("Raw"), {
          method: "POST",
          headers: { "Content-Type": "image/png" },
          body: `picture ${index}`,
        });
        await response.arrayBuffer();
        return response.status;
      }),
    );
    expect(statuses.filter((status) => status === 202)).toHaveLength(limit);
    expect(statuses.filter((status) => status === 429)).toHaveLength(200 - limit);
    const { body } = await send("GET", `${apis[0]!.url}/v1/models/Raw`);
    expect(body.queue.waiting).toBe(limit);
    const inputs = await Promise.all(apis.map((api) => api.storedInputs()));
    expect(inputs.flat()).toHaveLength(limit);
  });

  test("a submission that fails gives its room back", async () => {
    const api = apis[0]!;
    const failing = Array.from({ length: limit * 2 }, () =>
      fetch(api.predictions("Mixed"), { method: "POST", headers: { "Content-Type": "image/png" }, body: "" }),
    );
    for (const response of await Promise.all(failing)) expect([422, 429]).toContain(response.status);
    const { body } = await send(
      "POST",
      api.predictions("Mixed"),
      Array.from({ length: limit }, () => ({})),
    );
    expect(body.predictions.filter((each: Json) => each.status === "queued")).toHaveLength(limit);
  });

  test("calls with many requests share the room that is left", async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        send(
          "POST",
          apis[index % 2]!.predictions("Many"),
          Array.from({ length: 10 }, () => ({})),
        ),
      ),
    );
    const accepted = answers
      .flatMap(({ body }) => body.predictions ?? [])
      .filter((each: Json) => each.status === "queued");
    expect(accepted).toHaveLength(limit);
  });

  test("cancelling makes room", async () => {
    const api = apis[0]!;
    const { body } = await send("GET", `${api.url}/v1/models/Raw`);
    expect(body.queue.waiting).toBe(limit);
    expect((await send("PUT", `${api.predictions("Raw")}/late`, {})).status).toBe(429);
    const { body: many } = await send("GET", `${api.url}/v1/models/Many`);
    expect(many.queue.waiting).toBe(limit);
  });
});
