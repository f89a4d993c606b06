/**
 * The producer's side of the queues: submit, read, wait for, cancel. The api and the tests use predictions through this
 * facade only.
 */
import type { Queue } from "bullmq";
import type { Config, ModelConfig } from "../config/schema.ts";
import type { Output } from "../core/request.ts";
import type { IdempotencyConflictError, QueueFullError } from "../errors.ts";
import { connectRedis, reachRedis } from "../redis/connections.ts";
import { openQueue } from "./bullmq.ts";
import { cancelPrediction } from "./cancel.ts";
import { createNotifier, openCompletionEvents, type Watch } from "./completionEvents.ts";
import { Deliveries } from "./deliveries.ts";
import { confirmSame } from "./idempotency.ts";
import { createInputStore, type InputStore } from "./inputs.ts";
import type { StatisticsPoint } from "../core/modelStatus.ts";
import type { Prediction, Status } from "../core/prediction.ts";
import { listEntries, type Listed, type ListOptions } from "./list.ts";
import { createNames, type Names } from "./names.ts";
import { createOutputStore } from "./outputs.ts";
import { modelOf, queueOf, type PredictionStore } from "./predictionStore.ts";
import * as reading from "./read.ts";
import { readForRetry, type Retry } from "./retry.ts";
import { defineScripts } from "./scripts.ts";
import { readStatistics } from "./statistics.ts";
import {
  predictionExists,
  reserveSlots,
  roomWhenAdded,
  submitPredictions,
  wasFull,
  type Slots,
  type Submission,
} from "./submit.ts";
import { createThumbnailStore, type ThumbnailStore } from "./thumbnails.ts";
import { inSpan } from "../tracing/tracing.ts";
import { sendSpan } from "./spans.ts";
import { waitForPrediction } from "./wait.ts";
import { readCoordination, type Coordination } from "./coordination.ts";
import { watchDisk, type DiskState } from "./diskWatch.ts";
import { watchStorage, type StorageState } from "./storageWatch.ts";
import { readWorkerReports, type WorkerReport } from "./workerReports.ts";

export type { QueueDepth } from "./read.ts";
export type { Slots, Submission } from "./submit.ts";

export class Predictions {
  readonly #store: PredictionStore;
  readonly #close: () => Promise<void>;

  /** Use `openPredictions`. */
  constructor(store: PredictionStore, close: () => Promise<void>) {
    this.#store = store;
    this.#close = close;
  }

  get names(): Names {
    return this.#store.names;
  }

  get inputs(): InputStore {
    return this.#store.inputs;
  }

  /** BullMQ's queues by model name, for the dashboard. */
  get queues(): ReadonlyMap<string, Queue> {
    return this.#store.queues;
  }

  /** BullMQ's queues of the predictions of bulk runs, by model name, for the dashboard. */
  get bulkQueues(): ReadonlyMap<string, Queue> {
    return this.#store.bulkQueues;
  }

  get deliveries(): Deliveries {
    return this.#store.deliveries;
  }

