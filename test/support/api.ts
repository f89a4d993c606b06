/** A running api for tests, on a real Redis and a free port, and a consumer that stands in for a worker. */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "bullmq";
import { Redis } from "ioredis";
import { pino } from "pino";
import { startApi } from "../../src/api/server.ts";
import { configSchema, type Config } from "../../src/config/schema.ts";
import { Deliveries } from "../../src/queue/deliveries.ts";
import { protocols } from "../../src/protocols/protocols.ts";
import { createNotifier } from "../../src/queue/completionEvents.ts";
import type { Completion, PredictionJob, PredictionJobData } from "../../src/queue/jobs.ts";
import { createNames } from "../../src/queue/names.ts";

export interface TestApi {
  readonly url: string;
  readonly config: Config;
  /** URL of a model's predictions. */
  predictions(model?: string): string;
  /** Files that the input store holds. */
  storedInputs(): Promise<string[]>;
  close(): Promise<void>;
}

/** @param overrides keys of the configuration; the models `Echo` and `Tiny` (which takes 2 predictions) are there by default */
export async function startTestApi(
  redisUrl: string,
  overrides: Record<string, unknown> = {},
  limits: { closeMs?: number } = {},
): Promise<TestApi> {
  const dataDir = await mkdtemp(join(tmpdir(), "infermill-api-"));
  const config: Config = {
    ...configSchema.parse({
      port: 0,
      data_dir: dataDir,
      redis_prefix: `test-${randomUUID().slice(0, 8)}`,
      models: {
        Echo: { loader: "EchoModelLoader" },
        Tiny: { loader: "EchoModelLoader", max_queue_length: 2 },
      },
      ...overrides,
    }),
    file: join(dataDir, "infermill.json"),
  };
  const api = await startApi({
    config,
    redisUrl,
    protocols,
    log: pino({ level: process.env["TEST_LOG"] ?? "silent" }),
  });
  return {
    url: api.url,
    config,
    predictions: (model = "Echo") => `${api.url}/v1/models/${model}/predictions`,
    async storedInputs() {
      const folder = join(config.data_dir, "inputs");
      if (!existsSync(folder)) return [];
      const entries = await readdir(folder, { recursive: true, withFileTypes: true });
      return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
    },
    async close() {
      await api.close(limits.closeMs ?? 5000);
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Takes a model's predictions the way a worker does; `respond` throws to fail one. */
export function consume(
  redisUrl: string,
  config: Config,
  model: string,
  respond: (job: PredictionJob) => Promise<Record<string, unknown>>,
): { close(): Promise<void> } {
  const names = createNames(config.redis_prefix);
  const redis = openRedis(redisUrl);
  const worker = new Worker<PredictionJobData, Completion>(
    model,
    async (job) => ({
      response: {
        Mtp: [],
        Fs: [],
        Obase_64: [],
        Img_url: [],
        Rc: "200",
        Rm: "Success",
        ...(await respond(job)),
      },
      timings: { queue_ms: 1, read_ms: 1, preprocess_ms: 1, infer_ms: 1, postprocess_ms: 1 },
      batch_size: 1,
      engine: "test/0",
    }),
    { connection: redis, prefix: names.queuePrefix(model), concurrency: 10 },
  );
  const notifyCompletion = createNotifier(redis, names);
  const deliveries = new Deliveries(redis, names, config);
  const finish = (job: PredictionJob | undefined) => {
    if (!job) return;
    notifyCompletion(model, job.id!);
    if (job.data.webhook && job.finishedOn) void deliveries.now(model, job.data.webhook);
  };
  worker.on("completed", finish);
  worker.on("failed", finish);
  return {
    async close() {
      await worker.close();
      redis.disconnect();
    },
  };
}

export function openRedis(redisUrl: string): Redis {
  const options = { maxRetriesPerRequest: null };
  return redisUrl.startsWith("unix://")
    ? new Redis({ ...options, path: decodeURIComponent(new URL(redisUrl).pathname) })
    : new Redis(redisUrl, options);
}

/** What an answer holds; the expectations of the tests say what it must be. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Json = any;

/** Sends JSON and reads JSON. */
export async function send(
  method: string,
  url: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Headers; body: Json }> {
  const response = await fetch(url, {
    method,
    headers: { ...(body !== undefined && { "Content-Type": "application/json" }), ...headers },
    ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: text === "" ? undefined : JSON.parse(text),
  };
}
