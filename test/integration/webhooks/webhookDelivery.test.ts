/** Webhooks: what receivers get, whatever they answer and whoever dies. */
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, UnrecoverableError } from "bullmq";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { createNames } from "../../../src/queue/names.ts";
import { startWebhookDelivery, type RunningDelivery } from "../../../src/webhooks/delivery.ts";
import { consume, openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { until } from "../../support/infermill.ts";
import { SECRET, startReceiver, type Receiver } from "../../support/receiver.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });

describe.skipIf(whyNoRedis)("webhooks", () => {
  let redis: RedisServer;
  let api: TestApi;
  let delivery: RunningDelivery;
  let consumer: { close(): Promise<void> };
  const receivers: Receiver[] = [];

  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, {
      webhooks: {
        secret: SECRET,
        allow: ["127.0.0.1"],
        retry_delays_ms: [0, 200, 300, 400],
        timeout_ms: 700,
        inline_result_bytes: 2000,
      },
    });
    delivery = await startWebhookDelivery({ config: api.config, redisUrl: redis.url, log });
    consumer = consume(redis.url, api.config, "Echo", async ({ data }) => {
      if (data.request["Do"] === "fail") throw new UnrecoverableError("bad_input: told to fail");
      await sleep(Number(data.request["Ms"] ?? 0));
      return { Tid: data.request.Tid, Img_url: ["x".repeat(Number(data.request["Size"] ?? 0))] };
    });
  });
  afterAll(async () => {
    await consumer?.close();
    await delivery?.close(5000);
    await api?.close();
    await redis?.close();
  });
  afterEach(async () => {
    await Promise.all(receivers.splice(0).map((receiver) => receiver.close()));
  });

  async function startOne(...options: Parameters<typeof startReceiver>): Promise<Receiver> {
    const started = await startReceiver(...options);
    receivers.push(started);
    return started;
  }

  async function submit(webhook: string, request: Json = {}, query = "", model = "Echo"): Promise<Json> {
    const url = `${api.predictions(model)}?webhook=${encodeURIComponent(webhook)}${query}`;
    const { status, body } = await send("POST", url, request);
    if (status !== 202) throw new Error(JSON.stringify(body));
    return body;
  }

  async function deliveryOf({ links }: Json): Promise<Json> {
    const { body } = await send("GET", `${api.url}${links.self}/deliveries`);
    return body.deliveries[0];
  }

  /** As their time to live does. */
  async function removeEndedPredictions(): Promise<void> {
    const connection = openRedis(redis.url);
    const prefix = createNames(api.config.redis_prefix).queuePrefix("Echo");
    const queue = new Queue("Echo", { connection, prefix });
    await queue.clean(0, 0, "completed");
    await queue.close();
    connection.disconnect();
  }

  function untilIts(status: string, prediction: Json, ms = 10_000): Promise<Json> {
    return until(
      async () => {
        const its = await deliveryOf(prediction);
        return its.status === status && its;
      },
      `a delivery that is ${status}`,
      ms,
    );
  }

  test("the end of a prediction arrives once, signed, with the result, and under its own id", async () => {
    const good = await startOne();
    const prediction = await submit(good.url, { Tid: "7" });
    const its = await untilIts("delivered", prediction);
    expect(good.received).toHaveLength(1);
    const [{ event, id, headers }] = good.received as [Receiver["received"][0]];
    const { body: ended } = await send("GET", api.url + prediction.links.self);
    expect(event).toEqual({ type: "prediction.succeeded", timestamp: ended.finished_at, data: ended });
    expect(event.data.result.Tid).toBe("7");
    expect(headers).toMatchObject({ "content-type": "application/json" });
    expect(headers["user-agent"]).toMatch(/^infermill\/\d/);
    expect(id).toBe(its.id);
    expect(its).toMatchObject({
      event: "prediction.succeeded",
      prediction: { model: "Echo", id: prediction.id },
      error: null,
      next_attempt_at: null,
      attempts: [{ status: 200, error: null }],
    });
  });

  test("a result that is too large for the event is left to its link", async () => {
    const good = await startOne();
    await submit(good.url, { Size: 5000 });
    await until(() => good.received.length === 1, "the event");
    const { data } = good.received[0]!.event;
    expect(data.result).toBeNull();
    const { body } = await send("GET", api.url + data.links.result);
    expect(body.result.Img_url[0]).toHaveLength(5000);
  });

  test("links begin with the public_url of the configuration", async () => {
    const good = await startOne();
    const behindProxy = await startTestApi(redis.url, {
      public_url: "https://example.org/infermill/",
      webhooks: api.config.webhooks,
    });
    const its = await startWebhookDelivery({ config: behindProxy.config, redisUrl: redis.url, log });
    const url = `${behindProxy.predictions()}?webhook=${encodeURIComponent(good.url)}`;
    const { links } = (await send("POST", url, {})).body;
    await send("DELETE", behindProxy.url + links.self);
    await until(() => good.received.length === 1, "the event");
    // Those of the answer begin with its path, so that a browser finds them.
    expect(links.self).toMatch(/^\/infermill\/v1\/models\/Echo\/predictions\//);
    const absolute = Object.entries(links).map(([name, path]) => [
      name,
      `https://example.org${String(path)}`,
    ]);
    expect(good.received[0]!.event.data.links).toEqual(Object.fromEntries(absolute));
    await its.close(5000);
    await behindProxy.close();
  });

  test("failed, cancelled and expired predictions are told of, the last without a worker", async () => {
    const good = await startOne();
    await submit(good.url, { Do: "fail" });
    const waiting = await submit(good.url, {}, "", "Tiny");
    await send("DELETE", api.url + waiting.links.self);
    await submit(good.url, {}, "&ttl_ms=300", "Tiny");
    await until(() => good.received.length === 3, "three events");
    const types = good.received.map(({ event }) => [event.type, event.data.status, event.data.error?.code]);
    expect(types).toEqual(
      expect.arrayContaining([
        ["prediction.failed", "failed", "bad_input"],
        ["prediction.cancelled", "cancelled", "cancelled"],
        ["prediction.expired", "expired", "expired"],
      ]),
    );
  });

  test("one that is cancelled while it runs is notified of at once, and not again", async () => {
    const good = await startOne();
    const prediction = await submit(good.url, { Ms: 1500 });
    await until(
      async () => (await send("GET", api.url + prediction.links.self)).body.status === "running",
      "it runs",
    );
    await send("DELETE", api.url + prediction.links.self);
    await until(() => good.received.length === 1, "the event", 1000);
    await sleep(2000);
    expect(good.received.map(({ event }) => event.type)).toEqual(["prediction.cancelled"]);
  });

  test("webhook_events says of which ends it is notified", async () => {
    const good = await startOne();
    const prediction = await submit(good.url, {}, "&webhook_events=prediction.failed,prediction.expired");
    expect(await untilIts("skipped", prediction)).toMatchObject({ attempts: [] });
    await submit(good.url, { Do: "fail" }, "&webhook_events=prediction.failed");
    await until(() => good.received.length === 1, "the event");
    expect(good.received[0]!.event.type).toBe("prediction.failed");
  });

  test("a repeated submission with the same key makes one prediction and one delivery", async () => {
    const good = await startOne();
    const url = `${api.predictions()}?webhook=${encodeURIComponent(good.url)}`;
    const key = { "Idempotency-Key": crypto.randomUUID() };
    const answers = await Promise.all(Array.from({ length: 8 }, () => send("POST", url, { Tid: "1" }, key)));
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    await untilIts("delivered", answers[0]!.body);
    await sleep(300);
    expect(good.received).toHaveLength(1);
  });

  test("a receiver that is down gets the event once it is up, within its retries and under the same id", async () => {
    const down = await startReceiver();
    await down.close();
    const prediction = await submit(down.url);
    await until(async () => (await deliveryOf(prediction)).attempts.length >= 2, "two attempts");
    const up = await startOne(undefined, { port: Number(new URL(down.url).port) });
    const its = await untilIts("delivered", prediction);
    expect(up.received.map(({ id }) => id)).toEqual([its.id]);
    expect(its.attempts[0]).toMatchObject({ status: null, error: expect.stringContaining("ECONNREFUSED") });
    expect(its.attempts.at(-1)).toMatchObject({ status: 200, error: null });
  });

  test("attempts keep to the delays of the configuration, sign anew each time, and end", async () => {
    const broken = await startOne((res) => res.writeHead(500).end("no disk\n"));
    const prediction = await submit(broken.url);
    const its = await untilIts("failed", prediction);
    const times = broken.received.map(({ at }) => at);
    expect(times).toHaveLength(4);
    for (const [index, delay] of [200, 300, 400].entries()) {
      const waited = times[index + 1]! - times[index]!;
      expect(waited, `wait ${index + 1}`).toBeGreaterThanOrEqual(delay);
      expect(waited, `wait ${index + 1}`).toBeLessThan(delay * 1.2 + 300);
    }
    expect(new Set(broken.received.map(({ id }) => id))).toEqual(new Set([its.id]));
    expect(its.error).toBe("answered 500 Internal Server Error: no disk");
    expect(its.attempts.map(({ status }: Json) => status)).toEqual([500, 500, 500, 500]);
  });

  test("what a receiver says reaches the log short, and without control characters", async () => {
    const rude = await startOne((res) => {
      res.socket!.end(
        `HTTP/1.1 500 red\u001B[31m ${"x".repeat(5000)}\r\nConnection: close\r\n\r\n\u001B[2J\u0007boo`,
      );
    });
    const { error } = await untilIts("failed", await submit(rude.url));
    expect(error).toMatch(/^answered 500 red \[31m x{100,}: \[2J boo$/);
    expect(error.length).toBeLessThan(300);
  });

  test("429 and 503 with Retry-After are asked again no sooner, in seconds or by date", async () => {
    const soon = () => new Date(Math.ceil(Date.now() / 1000) * 1000 + 1000);
    const busy = await startOne((res, _received, count) => {
      if (count === 1) res.writeHead(429, { "Retry-After": "1" }).end();
      else if (count === 2) res.writeHead(503, { "Retry-After": soon().toUTCString() }).end();
      else res.end();
    });
    const prediction = await submit(busy.url);
    await untilIts("delivered", prediction);
    const [first, second, third] = busy.received.map(({ at }) => at) as [number, number, number];
    expect(second - first).toBeGreaterThanOrEqual(1000);
    expect(third - second).toBeGreaterThanOrEqual(1000);
  });

  test("a receiver that asks for time has it, also where the prediction was cancelled and its worker ends meanwhile", async () => {
    const busy = await startOne((res, _received, count) => {
      if (count === 1) res.writeHead(503, { "Retry-After": "2" }).end();
      else res.end();
    });
    const prediction = await submit(busy.url, { Ms: 700 });
    await until(
      async () => (await send("GET", api.url + prediction.links.self)).body.status === "running",
      "it runs",
    );
    await send("DELETE", api.url + prediction.links.self);
    const told = new Set<string>();
    await until(async () => {
      const { status, next_attempt_at } = await deliveryOf(prediction);
      if (next_attempt_at !== null) told.add(next_attempt_at);
      return status === "delivered";
    }, "its delivery");
    const [first, second] = busy.received.map(({ at }) => at) as [number, number];
    expect(second - first).toBeGreaterThanOrEqual(2000);
    expect([...told].map((time) => Date.parse(time) - first >= 2000)).toEqual([true]);
  });

  test("410 stops the URL: no further attempt, and later deliveries to it fail at once", async () => {
    const gone = await startOne((res) => res.writeHead(410).end());
    const first = await submit(gone.url);
    expect((await untilIts("failed", first)).attempts).toHaveLength(1);
    const second = await submit(gone.url);
    expect(await untilIts("failed", second)).toMatchObject({
      attempts: [],
      error: expect.stringContaining("410"),
    });
    expect(gone.received).toHaveLength(1);
    const { body } = await send("GET", `${api.url}/v1/webhooks/deliveries`);
    expect(body.gone).toContainEqual({ url: gone.url, until: expect.any(String) });
  });

  test("what 410 stopped can be replayed after the predictions are gone", async () => {
    let isGone = true;
    const gone = await startOne((res) => res.writeHead(isGone ? 410 : 200).end());
    const stopped: Json[] = [];
    for (const attempts of [1, 0]) {
      stopped.push(await untilIts("failed", await submit(gone.url)));
      expect(stopped.at(-1).attempts).toHaveLength(attempts);
    }
    await removeEndedPredictions();
    isGone = false;
    for (const { links } of stopped) {
      await send("POST", api.url + links.replay);
      await until(async () => (await send("GET", api.url + links.self)).body.status === "delivered", "it");
    }
  });

  test("a redirect is a failure and not followed, not even to a place that is allowed", async () => {
    const target = await startOne();
    const redirecting = await startOne((res) => res.writeHead(307, { Location: target.url }).end());
    const its = await untilIts("failed", await submit(redirecting.url));
    expect(its.error).toContain("redirects are not followed");
    expect(redirecting.received).toHaveLength(4);
    expect(target.received).toHaveLength(0);
  });

  test("a receiver that hangs is given up after timeout_ms", async () => {
    const hanging = await startOne(() => {});
    const its = await untilIts("failed", await submit(hanging.url), 20_000);
    expect(its.attempts).toHaveLength(4);
    for (const { status, error, ms } of its.attempts) {
      expect([status, error]).toEqual([null, "no complete answer within 0.7 s"]);
      expect(ms).toBeGreaterThanOrEqual(690);
      expect(ms).toBeLessThan(1500);
    }
  });

  test("of an endless body a few kilobytes are read; its status decides", async () => {
    let sent = 0;
    const stop: (() => void)[] = [];
    const endless = await startOne((res, _received, count) => {
      res.writeHead(count === 1 ? 500 : 200);
      const write = () => {
        while (!res.destroyed && res.write("endless ".repeat(1024))) sent += 8192;
      };
      res.on("drain", write).on("error", () => {});
      stop.push(() => res.destroy());
      write();
    });
    const its = await untilIts("delivered", await submit(endless.url));
    expect(its.attempts.map(({ status }: Json) => status)).toEqual([500, 200]);
    expect(its.attempts[0].error.length).toBeLessThan(300);
    const after = sent;
    await sleep(200);
    expect(sent).toBe(after);
    for (const end of stop) end();
  });

  test("an address that isn't public is refused at delivery, with what to do, and not tried again", async () => {
    const { redis_prefix, webhooks } = api.config;
    const other = await startTestApi(redis.url, {
      redis_prefix,
      webhooks: { ...webhooks, url: "http://169.254.169.254/x" },
    });
    const { body: prediction } = await send("POST", other.predictions(), {});
    await other.close();
    const its = await untilIts("failed", prediction);
    expect(its.error).toContain("add it to webhooks.allow");
    expect(its.attempts).toHaveLength(1);
  });

  test.each(["http://0.0.0.0:9/", "http://[::1]:9/", "http://169.254.169.254/x", "http://2130706434/"])(
    "the address of %s isn't public, and is refused at submission",
    async (url) => {
      const { status, body } = await send(
        "POST",
        `${api.predictions()}?webhook=${encodeURIComponent(url)}`,
        {},
      );
      expect([status, body.errors.map((fault: Json) => fault.key)]).toEqual([422, ["webhook"]]);
      expect(body.detail).toContain("add it to webhooks.allow");
    },
  );

  test.each([
    ["webhook=ftp://example.org/x", "webhook", "http:// or https://"],
    ["webhook=https://user:pass@example.org/", "webhook", "user name or password"],
    ["webhook=hook", "webhook", "http:// or https://"],
    ["webhook=a&webhook=b", "webhook", "one URL"],
    ["webhook_events=prediction.failed", "webhook_events", "needs a webhook"],
    ["webhook=https://example.org/&webhook_events=prediction.done", "webhook_events", "prediction.succeeded"],
    ["webhook=https://example.org/&webhook_events=", "webhook_events", "prediction.succeeded"],
  ])("?%s is refused with 422", async (query, key, reason) => {
    const { status, body } = await send("POST", `${api.predictions()}?${query}`, {});
    expect([status, body.errors.map((fault: Json) => fault.key)]).toEqual([422, [key]]);
    expect(body.detail).toContain(reason);
    expect(body.detail).not.toContain("pass@");
  });

  test("a hundred predictions to a good, a dead and a hanging receiver at once: the good one has all within a second", async () => {
    const good = await startOne();
    const hanging = await startOne(() => {});
    const dead = await startReceiver();
    await dead.close();
    const predictions: Json[] = [];
    for (let index = 0; index < 100; index++) {
      await submit(dead.url, { Tid: `dead ${index}` });
      await submit(hanging.url, { Tid: `hanging ${index}` });
      predictions.push(await submit(good.url, { Tid: `good ${index}` }));
    }
    await until(() => good.received.length === 100, "all hundred events", 20_000);
    const lateness = good.received.map(({ at, event }) => at - Date.parse(event.data.finished_at));
    log.info({ worst: Math.max(...lateness) }, "ms from end to event");
    expect(Math.max(...lateness)).toBeLessThan(1000);
    const told = good.received.map(({ event }) => event.data.id as string);
    expect(new Set(told)).toEqual(new Set(predictions.map(({ id }) => id as string)));
  }, 60_000);

  test("what waits for a receiver that hangs arrives, though its prediction is gone by then", async () => {
    let isUp = false;
    const hanging = await startOne((res) => void (isUp && res.end()));
    const predictions: Json[] = [];
    for (let index = 0; index < 20; index++) predictions.push(await submit(hanging.url));
    // Of those some have been sent in vain, the others have found no room.
    await until(
      async () => (await Promise.all(predictions.map(deliveryOf))).every(({ event }) => event !== null),
      "all events on record",
      3000,
    );
    await removeEndedPredictions();
    isUp = true;
    await until(() => {
      const told = new Set(hanging.received.map(({ event }) => event.data.id));
      return told.size === predictions.length;
    }, "all twenty events");
  });

  test("what a coordinator was sending when it died is sent by the next, and what waited, too", async () => {
    const slow = await startOne((res, _received, count) => {
      if (count > 1) res.end();
    });
    const own = { ...api.config, webhooks: { ...api.config.webhooks, timeout_ms: 60_000 } };
    const prediction = await submit(slow.url);
    await until(() => slow.received.length === 1, "the first attempt");
    await delivery.close(0);
    const second = await submit(slow.url, { Tid: "2" });
    delivery = await startWebhookDelivery({ config: own, redisUrl: redis.url, log });
    await untilIts("delivered", second);
    await untilIts("delivered", prediction, 40_000);
  });
});
