/** Prometheus metrics of one api: its requests, and what Redis and the workers' reports say of the models. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Config } from "../config/schema.ts";
import type { Predictions } from "../queue/predictions.ts";

export interface Metrics {
  observeRequest(labels: { method: string; route: string; status: string }, seconds: number): void;
  readonly contentType: string;
  /** The exposition text; asks Redis, and says so in a gauge where it is away. */
  expose(): Promise<string>;
}

export function createMetrics(config: Config, predictions: Predictions): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const requests = new Histogram({
    name: "infermill_http_request_duration_seconds",
    help: "Time from a request's arrival until its answer was sent, waits included.",
    labelNames: ["method", "route", "status"],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    registers,
  });
  const redisUp = new Gauge({
    name: "infermill_redis_up",
    help: "Whether Redis answered this scrape.",
    registers,
  });
  const memory = new Gauge({
    name: "infermill_redis_memory_bytes",
    help: "Memory of Redis: used, max (its maxmemory, 0 for none) and limit (what may be filled, max_memory_share), expected (responses still to come).",
    labelNames: ["kind"],
    registers,
  });
  const storageFull = new Gauge({
    name: "infermill_queue_storage_full",
    help: "Whether submissions are refused because Redis is full (503 queue_storage_full).",
    registers,
  });
  const diskFree = new Gauge({
    name: "infermill_disk_free_bytes",
    help: "Room on the disk of data_dir, of this api; below min_free_disk_bytes uploads are refused (507 disk_full).",
    registers,
  });
  const depth = new Gauge({
    name: "infermill_queue_predictions",
    help: "Predictions in Redis by queue (interactive, or bulk for those of bulk runs) and state; failed includes cancelled and expired.",
    labelNames: ["model", "queue", "state"],
    registers,
  });
  const oldestWait = new Gauge({
    name: "infermill_queue_oldest_wait_seconds",
    help: "For how long the prediction of the interactive queue that waits longest has waited; 0 where none waits.",
    labelNames: ["model"],
    registers,
  });
  const engines = new Gauge({
    name: "infermill_engines",
    help: "Engines of live workers by state.",
    labelNames: ["model", "state"],
    registers,
  });
  const stuck = new Gauge({
    name: "infermill_worker_stuck_seconds",
    help: "For how long a worker has held predictions without finishing one.",
    labelNames: ["model", "worker"],
    registers,
  });
  const batches = new Counter({
    name: "infermill_batches_total",
    help: "Batches run, by worker.",
    labelNames: ["model", "worker"],
    registers,
  });
  const outcomes = new Counter({
    name: "infermill_predictions_total",
    help: "Predictions run, by worker and outcome.",
    labelNames: ["model", "worker", "outcome"],
    registers,
  });
  const phases = new Counter({
    name: "infermill_prediction_seconds_total",
    help: "Where the time of the predictions that succeeded went, by phase, summed over predictions.",
    labelNames: ["model", "worker", "phase"],
    registers,
  });
  const webhooks = new Gauge({
    name: "infermill_webhook_deliveries",
    help: "Webhook deliveries on record by state; those that failed are tried no more.",
    labelNames: ["state"],
    registers,
  });

  const models = Object.keys(config.models);

  function readRedis() {
    return Promise.all([
      predictions.workers(),
      predictions.deliveries.count(),
      Promise.all(models.map((model) => predictions.depth(model))),
      Promise.all(models.map((model) => predictions.bulkDepth(model))),
      Promise.all(models.map((model) => predictions.longestWait(model))),
    ]);
  }

  /** Without an `await`, so that scrapes at the same time don't count into each other's numbers. */
  function show(found: Awaited<ReturnType<typeof readRedis>> | undefined): void {
    redisUp.set(found ? 1 : 0);
    const { problem, ...bytes } = predictions.storage();
    for (const [kind, number] of Object.entries(bytes)) memory.set({ kind }, number);
    const { freeBytes } = predictions.disk();
    if (freeBytes !== undefined) diskFree.set(freeBytes);
    storageFull.set(problem === undefined ? 0 : 1);
    for (const metric of [depth, oldestWait, engines, stuck, batches, outcomes, phases, webhooks])
      metric.reset();
    if (!found) return;
    const [reports, deliveries, depths, bulkDepths, waits] = found;
    for (const [index, model] of models.entries()) {
      for (const [state, number] of Object.entries(depths[index]!))
        depth.set({ model, queue: "interactive", state }, number);
      for (const [state, number] of Object.entries(bulkDepths[index]!))
        depth.set({ model, queue: "bulk", state }, number);
      oldestWait.set({ model }, waits[index]! / 1000);
      for (const state of ["loading", "ready", "restarting", "failed"]) engines.set({ model, state }, 0);
    }
    for (const [state, number] of Object.entries(deliveries)) webhooks.set({ state }, number);
    for (const { id: worker, models: served } of reports) {
      for (const [model, report] of Object.entries(served)) {
        for (const { state } of report.engines) engines.inc({ model, state });
        stuck.set({ model, worker }, report.stuck_ms / 1000);
        batches.inc({ model, worker }, report.totals.batches);
        outcomes.inc({ model, worker, outcome: "succeeded" }, report.totals.succeeded);
        outcomes.inc({ model, worker, outcome: "failed" }, report.totals.failed);
        for (const [key, ms] of Object.entries(report.totals.timings))
          phases.inc({ model, worker, phase: key.replace("_ms", "") }, ms / 1000);
      }
    }
  }

  return {
    observeRequest: (labels, seconds) => requests.observe(labels, seconds),
    contentType: registry.contentType,
    async expose() {
      show(await readRedis().catch(() => undefined));
      return registry.metrics();
    },
  };
}
