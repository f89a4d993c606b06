/** A Redis that answers too late for the api, and then does what it was asked all the same. */
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createNames } from "../../../src/queue/names.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("when Redis hangs for longer than the api waits", () => {
  let redis: RedisServer;
  let connection: Redis;
  let pid: number;
  let api: TestApi;

  beforeAll(async () => {
    redis = await startTestRedis();
    connection = openRedis(redis.url);
    pid = Number(/process_id:(\d+)/.exec(await connection.info("server"))![1]);
    api = await startTestApi(redis.url, {
      models: {
        Echo: { loader: "EchoModelLoader" },
        One: { loader: "EchoModelLoader", max_queue_length: 1 },
      },
    });
  });
  afterAll(async () => {
    if (pid) process.kill(pid, "SIGCONT");
    connection?.disconnect();
    await api?.close();
    await redis?.close();
  });

  test("a submission that it accepts late succeeds under its key, and room that it reserves late is given back", async () => {
    const slots = createNames(api.config.redis_prefix).slots("Echo");
    const headers = { "Content-Type": "image/jpeg", "Idempotency-Key": "frame 1" };
    let finishUpload = () => {};
    const rest = new Promise<void>((resolve) => (finishUpload = resolve));
    async function* picture() {
      yield Buffer.from("a ");
      await rest;
      yield Buffer.from("picture");
    }
    const upload = fetch(api.predictions(), {
      method: "POST",
      headers,
      body: ReadableStream.from(picture()),
      duplex: "half",
    });
    await expect.poll(() => connection.zcard(slots)).toBe(1);

    process.kill(pid, "SIGSTOP");
    finishUpload();
    const [late, unreserved, json] = await Promise.all([
      upload,
      fetch(api.predictions("One"), {
        method: "POST",
        headers: { "Content-Type": "image/jpeg" },
        body: ReadableStream.from([Buffer.from("of unknown length")]),
        duplex: "half",
      }),
      send("POST", api.predictions(), {}),
    ]);
    process.kill(pid, "SIGCONT");
    expect([late.status, unreserved.status, json.status]).toEqual([503, 503, 503]);
    expect(((await late.json()) as Json).detail).toContain("isn't known whether this was accepted");
    expect(((await unreserved.json()) as Json).detail).toContain("nothing was accepted");
    // It is added in the step that looks for room.
    expect(json.body.detail).toContain("isn't known whether this was accepted");

    const again = await fetch(api.predictions(), { method: "POST", headers, body: "a picture" });
    expect([again.status, ((await again.json()) as Json).status]).toEqual([202, "queued"]);
    expect(await api.storedInputs()).toHaveLength(1);
    expect(await connection.zcard(slots)).toBe(0);
    expect((await send("POST", api.predictions("One"), {})).status).toBe(202);
  });
});
