/**
 * What became of each model's predictions in the last minutes. Workers count for themselves and publish a point of
 * each interval in which something ended, beside their heartbeat; every api reads the same.
 */
import { execAll, type RedisClient } from "../redis/connections.ts";
import type { StatisticsPoint } from "../core/modelStatus.ts";
import type { Names } from "./names.ts";

export const STATISTICS_INTERVAL_MS = 10_000;
const STATISTICS_SPAN_MS = 15 * 60_000;

/** Each bound of the histogram is this many times the one before it: a percentile is at most 5 % off. */
const GROWTH = 1.1;

/** How many took how long: by the number of a bound, from 0 for up to 1 ms. */
type Histogram = Record<number, number>;

/** What one worker counted in one interval. */
export interface WorkerPoint {
  /** Unix time in ms at which the interval began; a multiple of its length. */
  at: number;
  succeeded: number;
  failed: number;
  /** That ran in batches, and how many batches those were. */
  batched: number;
  batches: number;
  /** Of those that succeeded. */
  run_ms: Histogram;
}

/** What one worker counts of one model. */
export class IntervalCounter {
  readonly #now: () => number;
  #open: WorkerPoint;
  #closed: WorkerPoint[] = [];

  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#open = emptyPoint(now());
  }

  /** @param batchSize with how many it ran; 0 where it ran in none */
  addEnd(how: "succeeded" | "failed", batchSize: number): void {
    const point = this.#current();
    point[how]++;
    if (batchSize === 0) return;
    point.batched++;
    // Each member brings its share, so that a whole batch counts as one.
    point.batches += 1 / batchSize;
  }

  /** @param ms that one that succeeded was in an engine */
  addRun(ms: number): void {
    const { run_ms: histogram } = this.#current();
    const bound = boundOf(ms);
    histogram[bound] = (histogram[bound] ?? 0) + 1;
  }

  /** The points of the intervals that are over, once. */
  takeClosed(): WorkerPoint[] {
    this.#current();
    return this.#closed.splice(0);
  }

  #current(): WorkerPoint {
    const now = this.#now();
    if (now >= this.#open.at + STATISTICS_INTERVAL_MS) {
      if (this.#open.succeeded + this.#open.failed > 0) this.#closed.push(this.#open);
      this.#open = emptyPoint(now);
    }
    return this.#open;
  }
}

function emptyPoint(now: number): WorkerPoint {
  const at = now - (now % STATISTICS_INTERVAL_MS);
  return { at, succeeded: 0, failed: 0, batched: 0, batches: 0, run_ms: {} };
}

/** Adds what a worker counted; nothing where nothing ended. */
export async function publishStatistics(
  redis: RedisClient,
  names: Names,
  worker: string,
  points: Readonly<Record<string, readonly WorkerPoint[]>>,
): Promise<void> {
  for (const [model, closed] of Object.entries(points)) {
    if (closed.length === 0) continue;
    const key = names.statistics(model);
    await execAll(
      redis
        .multi()
        .zadd(key, ...closed.flatMap((point) => [point.at, JSON.stringify({ ...point, worker })]))
        .zremrangebyscore(key, "-inf", Date.now() - STATISTICS_SPAN_MS)
        .pexpire(key, STATISTICS_SPAN_MS),
    );
  }
}

/** The intervals of the last minutes in which something ended, the oldest first. */
export async function readStatistics(
  redis: RedisClient,
  names: Names,
  model: string,
): Promise<StatisticsPoint[]> {
  const texts = await redis.zrangebyscore(names.statistics(model), Date.now() - STATISTICS_SPAN_MS, "+inf");
  const byTime = new Map<number, WorkerPoint[]>();
  for (const text of texts) {
    const point = JSON.parse(text) as WorkerPoint;
    byTime.set(point.at, [...(byTime.get(point.at) ?? []), point]);
  }
  return [...byTime].map(([at, points]) => combinePoints(at, points));
}

export function combinePoints(at: number, points: readonly WorkerPoint[]): StatisticsPoint {
  const sum = (key: "succeeded" | "failed" | "batched" | "batches") =>
    points.reduce((total, point) => total + point[key], 0);
  const histogram: Histogram = {};
  for (const { run_ms } of points) {
    for (const [bound, count] of Object.entries(run_ms))
      histogram[Number(bound)] = (histogram[Number(bound)] ?? 0) + count;
  }
  const batches = sum("batches");
  return {
    at: new Date(at).toISOString(),
    succeeded: sum("succeeded"),
    failed: sum("failed"),
    p50_ms: percentile(histogram, 0.5),
    p95_ms: percentile(histogram, 0.95),
    mean_batch_size: batches > 0 ? Math.round((100 * sum("batched")) / batches) / 100 : null,
  };
}

function boundOf(ms: number): number {
  return Math.max(0, Math.round(Math.log(Math.max(ms, 1)) / Math.log(GROWTH)));
}

/** @returns null of none */
function percentile(histogram: Histogram, share: number): number | null {
  const bounds = Object.keys(histogram)
    .map(Number)
    .toSorted((a, b) => a - b);
  const total = bounds.reduce((sum, bound) => sum + histogram[bound]!, 0);
  let seen = 0;
  for (const bound of bounds) {
    seen += histogram[bound]!;
    if (seen >= share * total) return Math.round(10 * GROWTH ** bound) / 10;
  }
  return null;
}
