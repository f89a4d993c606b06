/** A worker process: its models, the heartbeat that reports them, the removal of what is left over. */
import { openQueue } from "../queue/bullmq.ts";
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Queue } from "bullmq";
import type { Logger } from "pino";
import type { Config } from "../config/schema.ts";
import { connectRedis } from "../redis/connections.ts";
import { Deliveries } from "../queue/deliveries.ts";
import { createFaultLog } from "../queue/faultLog.ts";
import { createInputStore, type InputStore } from "../queue/inputs.ts";
import { createOutputStore, type OutputStore } from "../queue/outputs.ts";
import { createNames } from "../queue/names.ts";
import { publishStatistics } from "../queue/statistics.ts";
import { createThumbnailStore, type ThumbnailStore } from "../queue/thumbnails.ts";
import {
  HEARTBEAT_INTERVAL_MS,
  publishWorkerReport,
  removeWorkerReport,
  type WorkerReport,
} from "../queue/workerReports.ts";
import { createEndOfInputs } from "./endOfInputs.ts";
import { watchStorage } from "../queue/storageWatch.ts";
import { planEngines } from "./enginePlan.ts";
import { ServedModel } from "./servedModel.ts";
import { createInputFetcher } from "./urlInputs.ts";

const SWEEP_INTERVAL_MS = 10 * 60_000;
/** The same, at most so often, while Redis is full. */
const MAKE_ROOM_INTERVAL_MS = 10_000;
/** Ended predictions that are removed in one step of Redis. */
const MAX_REMOVED = 1000;

export interface WorkerOptions {
  config: Config;
  redisUrl: string;
  /** Models to serve, of those in the configuration. */
  models: readonly string[];
  /** Fetches and converts a model's files; answers their absolute paths. */
  resolvePaths: (model: string) => Promise<string[]>;
  /** Whether one model that can't be loaded stops the worker. */
  isStrict: boolean;
  log: Logger;
}

export interface RunningWorker {
  /** Names of the models that could not be loaded. They are tried again when one of their files changes, or on request. */
  readonly failed: readonly string[];
  /** Stops fetching, gives back what was not begun, waits up to `limitMs` for what runs. */
  close(limitMs: number): Promise<void>;
}

