/** A worker process: an engine pool and a consumer for each of its models, and the heartbeat that tells of them. */
import { openQueue } from "../queue/bullmq.ts";
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { Queue } from "bullmq";
import type { Logger } from "pino";
import type { Config } from "../config/schema.ts";
import { connectRedis } from "../redis/connections.ts";
import { Deliveries } from "../queue/deliveries.ts";
import { createInputStore } from "../queue/inputs.ts";
import { createOutputStore } from "../queue/outputs.ts";
import { createNames } from "../queue/names.ts";
import {
  HEARTBEAT_INTERVAL_MS,
  publishWorkerReport,
  removeWorkerReport,
  type WorkerReport,
} from "../queue/workerReports.ts";
import { startConsumer } from "./consumer.ts";
import { planEngines } from "./enginePlan.ts";
import { EnginePool } from "./enginePool.ts";
import { createStoredInputReader } from "./storedInputs.ts";
import { createInputFetcher } from "./urlInputs.ts";

const SWEEP_INTERVAL_MS = 10 * 60_000;
/** Ended predictions that are removed in one step of Redis. */
const MAX_REMOVED = 1000;

export interface WorkerOptions {
  config: Config;
  redisUrl: string;
  /** Models to serve, of those in the configuration. */
  models: readonly string[];
  /** The files of each model, fetched and converted. */
  modelPaths: ReadonlyMap<string, string[]>;
  log: Logger;
}

export interface RunningWorker {
  /** Stops fetching, gives back what was not begun, waits up to `limitMs` for what runs. */
  close(limitMs: number): Promise<void>;
}

/**
 * Loads all models, then begins to consume.
 * @throws InfermillError when a model can't be loaded; everything that was started is stopped again
 */
export async function startWorker({
  config,
  redisUrl,
  models,
  modelPaths,
  log,
}: WorkerOptions): Promise<RunningWorker> {
  const names = createNames(config.redis_prefix);
  const redis = await connectRedis(redisUrl, "worker");
  const inputs = createInputStore(config, names, redis);
  const outputs = createOutputStore(config, names, redis);
  const fetchInputs = createInputFetcher(config, inputs);
  const deliveries = new Deliveries(redis, names, config.webhooks.retry_delays_ms.length);
  const id = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
  const startedAt = new Date().toISOString();
  const readStored = createStoredInputReader(redis);
  const pools = new Map(
    [...planEngines(config, models, modelPaths)].map(([modelName, specs]) => {
      const { max_batch_size: maxBatchSize, max_queue_delay_ms: maxQueueDelayMs } = config.models[modelName]!;
      return [
        modelName,
        new EnginePool({ modelName, specs, maxBatchSize, maxQueueDelayMs, readStored, log }),
      ] as const;
    }),
  );

  const report = (): WorkerReport => ({
    id,
    pid: process.pid,
    host: hostname(),
    started_at: startedAt,
    models: Object.fromEntries([...pools].map(([name, pool]) => [name, pool.report()])),
  });
  const beat = () =>
    publishWorkerReport(redis, names, report()).catch((error) => log.warn(`heartbeat: ${error.message}`));

  try {
    await Promise.all([...pools.values()].map((pool) => pool.loaded));
  } catch (error) {
    await Promise.all([...pools.values()].map((pool) => pool.close(0)));
    redis.disconnect();
    throw error;
  }
  const consumers = [...pools].flatMap(([modelName, pool]) => {
    const shared = {
      modelName,
      model: config.models[modelName]!,
      pool,
      redis,
      names,
      inputs,
      outputs,
      fetchInputs,
      deliveries,
      log,
    };
    return [startConsumer({ ...shared, source: "queue" }), startConsumer({ ...shared, source: "bulk" })];
  });
  await beat();
  const heartbeat = setInterval(() => {
    for (const consumer of consumers) consumer.adjust();
    void beat();
  }, HEARTBEAT_INTERVAL_MS);
  const queues = models.map((modelName) => openQueue(modelName, redis, names.queuePrefix));
  const sweepInputs = async () => {
    try {
      const count = await inputs.sweep();
      await outputs.sweep();
      if (count > 0) log.info({ count }, "removed inputs that were left over");
    } catch (error) {
      log.warn({ err: error }, "not every input or output that was left over could be removed");
    }
  };
  const sweepQueues = async () => {
    try {
      for (const queue of queues) await removeOldEnded(queue, config.models[queue.name]!.result_ttl_seconds);
    } catch (error) {
      log.warn(`sweep: ${(error as Error).message}`);
    }
  };
  const sweep = () => {
    void sweepInputs();
    void sweepQueues();
  };
  sweep();
  const sweeper = setInterval(sweep, SWEEP_INTERVAL_MS);

  return {
    async close(limitMs) {
      clearInterval(heartbeat);
      clearInterval(sweeper);
      const closed = consumers.map((consumer) => consumer.close());
      await Promise.all([...pools.values()].map((pool) => pool.close(limitMs)));
      await Promise.all(closed);
      await removeWorkerReport(redis, names, id).catch(() => {});
      redis.disconnect();
    },
  };
}

/**
 * BullMQ removes what is old only when another prediction succeeds or fails, not when one is cancelled or expires.
 * BulkQueues are left to it: a bulk run that is resumed comes for what ended there.
 */
async function removeOldEnded(queue: Queue, ttlSeconds: number): Promise<void> {
  for (const state of ["completed", "failed"] as const) {
    while ((await queue.clean(ttlSeconds * 1000, MAX_REMOVED, state)).length === MAX_REMOVED);
  }
}
