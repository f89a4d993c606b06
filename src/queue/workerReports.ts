/**
 * What workers report of themselves through Redis: which models they serve, how
 * their engines fare, whether consumption makes progress. Workers write a
 * heartbeat, the api reads them all.
 */
import type { LoaderDescription } from "../core/description.ts";
import type { Timings } from "../core/prediction.ts";
import { execAll, type RedisClient } from "../redis/connections.ts";
import type { Names } from "./names.ts";

export const HEARTBEAT_INTERVAL_MS = 2000;
/** A worker that was silent for longer counts as gone. */
const HEARTBEAT_LIMIT_MS = 10_000;

export type EngineState = "loading" | "ready" | "restarting" | "failed";

export interface EngineReport {
  id: string;
  device: string;
  state: EngineState;
  pid: number | null;
  restarts: number;
  /** Why it could not load; null while all is well. */
  error: string | null;
}

export interface ModelReport {
  engines: EngineReport[];
  description: LoaderDescription | null;
  /** Most predictions that the model really runs together. */
  batch_limit: number | null;
  /** Predictions that keep its engines busy while the next ones are at hand. */
  capacity: number;
  /** Predictions that the worker holds at this moment. */
  held: number;
  /** Milliseconds for which it has held predictions without finishing one; 0 while it is idle or getting on. */
  stuck_ms: number;
  /** Since the worker started. */
  totals: {
    batches: number;
    predictions: number;
    succeeded: number;
    failed: number;
    /** Bytes of Redis that the responses of those that succeeded took; workers of an older version don't tell. */
    response_bytes?: number;
    /** Of the predictions that succeeded, summed up. */
    timings: Timings;
  };
}

export interface WorkerReport {
  id: string;
  pid: number;
  host: string;
  started_at: string;
  models: Record<string, ModelReport>;
}

export async function publishWorkerReport(
  redis: RedisClient,
  names: Names,
  report: WorkerReport,
): Promise<void> {
  await execAll(
    redis
      .multi()
      .set(names.worker(report.id), JSON.stringify(report), "PX", HEARTBEAT_LIMIT_MS)
      .zadd(names.workers, Date.now(), report.id)
      .zremrangebyscore(names.workers, "-inf", Date.now() - HEARTBEAT_LIMIT_MS),
  );
}

export async function removeWorkerReport(redis: RedisClient, names: Names, workerId: string): Promise<void> {
  await redis.multi().del(names.worker(workerId)).zrem(names.workers, workerId).exec();
}

export async function readWorkerReports(redis: RedisClient, names: Names): Promise<WorkerReport[]> {
  const ids = await redis.zrange(names.workers, 0, "-1");
  if (ids.length === 0) return [];
  const reports = await redis.mget(ids.map((id) => names.worker(id)));
  return reports.flatMap((report) => (report === null ? [] : [JSON.parse(report) as WorkerReport]));
}