/**
 * Loads all models, and consumes the queues of each as soon as it is loaded; resolves once every one is loaded or has
 * failed.
 * @throws InfermillError when no model can be loaded, or, where it is strict, one can't; everything that was started is
 * stopped again
 */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const { config, redisUrl, models, resolvePaths, isStrict, log } = options;
  const redis = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "worker");
  const names = createNames(config.redis_prefix, redis.isCluster);
  const subscriber = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "worker");
  const closing = new AbortController();
  const onAway = ({ message }: Error) =>
    log.warn({ reason: message }, "the object storage can't be reached; what needs it waits");
  const inputs = createInputStore(config, names, redis);
  const outputs = createOutputStore(config, names, redis);
  const thumbnails = createThumbnailStore(config, names, redis);
  const endOfInputs = createEndOfInputs({ config, inputs, thumbnails, log });
  const sweeper = createSweeper({
    inputs,
    outputs,
    thumbnails,
    queues: models.map((model) => openQueue(model, redis, names.queuePrefix(model))),
    config,
    log,
  });
  const shared = {
    endOfInputs,
    redis,
    names,
    inputs,
    outputs,
    fetchInputs: createInputFetcher(config, inputs, { storage: { signal: closing.signal, onAway } }),
    deliveries: new Deliveries(redis, names, config),
    log,
  };
  const storage = await watchStorage(config, names, redis);
  const id = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
  const startedAt = new Date().toISOString();
  const plan = planEngines(config, models);
  const served = models.map(
    (modelName) =>
      new ServedModel({
        ...shared,
        modelName,
        model: config.models[modelName]!,
        specs: plan.get(modelName)!,
        resolvePaths: () => resolvePaths(modelName),
      }),
  );

  const report = (): WorkerReport => ({
    id,
    pid: process.pid,
    host: hostname(),
    started_at: startedAt,
    models: Object.fromEntries(served.map((model) => [model.name, model.report()])),
  });
  const onBeatFault = createFaultLog(log, "heartbeat");
  const beat = () => publishWorkerReport(redis, names, report()).catch(onBeatFault);
  const onStatisticsFault = createFaultLog(log, "statistics");
  const publish = () => {
    const points = Object.fromEntries(served.map((model) => [model.name, model.takeStatistics()]));
    return publishStatistics(redis, names, id, points).catch(onStatisticsFault);
  };
  const load = async (model: ServedModel) => {
    await model.load();
    logLoad(model, log);
    await beat();
  };
  const loadChanged = async (model: ServedModel) => {
    if (await model.hasChanged()) await load(model);
  };
  const closeModels = (limitMs: number) => Promise.all(served.map((model) => model.close(limitMs)));
  const disconnect = () => {
    redis.disconnect();
    subscriber.disconnect();
  };

  await Promise.all(served.map(load));
  const failed = served.filter(({ failure }) => failure);
  if (failed.length > 0 && (isStrict || failed.length === served.length)) {
    await closeModels(0);
    disconnect();
    throw failed[0]!.failure!;
  }
  const heartbeat = setInterval(() => {
    for (const model of served) {
      model.adjust();
      void loadChanged(model);
    }
    void beat();
    void publish();
    // What has ended and is too old may be all that keeps Redis full.
    if (storage.read().problem !== undefined) sweeper.makeRoom();
  }, HEARTBEAT_INTERVAL_MS);
  subscriber.on("message", (_channel, name: string) => {
    const model = served.find((each) => each.name === name);
    if (model?.failure) void load(model);
  });
  await subscriber.subscribe(names.loadRequests);
  sweeper.start();

  return {
    failed: failed.map(({ name }) => name),
    async close(limitMs) {
      clearInterval(heartbeat);
      sweeper.stop();
      storage.close();
      closing.abort();
      await closeModels(limitMs);
      await endOfInputs.close();
      await removeWorkerReport(redis, names, id).catch(() => {});
      disconnect();
    },
  };
}

function logLoad(model: ServedModel, log: Logger): void {
  const { name, failure } = model;
  if (!failure) {
    const { description, batch_limit } = model.report();
    log.info({ model: name, batch_limit, ...description?.facts }, "model loaded");
    for (const note of description?.notes ?? []) log.warn({ model: name }, `model: ${note}`);
    return;
  }
  log.error(
    { model: name },
    `the model can't be loaded: ${failure.message}; it is loaded again when one of its files changes, or by POST /v1/models/${name}/load`,
  );
}

/** Removes what nobody removed in time: from its start on from time to time, and when Redis is full. */
function createSweeper({
  inputs,
  outputs,
  thumbnails,
  queues,
  config,
  log,
}: {
  inputs: InputStore;
  outputs: OutputStore;
  thumbnails: ThumbnailStore;
  queues: readonly Queue[];
  config: Config;
  log: Logger;
}) {
  let timer: NodeJS.Timeout | undefined;
  let sweptAt = 0;
  const sweepFiles = async () => {
    try {
      const count = await inputs.sweep();
      await outputs.sweep();
      await thumbnails.sweep();
      if (count > 0) log.info({ count }, "removed inputs that were left over");
    } catch (error) {
      log.warn({ err: error }, "not every input or output that was left over could be removed");
    }
  };
  const sweepQueues = async () => {
    sweptAt = Date.now();
    try {
      for (const queue of queues) await removeOldEnded(queue, config.models[queue.name]!.result_ttl_seconds);
    } catch (error) {
      log.warn(`sweep: ${(error as Error).message}`);
    }
  };
  const sweep = () => {
    void sweepFiles();
    void sweepQueues();
  };
  return {
    start() {
      sweep();
      timer = setInterval(sweep, SWEEP_INTERVAL_MS);
    },
    makeRoom() {
      if (Date.now() - sweptAt > MAKE_ROOM_INTERVAL_MS) void sweepQueues();
    },
    stop: () => clearInterval(timer),
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
