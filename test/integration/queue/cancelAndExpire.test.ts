/** Predictions that are cancelled or wait for too long, and those who wait for them. */
import { setTimeout as sleep } from "node:timers/promises";
import { UnrecoverableError } from "bullmq";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createNames } from "../../../src/queue/names.ts";
import { openPredictions } from "../../../src/queue/predictions.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, openRedis, send, startTestApi, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("cancelling, expiring and waiting", () => {
  let redis: RedisServer;
  let api: TestApi;
  let second: TestApi;

  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, { redis_prefix: "test-cancel" });
    second = await startTestApi(redis.url, { redis_prefix: "test-cancel", data_dir: api.config.data_dir });
  });
  afterAll(async () => {
    await api?.close();
    await second?.close();
    await redis?.close();
  });

  async function submit(query = "", headers: Record<string, string> = {}) {
    const { body } = await send("POST", `${api.predictions()}${query}`, { Base_64: "aGFsbG8=" }, headers);
    return { ...body, url: `${api.url}${body.links.self}` };
  }

  test("a prediction that waits is cancelled at once, from any process, and once more is harmless", async () => {
    const { id, url } = await submit();
    const waiting = send("GET", `${url}?wait=30`);
    await sleep(100);
    const cancelled = await send("DELETE", `${second.predictions()}/${id}`);
    expect([cancelled.status, cancelled.body.status]).toEqual([200, "cancelled"]);
    expect(cancelled.body.error).toMatchObject({ code: "cancelled" });
    expect(cancelled.body.finished_at).not.toBeNull();
    expect((await waiting).body).toEqual(cancelled.body);
    const again = await send("DELETE", url);
    expect([again.status, again.body]).toEqual([200, cancelled.body]);
    await expect.poll(() => api.storedInputs()).not.toContain(`${id}-0`);
  });

  test("a prediction that runs is cancelled, and its outcome is dropped", async () => {
    let finish = () => {};
    const finished = new Promise<void>((resolve) => (finish = resolve));
    const consumer = consume(redis.url, api.config, "Echo", () => finished.then(() => ({})));
    try {
      const { url } = await submit();
      await expect.poll(async () => (await send("GET", url)).body.status).toBe("running");
      expect((await send("DELETE", url)).body.status).toBe("cancelled");
      finish();
      await sleep(300);
      expect((await send("GET", url)).body).toMatchObject({ status: "cancelled", result: null });
    } finally {
      finish();
      await consumer.close();
    }
  });

  test("a prediction that ended otherwise can't be cancelled", async () => {
    const consumer = consume(redis.url, api.config, "Echo", async () => ({}));
    try {
      const { url, status } = await submit("", { Prefer: "wait=30" });
      expect(status).toBe("succeeded");
      const { status: answer, body } = await send("DELETE", url);
      expect([answer, body.code]).toEqual([409, "already_ended"]);
      expect((await send("GET", url)).body.status).toBe("succeeded");
    } finally {
      await consumer.close();
    }
  });

  test("a prediction that waits for longer than its ttl_ms expires", async () => {
    const { id, url } = await submit("?ttl_ms=50");
    await sleep(100);
    const { body } = await send("GET", url);
    expect(body).toMatchObject({ status: "expired", error: { code: "expired" }, result: null });
    expect((await send("DELETE", url)).status).toBe(409);
    await expect.poll(() => api.storedInputs()).not.toContain(`${id}-0`);
  });

  test("a failed prediction tells why", async () => {
    const consumer = consume(redis.url, api.config, "Tiny", async () => {
      throw new UnrecoverableError("bad_input: the picture is no JPEG");
    });
    try {
      const { status, body } = await send("POST", api.predictions("Tiny"), {}, { Prefer: "wait=30" });
      expect(status).toBe(200);
      expect(body).toMatchObject({
        status: "failed",
        error: { code: "bad_input", title: "The input can't be used", detail: "the picture is no JPEG" },
      });
    } finally {
      await consumer.close();
    }
  });

  test("events tell every change of status and end with the last", async () => {
    const { url } = await submit();
    const response = await fetch(`${url}/events`);
    expect(response.headers.get("Content-Type")).toContain("text/event-stream");
    const reading = response.text();
    await sleep(100);
    const consumer = consume(redis.url, api.config, "Echo", async () => {
      await sleep(1500);
      return {};
    });
    try {
      const events = (await reading).trim().split("\n\n");
      expect(events.map((event) => event.split("\n")[0])).toEqual(Array.from(events, () => "event: status"));
      const statuses = events.map((event) => JSON.parse(event.split("\ndata: ")[1]!).status);
      expect(statuses).toEqual(["queued", "running", "succeeded"]);
    } finally {
      await consumer.close();
    }
  });

  test("word of an end that has not come yet costs a waiter one look", async () => {
    const connection = openRedis(redis.url);
    const predictions = await openPredictions(api.config, redis.url);
    const looks = async () =>
      Number(/cmdstat_hgetall:calls=(\d+)/.exec(await connection.info("commandstats"))?.[1] ?? 0);
    try {
      const { id } = await submit();
      const before = await looks();
      const waiting = predictions.wait("Echo", id, 500, undefined, predictions.watch("Echo", id));
      await connection.publish(createNames("test-cancel").completions, `Echo:${id}`);
      expect((await waiting).status).toBe("queued");
      expect((await looks()) - before).toBeLessThan(5);
      await predictions.cancel("Echo", id);
    } finally {
      await predictions.close();
      connection.disconnect();
    }
  });

  test("a completion event brings the end, as a look finds it; only a large one is read", async () => {
    const connection = openRedis(redis.url);
    const looks = async () =>
      Number(/cmdstat_hgetall:calls=(\d+)/.exec(await connection.info("commandstats"))?.[1] ?? 0);
    const ends: Record<string, () => Promise<Record<string, unknown>>> = {
      small: async () => ({ Lb: 'sn\u00f6w "\u2603" a / b' }),
      large: async () => ({ Lb: "x".repeat(20_000) }),
      failed: () => Promise.reject(new UnrecoverableError("bad_input: no picture\nat all")),
    };
    const consumer = consume(redis.url, api.config, "Echo", ({ data }) =>
      ends[String(data.request["Fid"])]!(),
    );
    try {
      for (const [end, read] of [
        ["small", 0],
        ["failed", 0],
        ["large", 1],
      ] as const) {
        const before = await looks();
        const waited = await send(
          "POST",
          api.predictions(),
          { Fid: end, Base_64: "aGFsbG8=" },
          { Prefer: "wait=30" },
        );
        // One is the worker's, to take the job.
        expect([end, (await looks()) - before]).toEqual([end, 1 + read]);
        expect([waited.status, waited.body.status]).toEqual([200, end === "failed" ? "failed" : "succeeded"]);
        const { stack: _stack, ...found } = (await send("GET", `${api.url}${waited.body.links.self}`)).body;
        expect(waited.body).toEqual(found);
      }
    } finally {
      await consumer.close();
      connection.disconnect();
    }
  });

  test("a prediction that ends while it is looked at is not told as queued", async () => {
    const predictions = await openPredictions(api.config, redis.url);
    let finish = () => {};
    const finished = new Promise<void>((resolve) => (finish = resolve));
    const consumer = consume(redis.url, api.config, "Echo", () => finished.then(() => ({})));
    try {
      const { id, url } = await submit();
      await expect.poll(async () => (await send("GET", url)).body.status).toBe("running");
      const queue = predictions.queues.get("Echo")!;
      const getJobState = queue.getJobState.bind(queue);
      vi.spyOn(queue, "getJobState").mockImplementationOnce(async (job) => {
        finish();
        await expect.poll(() => getJobState(job)).toBe("completed");
        return getJobState(job);
      });
      expect((await predictions.read("Echo", id)).status).toBe("succeeded");
    } finally {
      finish();
      await consumer.close();
      await predictions.close();
    }
  });

  test("a client that goes away while it waits changes nothing", async () => {
    const gone = new AbortController();
    const waiting = fetch(api.predictions(), {
      method: "POST",
      headers: { "Content-Type": "application/json", Prefer: "wait=30" },
      body: JSON.stringify({ Tid: "left" }),
      signal: gone.signal,
    });
    await sleep(200);
    gone.abort();
    await expect(waiting).rejects.toThrow("aborted");
    const { body } = await send("GET", `${api.url}/v1/models/Echo`);
    expect(body.queue.waiting).toBe(1);
  });

  test("closing the api ends the waits with what is known, and loses nothing", async () => {
    const third = await startTestApi(redis.url, { redis_prefix: "test-cancel" });
    const { body: prediction } = await send("POST", third.predictions(), {});
    const waiting = send("GET", `${third.url}${prediction.links.self}?wait=60`);
    const events = fetch(`${third.url}${prediction.links.events}`).then((response) => response.text());
    await sleep(200);
    const start = Date.now();
    await third.close();
    expect(Date.now() - start).toBeLessThan(2000);
    expect((await waiting).body.status).toBe("queued");
    expect(await events).toContain("event: status");
    expect((await send("GET", `${api.url}${prediction.links.self}`)).body.status).toBe("queued");
  });
});