  /** @throws ModelNotFoundError naming the models that there are */
  model(name: string): ModelConfig {
    return modelOf(this.#store, name);
  }

  /**
   * Reserves room for up to `wanted` predictions, before their inputs are stored.
   * @throws QueueFullError when there is none at all
   */
  reserve(model: string, wanted = 1): Promise<Slots> {
    return reserveSlots(this.#store, model, wanted);
  }

  /** See `roomWhenAdded`. */
  roomWhenAdded(model: string): Slots {
    return roomWhenAdded(this.#store, model);
  }

  /** See `wasFull`. */
  wasFull(model: string): boolean {
    return wasFull(this.#store, model);
  }

  /** See `submitPredictions`. */
  submit(
    slots: Slots,
    submissions: readonly Submission[],
  ): Promise<(Prediction | QueueFullError | IdempotencyConflictError)[]> {
    const span = sendSpan(slots.model, submissions[0]?.id, submissions.length);
    return inSpan(`send ${slots.model}`, span, () => submitPredictions(this.#store, slots, submissions));
  }

  /** Whether an id is taken; a submission with it needs no slot then. */
  exists(model: string, id: string): Promise<boolean> {
    return predictionExists(this.#store, model, id);
  }

  /** See `confirmSame`. */
  confirmSame(model: string, submission: Submission): Promise<void> {
    return confirmSame(this.#store, model, submission);
  }

  /** @throws PredictionNotFoundError */
  read(model: string, id: string): Promise<Prediction> {
    return reading.readPrediction(this.#store, model, id);
  }

  /** See `listPredictions`. */
  list(model: string, limit: number, status?: Status): Promise<Prediction[]> {
    return reading.listPredictions(this.#store, model, limit, status);
  }

  /** See `listEntries`. */
  listAll(options: Omit<ListOptions, "models"> & { model?: string | undefined }): Promise<Listed> {
    const { model, ...others } = options;
    if (model !== undefined) this.model(model);
    const models = model === undefined ? [...this.queues.keys()] : [model];
    return listEntries(this.#store, { ...others, models });
  }

  /** See `readForRetry`. */
  readForRetry(model: string, id: string): Promise<Retry> {
    return readForRetry(this.#store, model, id);
  }

  /** Where its last attempt failed; undefined of one that did not, or whose loader said nothing. */
  stackOf(model: string, id: string): Promise<string | undefined> {
    return reading.stackOf(this.#store, model, id);
  }

  get thumbnails(): ThumbnailStore {
    return this.#store.thumbnails;
  }

  /** @throws PredictionNotFoundError, OutputNotFoundError */
  readOutput(model: string, id: string, name: string): Promise<{ mediaType: string; bytes: Buffer }> {
    return reading.readOutput(this.#store, model, id, name);
  }

  /** @throws OutputNotFoundError */
  readBulkOutput(run: { id: string; model: string }, index: string, name: string): Promise<Buffer> {
    return reading.readBulkOutput(this.#store, run, index, name);
  }

  /** @throws OutputNotFoundError where one is gone */
  readOutputs(prediction: Pick<Prediction, "model" | "id" | "outputs">): Promise<Output[]> {
    return reading.readOutputs(this.#store, prediction);
  }

  /** The delivery of a prediction's completion, if there is one. @throws PredictionNotFoundError */
  webhookOf(
    model: string,
    id: string,
  ): Promise<{ delivery: string | undefined; expiresAt: number | undefined }> {
    return reading.webhookOf(this.#store, model, id);
  }

  /** Begins to watch for the end of a prediction, which may not have been submitted yet. Call `stop()` in the end. */
  watch(model: string, id: string): Watch {
    return this.#store.completions.watch(model, id);
  }

  /** See `waitForPrediction`. */
  wait(model: string, id: string, ms: number, signal?: AbortSignal, watched?: Watch): Promise<Prediction> {
    return waitForPrediction(this.#store, model, id, ms, signal, watched);
  }

  /** See `cancelPrediction`. */
  cancel(model: string, id: string): Promise<Prediction> {
    return cancelPrediction(this.#store, model, id);
  }

  depth(model: string): Promise<reading.QueueDepth> {
    return reading.queueDepth(queueOf(this.#store, model));
  }

  /** Of the queue that holds the entries of bulk runs, in entries. */
  bulkDepth(model: string): Promise<reading.QueueDepth> {
    this.model(model);
    return reading.bulkQueueDepth(this.#store, model);
  }

  /** For how long the prediction that is next in a queue has waited, in milliseconds; 0 where none waits. */
  waitOfNext(model: string): Promise<number> {
    return reading.waitOfNext(this.#store, model);
  }

  /** For how long the prediction that has waited longest in a queue has, in milliseconds; 0 where none waits. */
  longestWait(model: string): Promise<number> {
    return reading.longestWait(this.#store, model);
  }

  /** Asks the workers to load a model that failed again. */
  async requestLoad(model: string): Promise<void> {
    const { redis, names } = this.#store;
    this.model(model);
    await reachRedis(() => redis.publish(names.loadRequests, model));
  }

  /** Counts bytes that go to Redis beside the predictions. @throws QueueStorageFullError */
  claimStorage(bytes: number): void {
    this.#store.storage.claim(undefined, bytes);
  }

  /** Whether coordinators are alive, and what waits for one. */
  coordination(): Promise<Coordination> {
    const { redis, names, deliveries } = this.#store;
    return readCoordination(redis, names, deliveries);
  }

  /** @throws DiskFullError where the disk of the data folder has only its reserve left */
  checkDisk(): void {
    this.#store.disk.check();
  }

  /** How much room the disk of the data folder has, as it was looked at last. */
  disk(): DiskState {
    return this.#store.disk.read();
  }

  /** How full Redis is, as it was looked at last. */
  storage(): StorageState {
    return this.#store.storage.read();
  }

  workers(): Promise<WorkerReport[]> {
    return reachRedis(() => readWorkerReports(this.#store.redis, this.#store.names));
  }

  /** What became of a model's predictions in the last minutes. */
  statistics(model: string): Promise<StatisticsPoint[]> {
    return reachRedis(() => readStatistics(this.#store.redis, this.#store.names, model));
  }

  async ping(): Promise<void> {
    await reachRedis(() => this.#store.redis.ping());
  }

  close(): Promise<void> {
    return this.#close();
  }
}

/** Connects to Redis and opens the queue of every model. */
export async function openPredictions(config: Config, redisUrl: string): Promise<Predictions> {
  const redis = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "producer");
  const subscriber = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "worker");
  const names = createNames(config.redis_prefix, redis.isCluster);
  const storage = await watchStorage(config, names, redis);
  const disk = await watchDisk(config);
  const openAll = (prefixOf: (model: string) => string) =>
    new Map(
      Object.keys(config.models).map((model) => [model, openQueue(model, redis, prefixOf(model))] as const),
    );
  const queues = openAll((model) => names.queuePrefix(model));
  const bulkQueues = openAll((model) => names.bulkQueuePrefix(model));
  const store: PredictionStore = {
    config,
    names,
    redis,
    scripts: defineScripts(redis),
    queues,
    bulkQueues,
    fullAt: new Map(),
    inputs: createInputStore(config, names, redis, { storage, disk }),
    storage,
    disk,
    outputs: createOutputStore(config, names, redis),
    thumbnails: createThumbnailStore(config, names, redis),
    deliveries: new Deliveries(redis, names, config),
    completions: await openCompletionEvents(subscriber, names),
    notifyCompletion: createNotifier(redis, names),
  };
  const all = [...queues.values(), ...bulkQueues.values()];
  await Promise.all([...all, ...store.deliveries.queues.values()].map((queue) => queue.waitUntilReady()));
  return new Predictions(store, async () => {
    storage.close();
    disk.close();
    await Promise.allSettled(all.map((queue) => queue.close()));
    await store.deliveries.close();
    redis.disconnect();
    subscriber.disconnect();
  });
}
