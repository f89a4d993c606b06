/**
 * The bulk queue of a model: a second queue beside its own, for the entries of bulk runs only, which travel in chunks.
 * It leaves a worker's hand free for interactive predictions, and `max_queue_length` counts only those. Ids are the
 * run's, so that a chunk which is submitted again is not added again.
 */
import { openQueue } from "./bullmq.ts";
import { Queue } from "./bullmqPackage.ts";
import type { Config, ModelConfig } from "../config/schema.ts";
import type { ErrorSummary } from "../errors.ts";
import type { RequestDictionary } from "../core/request.ts";
import { connectRedis, execAll, reachRedis, type RedisClient } from "../redis/connections.ts";
import { chunkData, chunkId, type BulkChunkData, type BulkEntryData } from "./bulkChunks.ts";
import { watchDisk } from "./diskWatch.ts";
import { watchStorage, type StorageWatch } from "./storageWatch.ts";
import { createInputStore, type InputStore } from "./inputs.ts";
import { failureOf, jobOptions } from "./jobs.ts";
import type { Priority } from "../core/prediction.ts";
import { createNames } from "./names.ts";
import { defineScripts } from "./scripts.ts";

/** What all entries of a run have in common. */
export interface BulkRunData {
  id: string;
  /** Keys for the request dictionary of every entry, without pictures. */
  request: RequestDictionary;
  priority: Priority;
}

/** How a chunk stands. */
export interface ChunkState {
  /**
   * `missing` where Redis doesn't know it; `completed` by a worker that is done with it, `failed` by one that could not
   * be, for the reason in `error`. Whatever has no row then was not run.
   */
  state: "under way" | "missing" | "completed" | "failed";
  error?: ErrorSummary;
  /** ISO 8601, of one that failed. */
  finished_at?: string;
  /** How entries ended, from the row on that was asked for; an entry may have two rows, of which the first counts. */
  rows: string[];
}

export interface BulkQueue {
  /** @throws QueueStorageFullError where Redis has no room for all of them */
  submit(run: BulkRunData, chunks: readonly BulkEntryData[][]): Promise<void>;
  /** @param chunks each with the number of its rows that are known */
  read(chunks: readonly { id: string; seen: number }[]): Promise<ChunkState[]>;
  /** Ids of what a run has in the queue, in whatever state, and the indices of the entries of each. */
  find(runId: string): Promise<{ id: string; indices: number[] }[]>;
  /** Forgets chunks that ended, with their rows. */
  remove(ids: readonly string[]): Promise<void>;
  /** Takes those that wait out of the queue, and answers their ids; of those that run no further entry begins. */
  withdraw(ids: readonly string[]): Promise<string[]>;
}

export interface BulkQueues {
  bulkQueue(model: string): BulkQueue;
  readonly inputs: InputStore;
  /** Calls back with the id of every chunk of which something ended, until `stop()`. Events can be lost. */
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
    async submit({ id: run, request, priority }, chunks) {
      const jobs = chunks.map((entries) => {
        const id = chunkId(run, entries);
        const data = chunkData(run, request, entries);
        return { name: "entries", data, opts: jobOptions(model, id, priority) };
      });
      if (storage.isLimited(queue.name)) {
        const entries = chunks.reduce((sum, { length }) => sum + length, 0);
        storage.claimPredictions(queue.name, entries, chunks.length);
        const bytes = jobs.reduce((sum, { data }) => sum + JSON.stringify(data).length, 0);
        storage.claim(queue.name, bytes);
      }
      await reachRedis(() => queue.addBulk(jobs));
    },

    async read(chunks) {
      if (chunks.length === 0) return [];
      const pipeline = redis.pipeline();
      for (const { id, seen } of chunks) {
        pipeline.hmget(queue.toKey(id), ...FIELDS);
        // Behind its state: one that has ended has all of its rows.
        pipeline.lrange(queue.toKey(`${id}:logs`), seen, -1);
      }
      const found = await reachRedis(() => execAll(pipeline));
      return chunks.map((_, at) => ({
        ...stateOf(found[2 * at] as (string | null)[]),
        rows: found[2 * at + 1] as string[],
      }));
    },

    async find(runId) {
      return reachRedis(async () => {
        const ids = await scripts.findRun(queue.toKey, runId);
        const pipeline = redis.pipeline();
        for (const id of ids) pipeline.hget(queue.toKey(id), "data");
        const found = (await execAll(pipeline)) as (string | null)[];
        return ids.map((id, at) => {
          const { entries = [] } = JSON.parse(found[at] ?? "{}") as Partial<BulkChunkData>;
          return { id, indices: entries.map(({ index }) => index) };
        });
      });
    },

    async remove(ids) {
      if (ids.length > 0) await reachRedis(() => scripts.removeEnded(queue.toKey, ids));
    },

    async withdraw(ids) {
      return ids.length > 0 ? reachRedis(() => scripts.withdraw(queue.toKey, ids)) : [];
    },
  };
}

function stateOf([timestamp, finishedOn, returnValue, failedReason]: readonly (
  | string
  | null
  | undefined
)[]): Omit<ChunkState, "rows"> {
  if (!timestamp) return { state: "missing" };
  if (!finishedOn) return { state: "under way" };
  // Not by failedReason, which an earlier try leaves behind.
  if (returnValue) return { state: "completed" };
  const error = failureOf(failedReason ?? "");
  return { state: "failed", error, finished_at: new Date(Number(finishedOn)).toISOString() };
}
