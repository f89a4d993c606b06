/** What the HTTP API answers, as far as the console reads it and src/core has no shape of it. */
import type { PredictionEntry, Priority } from "../core/prediction.ts";

export interface Session {
  authentication: "none" | "api_key";
  signed_in: boolean;
  read_only: boolean;
  /** Names of the folders that a bulk run may be over. */
  bulk_roots: string[];
}

export interface InputOfModel {
  name: string;
  media_types: string[];
  required: boolean;
  multiple: boolean;
}

export interface TensorOfModel {
  name: string;
  type: string;
  shape: (number | string)[];
}

export interface Engine {
  id: string;
  worker: string;
  device: string;
  state: "loading" | "ready" | "restarting" | "failed";
  restarts: number;
  error: string | null;
}

export interface StatisticsPoint {
  at: string;
  succeeded: number;
  failed: number;
  p50_ms: number | null;
  p95_ms: number | null;
  mean_batch_size: number | null;
}

export interface Model {
  name: string;
  loader: string;
  device: string[];
  ready: boolean;
  state: "ready" | "loading" | "failed" | "no_worker";
  /** Why it is not ready, and what to do. */
  reason: string | null;
  advice: string | null;
  labels: string[] | null;
  picture: "required" | "optional" | "none" | null;
  inputs: InputOfModel[] | null;
  tensors: { inputs: TensorOfModel[]; outputs: TensorOfModel[] } | null;
  takes_tensors: boolean | null;
  required_keys: string[] | null;
  embeds: "text" | "picture" | null;
  facts: Record<string, string> | null;
  notes: string[] | null;
  batch: {
    max_batch_size: number;
    max_queue_delay_ms: number;
    batch_limit: number | null;
    in_use: number | null;
  };
  limits: { timeout_ms: number; result_ttl_seconds: number; max_queue_length: number; attempts: number };
  engines: Engine[];
  queue: {
    waiting: number;
    running: number;
    delayed: number;
    failed: number;
    completed: number;
    oldest_wait_seconds: number;
  };
  totals: { predictions: number; succeeded: number; failed: number; mean_batch_size: number | null };
  statistics: { interval_seconds: number; points: StatisticsPoint[] };
}

export interface PredictionEntries {
  predictions: PredictionEntry[];
  next_cursor: string | null;
}

export interface Delivery {
  id: string;
  url: string;
  status: "pending" | "delivered" | "failed" | "skipped";
  event: string | null;
  prediction: { model: string; id: string } | null;
  created_at: string;
  finished_at: string | null;
  next_attempt_at: string | null;
  error: string | null;
  attempts: { at: string; status: number | null; error: string | null; ms: number }[];
}

export interface Deliveries {
  deliveries: Delivery[];
  counts: { pending: number; delivered: number; failed: number };
  gone: { url: string; until: string }[];
  next_cursor: string | null;
}

export interface NewBulkRun {
  model: string;
  folder: string;
  glob?: string;
  request?: Record<string, unknown>;
  priority?: Priority;
}
