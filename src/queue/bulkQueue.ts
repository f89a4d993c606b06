/**
 * The bulk queue of a model: a second queue beside its own, for the predictions of
 * bulk runs only. It leaves a worker's hand free for interactive predictions,
 * and `max_queue_length` counts only those. Ids are the run's, so that a
 * prediction which is submitted again is not added again.
 */
import { bulkOutputLink } from "../core/links.ts";
import { openQueue } from "./bullmq.ts";
import { Queue } from "bullmq";
import type { Config, ModelConfig } from "../config/schema.ts";
import type { ErrorSummary } from "../errors.ts";
import type { RequestDictionary, ResponseDictionary } from "../core/request.ts";
import { connectRedis, execAll, reachRedis, type RedisClient } from "../redis/connections.ts";
import { watchDisk } from "./diskWatch.ts";
import { watchStorage, type StorageWatch } from "./storageWatch.ts";
import { createInputStore, type InputRef, type InputStore } from "./inputs.ts";
import { failureOf, jobOptions, type Completion } from "./jobs.ts";
import { type PredictionOutput, type Priority, type Timings } from "../core/prediction.ts";
import { createNames, partsOfBulkPredictionId } from "./names.ts";
import { readResponse } from "./responses.ts";
import { defineScripts } from "./scripts.ts";

export interface BulkSubmission {
  id: string;
  /** The request dictionary without its pictures. */
  request: RequestDictionary;
  inputs: InputRef[];
}

/** How a prediction of a bulk run ended. */
export type BulkOutcome = (
  | { status: "succeeded"; result: ResponseDictionary; outputs?: PredictionOutput[]; timings: Timings }
  | { status: "failed"; error: ErrorSummary }
) & {
  /** ISO 8601. */
  finished_at: string;
};

export interface BulkQueue {
  /** @throws QueueStorageFullError where Redis has no room for all of them */
  submit(submissions: readonly BulkSubmission[], priority: Priority): Promise<void>;
  /** For each id how it ended, "under way", or "missing" where Redis doesn't know it. */
  read(ids: readonly string[]): Promise<(BulkOutcome | "under way" | "missing")[]>;
  /** Forgets predictions that ended, with their responses. */
  remove(ids: readonly string[]): Promise<void>;
  /** Takes those that wait out of the queue; answers their ids. */
  withdraw(ids: readonly string[]): Promise<string[]>;
}

export interface BulkQueues {
  bulkQueue(model: string): BulkQueue;
  readonly inputs: InputStore;
  /** Calls back with the id of every prediction of a bulk run that ends, until `stop()`. Events can be lost. */
  listen(onEnding: (id: string) => void): { stop(): void };
  close(): Promise<void>;
}

/** What of a job's hash tells how it stands. */
const FIELDS = ["timestamp", "finishedOn", "returnvalue", "failedReason"] as const;

export async function openBulkQueues(config: Config, redisUrl: string): Promise<BulkQueues> {
  const redis = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "producer");
  const names = createNames(config.redis_prefix, redis.isCluster);
  const subscriber = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "worker");
  const storage = await watchStorage(config, names, redis);
  const disk = await watchDisk(config);
  const queues = new Map<string, Queue>();
  const listeners = new Set<(id: string) => void>();
  subscriber.on("message", (_channel, completions: string) => {
    for (const ending of completions.split(" ")) {
      const id = ending.slice(ending.indexOf(":") + 1);
      for (const listener of listeners) listener(id);
    }
  });
  await subscriber.subscribe(names.bulkCompletions);

  const queueOf = (model: string): Queue => {
    const known = queues.get(model);
    if (known) return known;
    const queue = openQueue(model, redis, names.bulkQueuePrefix(model));
    queues.set(model, queue);
    return queue;
  };

  return {
    bulkQueue: (model) => createBulkQueue(redis, queueOf(model), config.models[model]!, storage),
    inputs: createInputStore(config, names, redis, { storage, disk }),
    listen(onEnding) {
      listeners.add(onEnding);
      return { stop: () => void listeners.delete(onEnding) };
    },
    async close() {
      storage.close();
      disk.close();
      await Promise.allSettled([...queues.values()].map((queue) => queue.close()));
      redis.disconnect();
      subscriber.disconnect();
    },
  };
}

function createBulkQueue(
  redis: RedisClient,
  queue: Queue,
  model: ModelConfig,
  storage: StorageWatch,
): BulkQueue {
  const scripts = defineScripts(redis);
  return {
    async submit(submissions, priority) {
      const jobs = submissions.map(({ id, request, inputs }) => ({
        name: "predict",
        data: { request, inputs },
        opts: jobOptions(model, id, priority),
      }));
      if (storage.isLimited(queue.name)) {
        storage.claimPredictions(queue.name, jobs.length);
        const bytes = jobs.reduce((sum, { data }) => sum + JSON.stringify(data).length, 0);
        storage.claim(queue.name, bytes);
      }
      await reachRedis(() => queue.addBulk(jobs));
    },

    async read(ids) {
      if (ids.length === 0) return [];
      return reachRedis(async () => {
        const pipeline = redis.pipeline();
        for (const id of ids) pipeline.hmget(queue.toKey(id), ...FIELDS);
        const found = (await execAll(pipeline)) as (string | null)[][];
        return Promise.all(found.map((fields, index) => readEnding(queue, ids[index]!, fields)));
      });
    },

    async remove(ids) {
      if (ids.length > 0) await reachRedis(() => scripts.removeEnded(queue.toKey, ids));
    },

    withdraw: (ids) => reachRedis(() => scripts.withdraw(queue.toKey, ids)),
  };
}

async function readEnding(
  queue: Queue,
  id: string,
  [timestamp, finishedOn, returnValue, failedReason]: readonly (string | null | undefined)[],
): Promise<BulkOutcome | "under way" | "missing"> {
  if (!timestamp) return "missing";
  if (!finishedOn) return "under way";
  const finished_at = new Date(Number(finishedOn)).toISOString();
  // Not by failedReason, which an earlier try leaves behind.
  if (!returnValue) return { status: "failed", error: failureOf(failedReason ?? ""), finished_at };
  const completion = JSON.parse(returnValue) as Completion;
  const result = await readResponse(queue, id, completion);
  if (!result) return "missing";
  const { run, index } = partsOfBulkPredictionId(id);
  const outputs = (completion.outputs ?? []).map(({ name, media_type, bytes, data }) => ({
    name,
    media_type,
    bytes,
    ...(data !== undefined && { data }),
    url: bulkOutputLink(run, index, name, media_type),
  }));
  const { timings } = completion;
  return { status: "succeeded", result, ...(outputs.length > 0 && { outputs }), timings, finished_at };
}
