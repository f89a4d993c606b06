/** Server-sent events of a prediction: resuming, the end, the heartbeat's shape. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

interface StreamEvent {
  id: string;
  data: Json;
}

describe.skipIf(whyNoRedis)("the events of a prediction", () => {
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

  /** Follows a stream; `events` grows until it ends. */
  async function follow(path: string, lastEventId?: string) {
    const headers: Record<string, string> = lastEventId === undefined ? {} : { "Last-Event-ID": lastEventId };
    const gone = new AbortController();
    const response = await fetch(api.url + path, { headers, signal: gone.signal });
    const events: StreamEvent[] = [];
    let raw = "";
    const ended = (async () => {
      for await (const chunk of response.body ?? []) {
        raw += new TextDecoder().decode(chunk);
        events.splice(
          0,
          Infinity,
          ...raw
            .split("\n\n")
            .slice(0, -1)
            .filter((block) => block.startsWith("event: status\n"))
            .map((block) => {
              const [, id, data] = /\nid: (.*)\ndata: (.*)$/.exec(block) as RegExpExecArray;
              return { id: id!, data: JSON.parse(data!) };
            }),
        );
      }
    })().catch(() => {});
    return { response, events, ended, leave: () => gone.abort() };
  }

  test("each change has an id; who comes back with the last one is told only what changed since", async () => {
    const { body } = await send("POST", api.predictions(), {});
    const first = await follow(body.links.events);
    await until(() => first.events.length === 1, "the first event");
    expect(first.events[0]).toMatchObject({ id: "0-queued", data: { status: "queued" } });
    first.leave();

    const second = await follow(body.links.events, "0-queued");
    await sleep(1300);
    expect(second.events).toEqual([]);
    const consumer = consume(redis.url, api.config, "Echo", async () => ({}));
    try {
      await second.ended;
      expect(second.events.map(({ data }) => data.status)).toEqual(["succeeded"]);
    } finally {
      await consumer.close();
    }
    const late = await follow(body.links.events, "0-queued");
    await late.ended;
    expect(late.events).toEqual(second.events);
  });

  test("who has seen the end gets 204, at which a browser stops connecting again", async () => {
    const { body } = await send("POST", api.predictions(), {});
    await send("DELETE", api.url + body.links.self);
    const { events, ended } = await follow(body.links.events);
    await ended;
    expect(events.map(({ data }) => data.status)).toEqual(["cancelled"]);
    const again = await follow(body.links.events, events[0]!.id);
    expect(again.response.status).toBe(204);
  });

  test("a prediction that isn't there is a problem, not a stream", async () => {
    const { response } = await follow("/v1/models/Echo/predictions/nothing/events", "1-succeeded");
    expect([response.status, response.headers.get("Content-Type")]).toEqual([
      404,
      "application/problem+json; charset=utf-8",
    ]);
  });
});
