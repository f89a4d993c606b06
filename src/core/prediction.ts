/** A prediction as clients see it: the shapes that the api answers and the client reads. */
import type { ErrorSummary } from "../errors.ts";
import type { ResponseDictionary } from "./request.ts";

/** Where the time of a prediction went, in milliseconds. */
export interface Timings {
  /** From acceptance until its chunk was handed to an engine. */
  queue_ms: number;
  read_ms: number;
  preprocess_ms: number;
  infer_ms: number;
  postprocess_ms: number;
}

export const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled", "expired"] as const;

export type Status = (typeof STATUSES)[number];

/** An output as clients see it. */
export interface PredictionOutput {
  name: string;
  media_type: string;
  /** Size in bytes. */
  bytes: number;
  /** The bytes as base64, where they are few. */
  data?: string;
  /** Where the bytes can be read. */
  url: string;
}

/** A prediction as clients see it. */
export interface Prediction<Result = ResponseDictionary> {
  id: string;
  model: string;
  status: Status;
  /** ISO 8601, UTC; null where it has not happened. */
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  /** How often it was started. */
  attempts: number;
  result: Result | null;
  /** Bytes beside the result: pictures, masks, large tensors. */
  outputs: PredictionOutput[];
  error: ErrorSummary | null;
  timings: Timings | null;
  batch_size: number | null;
  engine: string | null;
  timeline: Timeline;
  /** Where its last attempt failed, as far as its loader says; only where one prediction is read. */
  stack?: string;
  links: PredictionLinks;
}

export interface PredictionLinks {
  self: string;
  cancel: string;
  events: string;
  retry: string;
  deliveries: string;
  /** Only where there is one. */
  thumbnail?: string;
}

/** When a prediction passed what; ISO 8601, UTC; null where it has not, or nobody knows. */
export interface Timeline {
  /** It was accepted. */
  queued_at: string;
  /** A worker took it from the queue, the last time. */
  taken_at: string | null;
  /** Its batch was handed to an engine. */
  batch_at: string | null;
  /** The model began to run. */
  infer_at: string | null;
  ended_at: string | null;
}

/** A prediction in the list of all models: what a table shows, without its response. */
export interface PredictionEntry {
  id: string;
  model: string;
  status: Status;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  /** From acceptance until an engine, or for now the present moment; null of one that ended waiting. */
  wait_ms: number | null;
  /** In an engine; null until it has succeeded. */
  run_ms: number | null;
  attempts: number;
  batch_size: number | null;
  engine: string | null;
  error: ErrorSummary | null;
  links: PredictionLinks;
}

export function isFinal(status: Status): boolean {
  return status !== "queued" && status !== "running";
}

/** Always explicit, because BullMQ runs a job without a priority before all others. */
export const PRIORITIES = { high: 1, normal: 2, low: 3 } as const;

export type Priority = keyof typeof PRIORITIES;
