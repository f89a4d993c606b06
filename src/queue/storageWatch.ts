/**
 * How full Redis is. Submissions stop while there is still room for what was accepted to be taken, finished and freed:
 * below a share of maxmemory, with the responses counted in that are still to come. Looked at from time to time; what
 * this process has written since is added, so that a burst between two looks can't fill what is left.
 */
import { QueueKeys } from "bullmq";
import type { Redis } from "ioredis";
import type { Config } from "../config/schema.ts";
import { formatMebibytes } from "../core/byteSize.ts";
import { QueueStorageFullError } from "../errors.ts";
import { parseInfo } from "../redis/check.ts";
import { execAll } from "../redis/connections.ts";
import type { Names } from "./names.ts";
import { defineScripts } from "./scripts.ts";
import { readWorkerReports } from "./workerReports.ts";

const LOOK_MS = 1000;
/** Nearly full, it is looked at more often. */
const LOOK_CLOSELY_MS = 250;
const CLOSE = 0.7;
/** Without a maxmemory there is nothing to run out of that Redis would tell. */
const LOOK_UNLIMITED_MS = 10_000;
/** Redis gets memory in steps (jemalloc's size classes) of up to a quarter of what it holds. */
const ALLOCATION = 1.25;
/** What Redis needs for a job beside its data, roughly. */
const JOB_BYTES = 1024;

export interface StorageState {
  /** Bytes that count against `max`, as of the last look. */
  used: number;
  /** Its maxmemory in bytes; 0 where it has none, or doesn't tell. */
  max: number;
  /** Bytes that submissions may fill; 0 where there is no limit. */
  limit: number;
  /** Bytes that the responses of accepted predictions will need, estimated. */
  expected: number;
  /** Why submissions are refused at this moment. */
  problem: string | undefined;
}

export interface StorageWatch {
  read(): StorageState;
  /** Whether bytes are worth counting; without a maxmemory they aren't. */
  isLimited(): boolean;
  /**
   * Counts bytes that are about to be written.
   * @throws QueueStorageFullError where they don't fit below the limit
   */
  claim(bytes: number): void;
  /**
   * Counts predictions that are about to be accepted, with the responses that they will have.
   * @param jobs how many jobs they travel in
   * @throws QueueStorageFullError
   */
  claimPredictions(count: number, jobs?: number): void;
  close(): void;
}

export async function watchStorage(config: Config, names: Names, redis: Redis): Promise<StorageWatch> {
  const { max_memory_share: share } = config;
  const models = Object.keys(config.models);
  const scripts = defineScripts(redis);
  let used = 0;
  let max = 0;
  let expected = 0;
  /** Claimed since the last look was sent off. */
  let claimed = 0;
  /** The largest that was refused and still doesn't fit: until it does, Redis counts as full. */
  let refused = 0;
  /** Of all that this process claimed: a response is taken to be as large as a request until workers report theirs. */
  const requests = { count: 0, bytes: 0 };
  let responseBytes: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;

  const limitOf = () => Math.floor(max * share);
  const requestBytes = () => (requests.count > 0 ? requests.bytes / requests.count : 0);
  const expectedEach = () => (responseBytes ?? requestBytes()) * ALLOCATION;

  async function look(): Promise<void> {
    const before = claimed;
    try {
      const info = parseInfo(await redis.info("memory"));
      const limit = Number(info.get("maxmemory") ?? 0);
      if (limit > 0) await lookAtWork();
      max = limit;
      used = Number(info.get("used_memory") ?? 0) - Number(info.get("mem_not_counted_for_evict") ?? 0);
      claimed -= before;
      if (problemWith(refused) === undefined) refused = 0;
    } catch {
      // Away, or INFO is forbidden: what was known last stays.
    }
    if (isClosed) return;
    const isClose = used + claimed + expected > CLOSE * limitOf();
    const delay = max === 0 ? LOOK_UNLIMITED_MS : isClose ? LOOK_CLOSELY_MS : LOOK_MS;
    timer = setTimeout(() => void look(), delay).unref();
  }

  /** What is under way in all queues, and how large responses are. */
  async function lookAtWork(): Promise<void> {
    const pipeline = redis.pipeline();
    for (const model of models) {
      const keyOf = (type: string) => new QueueKeys(names.queuePrefix).toKey(model, type);
      for (const type of ["wait", "active"]) pipeline.llen(keyOf(type));
      for (const type of ["prioritized", "delayed"]) pipeline.zcard(keyOf(type));
    }
    const ofBulkQueue = (model: string) =>
      scripts.countEntries(
        (type) => new QueueKeys(names.bulkQueuePrefix).toKey(model, type),
        ["wait", "active", "prioritized", "delayed"],
      );
    const [reports, counts, bulkCounts] = await Promise.all([
      readWorkerReports(redis, names),
      execAll(pipeline),
      Promise.all(models.map(ofBulkQueue)),
    ]);
    const perModel = counts.length / models.length;
    const totals = new Map(models.map((model) => [model, { succeeded: 0, bytes: 0 }]));
    for (const { models: served } of reports) {
      for (const [model, report] of Object.entries(served)) {
        const total = totals.get(model);
        if (!total) continue;
        total.succeeded += report.totals.succeeded;
        total.bytes += report.totals.response_bytes ?? 0;
      }
    }
    const all = [...totals.values()].reduce((sum, { succeeded, bytes }) => ({
      succeeded: sum.succeeded + succeeded,
      bytes: sum.bytes + bytes,
    }));
    responseBytes = all.succeeded > 0 ? all.bytes / all.succeeded : undefined;
    expected = 0;
    for (const [index, model] of models.entries()) {
      const { succeeded, bytes } = totals.get(model)!;
      const ofQueue = counts.slice(index * perModel, (index + 1) * perModel) as number[];
      const underWay = [...ofQueue, ...bulkCounts[index]!].reduce((sum, count) => sum + count, 0);
      expected += underWay * (succeeded > 0 ? (bytes / succeeded) * ALLOCATION : expectedEach());
    }
  }

  function problemWith(bytes: number): string | undefined {
    const limit = limitOf();
    if (max === 0 || used + claimed + expected + bytes * ALLOCATION <= limit) return undefined;
    return (
      `Redis holds ${formatMebibytes(used + claimed)} of its maxmemory of ${formatMebibytes(max)}, the responses of what was accepted need about ${formatMebibytes(expected)} more, ` +
      `and all may fill ${formatMebibytes(limit)} (max_memory_share ${share})`
    );
  }

  function claim(bytes: number): void {
    const problem = problemWith(bytes);
    if (problem === undefined) {
      claimed += bytes * ALLOCATION;
      return;
    }
    if (bytes * ALLOCATION > limitOf())
      throw new QueueStorageFullError(
        `${formatMebibytes(bytes)} never fit: ${problem}; raise the maxmemory of Redis, or let inputs be files`,
      );
    refused = Math.max(refused, bytes);
    throw new QueueStorageFullError(
      `${problem}; nothing was accepted, try again when predictions have ended and old ones have gone (result_ttl_seconds)`,
    );
  }

  await look();
  return {
    read: () => ({ used, max, limit: limitOf(), expected, problem: problemWith(refused) }),
    isLimited: () => max > 0,
    claim(bytes) {
      claim(bytes);
      requests.bytes += bytes;
    },
    claimPredictions(count, jobs = count) {
      claim(jobs * JOB_BYTES + count * expectedEach());
      requests.count += count;
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
    },
  };
}
