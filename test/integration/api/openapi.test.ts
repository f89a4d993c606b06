/** The documents that the api publishes of itself. */
import { Validator } from "@seriousme/openapi-schema-validator";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { routes } from "../../support/routes.ts";
import { publishWorkerReport, type ModelReport } from "../../../src/queue/workerReports.ts";
import { createNames } from "../../../src/queue/names.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("what the api says of itself", () => {
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

  async function publish(report: Partial<ModelReport>, served = ["Echo", "Tiny"]) {
    const connection = openRedis(redis.url);
    const engine = { id: "Echo/0", device: "cpu", state: "ready" as const, pid: 7, restarts: 0, error: null };
    const model: ModelReport = {
      engines: [engine],
      description: { labels: ["cat"], picture: "optional" },
      batch_limit: 8,
      capacity: 32,
      held: 0,
      stuck_ms: 0,
      totals: {
        batches: 4,
        predictions: 10,
        succeeded: 9,
        failed: 1,
        timings: { queue_ms: 3000, read_ms: 9, preprocess_ms: 180, infer_ms: 1500, postprocess_ms: 2 },
      },
      ...report,
    };
    const models = Object.fromEntries(served.map((name) => [name, model]));
    const started_at = new Date().toISOString();
    await publishWorkerReport(connection, createNames(api.config.redis_prefix), {
      id: "w1",
      pid: 1,
      host: "h",
      started_at,
      models,
    });
    connection.disconnect();
  }

  test("openapi.json keeps the rules of OpenAPI 3.1 and holds every route", async () => {
    const { body } = await send("GET", `${api.url}/openapi.json`);
    expect(await new Validator().validate(structuredClone(body))).toEqual({ valid: true });
    expect(body.openapi).toMatch(/^3\.1\./);
    for (const { method, path } of routes) expect(body.paths).toHaveProperty([path, method]);
    expect(Object.keys(body.paths["/v1/models/{model}/predictions"].post.requestBody.content)).toEqual([
      "image/jpeg",
      "image/png",
      "image/webp",
      "application/octet-stream",
      "multipart/form-data",
      "application/json",
      "application/x-ndjson",
    ]);
  });

  test("the page of the documents needs nothing from elsewhere", async () => {
    const response = await fetch(`${api.url}/docs`);
    const html = await response.text();
    expect(html).not.toMatch(/https?:/);
    expect(response.headers.get("Content-Security-Policy")).toContain("default-src 'self'");
    expect(response.headers.get("Content-Security-Policy")).not.toContain("upgrade-insecure-requests");
    for (const [, path] of html.matchAll(/(?:src|href)="([^"]+)"/g)) {
      expect([path, (await fetch(api.url + path)).status]).toEqual([path, 200]);
    }
  });

  test("the index leads to pages that are there", async () => {
    const { body } = await send("GET", api.url);
    for (const path of Object.values(body.links as Record<string, string>)) {
      const { status } = await fetch(api.url + path);
      expect([path, status]).toEqual([path, path === "/health/ready" ? 503 : 200]);
    }
  });

  test("idle connections are kept for longer than load balancers keep them", async () => {
    const answer = await fetch(`${api.url}/health/live`);
    expect(answer.headers.get("Keep-Alive")).toBe("timeout=65");
  });

  test("without a worker nothing is ready, and each model says why", async () => {
    const { status, body } = await send("GET", `${api.url}/health/ready`);
    expect([status, body.status]).toEqual([503, "not_ready"]);
    expect(body.models.Echo.problems).toEqual(["no live worker serves it"]);
    expect((await send("GET", `${api.url}/health/live`)).status).toBe(200);
  });

  test("with a ready engine for each model all is ready, and the models tell of their engines", async () => {
    await publish({});
    expect((await send("GET", `${api.url}/health/ready`)).status).toBe(200);
    const { body } = await send("GET", `${api.url}/v1/models`);
    expect(body.models.map((model: Json) => model.name)).toEqual(["Echo", "Tiny"]);
    expect((await send("GET", `${api.url}/v1/models/Echo`)).body).toMatchObject({
      name: "Echo",
      loader: "EchoModelLoader",
      device: ["cpu"],
      ready: true,
      labels: ["cat"],
      picture: "optional",
      batch: { max_batch_size: 8, max_queue_delay_ms: 0, batch_limit: 8 },
      limits: { timeout_ms: 60_000, max_queue_length: 10_000, attempts: 3 },
      engines: [{ id: "Echo/0", worker: "w1", state: "ready" }],
      queue: { waiting: 0 },
      totals: { batches: 4, predictions: 10, mean_batch_size: 2.5 },
    });
  });

  test("engines that don't load and a worker that is stuck are named", async () => {
    const engine = {
      id: "Echo/0",
      device: "cpu",
      state: "failed" as const,
      pid: null,
      restarts: 3,
      error: "no such file",
    };
    await publish({ engines: [engine], stuck_ms: 95_000, held: 3 });
    const { status, body } = await send("GET", `${api.url}/health/ready`);
    expect(status).toBe(503);
    expect(body.models.Echo.problems).toEqual([
      "none of its 1 engines is ready",
      "engine Echo/0: no such file",
      "the worker w1 has finished nothing for 95 s",
    ]);
  });

  test("a model is ready or not by itself, whatever the others are", async () => {
    await publish({}, ["Echo"]);
    expect(await send("GET", `${api.url}/v1/models/Echo/ready`)).toMatchObject({
      status: 200,
      body: { ready: true, engines: { ready: 1, all: 1 }, problems: [] },
    });
    expect(await send("GET", `${api.url}/v1/models/Tiny/ready`)).toMatchObject({
      status: 503,
      body: { ready: false, engines: { ready: 0, all: 0 }, problems: ["no live worker serves it"] },
    });
    expect((await send("GET", `${api.url}/v1/models/Nope/ready`)).status).toBe(404);
  });

  test("a queue that nobody consumes is not ready", async () => {
    await publish({});
    const { body: prediction } = await send("POST", api.predictions(), {});
    expect((await send("GET", `${api.url}/health/ready`)).status).toBe(200);
    const connection = openRedis(redis.url);
    const prefix = createNames(api.config.redis_prefix).queuePrefix("Echo");
    await connection.hset(`${prefix}:Echo:${prediction.id}`, "timestamp", Date.now() - 60_000);
    connection.disconnect();
    const { status, body } = await send("GET", `${api.url}/health/ready`);
    expect(status).toBe(503);
    expect(body.problems).toEqual(["Echo: the next prediction has waited for 60 s and no worker takes it"]);
  });

  test("scrapes at the same time tell the same numbers", async () => {
    await publish({});
    const scrapes = Array.from({ length: 5 }, async () => (await fetch(`${api.url}/metrics`)).text());
    for (const text of await Promise.all(scrapes))
      expect(text).toContain('infermill_predictions_total{model="Echo",worker="w1",outcome="succeeded"} 9\n');
  });

  test("metrics count requests by route, predictions in the queues and engines", async () => {
    await publish({});
    await send("POST", api.predictions(), {});
    const text = await (await fetch(`${api.url}/metrics`)).text();
    expect(text).toContain('infermill_engines{model="Echo",state="ready"} 1');
    expect(text).toMatch(
      /infermill_queue_predictions\{model="Echo",queue="interactive",state="waiting"\} [1-9]/,
    );
    expect(text).toContain('infermill_predictions_total{model="Echo",worker="w1",outcome="succeeded"} 9');
    for (const [phase, seconds] of Object.entries({ queue: 3, preprocess: 0.18, infer: 1.5 }))
      expect(text).toContain(
        `infermill_prediction_seconds_total{model="Echo",worker="w1",phase="${phase}"} ${seconds}\n`,
      );
    expect(text).toContain("infermill_redis_up 1");
    expect(text).toMatch(
      /infermill_http_request_duration_seconds_count\{method="POST",route="\/v1\/models\/\{model\}\/predictions",status="202"\} [1-9]/,
    );
    expect(text).toContain("process_resident_memory_bytes");
  });
});
