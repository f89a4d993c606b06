/** How a model stands, as far as clients need it to tell: a part of what `GET /v1/models` answers. */

export interface ModelStatus {
  name: string;
  loader: string;
  device: string[];
  state: "ready" | "loading" | "failed" | "no_worker";
  /** Why it is not ready, and what to do about it. */
  reason: string | null;
  advice: string | null;
  engines: { id: string; worker: string; device: string; state: string; restarts: number }[];
  /** Most predictions that run together now; null until it is loaded. */
  batch: { in_use: number | null };
  queue: { waiting: number; running: number; oldest_wait_seconds: number };
  /** Of the last 15 minutes; intervals in which nothing ended are left out. */
  statistics: {
    interval_seconds: number;
    points: StatisticsPoint[];
  };
}

/** One interval, all workers together. */
export interface StatisticsPoint {
  /** When it began, ISO 8601. */
  at: string;
  succeeded: number;
  failed: number;
  /** Time in an engine of those that succeeded. */
  p50_ms: number | null;
  p95_ms: number | null;
  mean_batch_size: number | null;
}

/** How many webhook deliveries there are; `failed` ones are tried no more. */
export interface DeliveryCounts {
  pending: number;
  delivered: number;
  failed: number;
}
