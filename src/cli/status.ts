/** `infermill status`: models, queues, rates, bulk runs and dead webhooks, of a server or of the Redis of a configuration. */
import { setTimeout as sleep } from "node:timers/promises";
import { openBulkRuns } from "../bulk/runs.ts";
import { loadConfig } from "../config/load.ts";
import { hasEnded, type BulkRun } from "../core/bulkRun.ts";
import { formatDuration } from "../core/duration.ts";
import type { DeliveryCounts, ModelStatus } from "../core/modelStatus.ts";
import { describeModel } from "../protocols/native/models.ts";
import { openPredictions } from "../queue/predictions.ts";
import { provideRedis } from "../redis/provideRedis.ts";
import { EXIT_FAILED, UsageError } from "./exit.ts";
import { clientOf, explain } from "./server.ts";
import { formatTable } from "./table.ts";

const WATCH_INTERVAL_MS = 2000;
/** A rate is that of the last minute. */
const RATE_SPAN_MS = 60_000;
/** Runs that ended are shown as long as there are fewer than these in all. */
const MAX_RUNS = 10;

export interface StatusOptions {
  config?: string;
  server?: string;
  watch?: boolean;
  json?: boolean;
}

export interface Status {
  models: ModelStatus[];
  bulk_runs: BulkRun[];
  webhooks: DeliveryCounts;
}

interface Source {
  read(): Promise<Status>;
  close(): Promise<void>;
}

/** The exit code is 1 where a model is not ready. */
export async function showStatus(options: StatusOptions): Promise<void> {
  if (options.server !== undefined && options.config !== undefined)
    throw new UsageError("name a --server or a --config, and not both");
  const source = options.server === undefined ? await openRedis(options.config) : openServer(options.server);
  try {
    await (options.watch ? watch(source, options) : showOnce(source, options));
  } finally {
    await source.close();
  }
}

async function showOnce(source: Source, { json }: StatusOptions): Promise<void> {
  const status = await source.read();
  console.log(json ? JSON.stringify(status, null, 2) : formatStatus(status));
  if (status.models.some(({ state }) => state !== "ready")) process.exitCode = EXIT_FAILED;
}

/** Until Ctrl-C; what can't be read now is tried again. */
async function watch(source: Source, { json }: StatusOptions): Promise<void> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => stop.abort());
  while (!stop.signal.aborted) {
    const text = await source.read().then(
      (status) => (json ? JSON.stringify(status) : formatStatus(status)),
      (error: Error) => {
        if (error instanceof UsageError) throw error;
        return `infermill: ${error.message}`;
      },
    );
    // A line of JSON each time is made for a pipe.
    const isScreen = process.stdout.isTTY && !json;
    process.stdout.write(isScreen ? `\u001B[H\u001B[2J${text}\n` : `${text}\n${json ? "" : "\n"}`);
    await sleep(WATCH_INTERVAL_MS, undefined, { signal: stop.signal }).catch(() => {});
  }
}

function openServer(server: string): Source {
  const client = clientOf(server);
  return {
    async read() {
      const [models, runs, webhooks] = await Promise.all([
        client.listModels(),
        client.listBulkRuns({ limit: MAX_RUNS }),
        client.countDeliveries(),
      ]).catch(explain);
      return { models, bulk_runs: runs, webhooks };
    },
    async close() {},
  };
}

async function openRedis(file: string | undefined): Promise<Source> {
  const config = await loadConfig({ file });
  const redis = await provideRedis({
    redisUrl: config.redis_url,
    redisTls: config.redis_tls,
    dataDir: config.data_dir,
    onProgress: (line) => console.error(line),
  });
  const predictions = await openPredictions(config, redis.url);
  const runs = await openBulkRuns(config, redis.url);
  return {
    async read() {
      const reports = await predictions.workers();
      const names = Object.keys(config.models);
      const [models, bulk_runs, { pending, delivered, failed }] = await Promise.all([
        Promise.all(names.map((name) => describeModel({ predictions }, name, reports))),
        runs.list(MAX_RUNS),
        predictions.deliveries.count(),
      ]);
      return { models, bulk_runs, webhooks: { pending, delivered, failed } };
    },
    async close() {
      await runs.close();
      await predictions.close();
      await redis.close();
    },
  };
}

/** @param now Unix time in ms */
export function formatStatus({ models, bulk_runs, webhooks }: Status, now = Date.now()): string {
  const table = formatTable([
    ["MODEL", "STATE", "ENGINES", "WAITING", "OLDEST", "RUNNING", "RATE", "P50", "P95", "BATCH"],
    ...models.map((model) => rowOf(model, now)),
  ]);
  const troubles = models
    .filter(({ state }) => state !== "ready")
    .map(({ name, reason, advice }) =>
      [`${name}: ${reason ?? "not ready"}`, ...(advice ? [advice] : [])].join("; "),
    );
  const { pending, failed } = webhooks;
  const dead = failed > 0 ? "; see infermill webhooks list --failed, and replay to send them again" : "";
  return [
    table,
    ...troubles,
    "",
    ...(bulk_runs.length > 0
      ? [
          formatTable([
            ["BULK RUN", "STATUS", "DONE", "FAILED", "RATE", "LEFT", "MODEL", "OVER"],
            ...bulk_runs
              .toSorted((a, b) => Number(hasEnded(a.status)) - Number(hasEnded(b.status)))
              .map(runRowOf),
          ]),
        ]
      : ["no bulk runs"]),
    "",
    `webhooks: ${failed} dead, ${pending} pending${dead}`,
  ].join("\n");
}

function rowOf(model: ModelStatus, now: number): string[] {
  const { name, state, engines, queue, batch, statistics, device } = model;
  const { interval_seconds, points } = statistics;
  const recent = points.filter(({ at }) => Date.parse(at) + interval_seconds * 1000 > now - RATE_SPAN_MS);
  const ended = recent.reduce((sum, { succeeded, failed }) => sum + succeeded + failed, 0);
  const last = recent.at(-1);
  const ready = engines.filter((engine) => engine.state === "ready").length;
  const devices = [...new Set(engines.length > 0 ? engines.map((engine) => engine.device) : device)];
  return [
    name,
    state.replace("_", " "),
    `${ready}/${engines.length} ${devices.join(",")}`,
    String(queue.waiting),
    queue.waiting > 0 ? formatDuration(queue.oldest_wait_seconds) : "-",
    String(queue.running),
    ended > 0 ? `${(ended / (RATE_SPAN_MS / 1000)).toFixed(1)}/s` : "-",
    milliseconds(last?.p50_ms),
    milliseconds(last?.p95_ms),
    batch.in_use === null ? "-" : String(batch.in_use),
  ];
}

function runRowOf({ id, status, counts, images_per_second, eta_seconds, model, folder }: BulkRun): string[] {
  return [
    id,
    status,
    `${counts.done}/${counts.total}`,
    String(counts.failed),
    images_per_second === null ? "-" : `${images_per_second.toFixed(1)}/s`,
    eta_seconds === null ? "-" : formatDuration(eta_seconds),
    model,
    folder ?? "a manifest",
  ];
}

function milliseconds(ms: number | null | undefined): string {
  return ms === null || ms === undefined ? "-" : `${ms >= 100 ? Math.round(ms) : ms.toFixed(1)} ms`;
}
