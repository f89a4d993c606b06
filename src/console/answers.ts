/** What the HTTP API answers, as far as the console reads it and src/core has no shape of it. */
import type { LoaderDescription } from "../core/description.ts";
import type { DeliveryCounts, ModelStatus } from "../core/modelStatus.ts";
import type { PredictionEntry } from "../core/prediction.ts";

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

/** As far as the console reads it. */
export interface Model extends ModelStatus {
  ready: boolean;
  labels: string[] | null;
  inputs: InputOfModel[] | null;
  tensors: LoaderDescription["tensors"] | null;
  takes_tensors: boolean | null;
  required_keys: string[] | null;
  embeds: "text" | "picture" | null;
  facts: Record<string, string> | null;
  notes: string[] | null;
  batch: ModelStatus["batch"] & { max_batch_size: number; max_queue_delay_ms: number };
  limits: { timeout_ms: number; result_ttl_seconds: number; max_queue_length: number; attempts: number };
  queue: ModelStatus["queue"] & { delayed: number };
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
  run: string | null;
  created_at: string;
  finished_at: string | null;
  next_attempt_at: string | null;
  error: string | null;
  attempts: { at: string; status: number | null; error: string | null; ms: number }[];
}

export interface Deliveries {
  deliveries: Delivery[];
  counts: DeliveryCounts;
  gone: { url: string; until: string }[];
  next_cursor: string | null;
}
