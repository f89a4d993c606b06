/** What the HTTP API answers, as far as the console reads it. Keys that an older server leaves out are optional. */
import type { BulkRun, SkippedLine, SkipReason } from "../core/bulkRun.ts";
import type {
  Prediction as PredictionOfCore,
  PredictionOutput,
  Priority,
  Status,
  Timings,
} from "../core/prediction.ts";
import type { ErrorSummary } from "../errors.ts";

export interface Session {
  authentication: "none" | "api_key";
  signed_in: boolean;
  read_only: boolean;
  version?: string;
  /** Names of the folders that a bulk run may be over. */
  bulk_roots?: string[];
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
  state?: "ready" | "loading" | "failed" | "no_worker";
  /** Why it is not ready, and what to do. */
  reason?: string | null;
  advice?: string | null;
  labels: string[] | null;
  picture: "required" | "optional" | "none" | null;
  inputs: InputOfModel[] | null;
  tensors: { inputs: TensorOfModel[]; outputs: TensorOfModel[] } | null;
  takes_tensors: boolean | null;
  required_keys?: string[] | null;
  embeds?: "text" | "picture" | null;
  facts: Record<string, string> | null;
  notes: string[] | null;
  batch: {
    max_batch_size: number;
    max_queue_delay_ms: number;
    batch_limit: number | null;
    in_use?: number | null;
  };
  limits: { timeout_ms: number; result_ttl_seconds: number; max_queue_length: number; attempts: number };
  engines: Engine[];
  queue: {
    waiting: number;
    running: number;
    delayed: number;
    failed: number;
    completed: number;
    oldest_wait_seconds?: number | null;
  };
  totals: { predictions: number; succeeded: number; failed: number; mean_batch_size: number | null };
  statistics?: { interval_seconds: number; points: StatisticsPoint[] } | null;
}

export interface PredictionLinks {
  retry?: string;
  deliveries?: string;
  /** Only where there is one. */
  thumbnail?: string;
}

export type Prediction = PredictionOfCore & {
  timeline?: {
    queued_at: string;
    taken_at: string | null;
    batch_at: string | null;
    infer_at: string | null;
    ended_at: string | null;
  };
  /** Of one that failed. */
  stack?: string;
  links: PredictionLinks;
};

/** A row of the list of predictions. */
export interface PredictionEntry {
  id: string;
  model: string;
  status: Status;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  wait_ms: number | null;
  run_ms: number | null;
  attempts: number;
  batch_size: number | null;
  error: ErrorSummary | null;
  links: PredictionLinks;
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
  next_cursor?: string | null;
}

interface EntryName {
  index: number;
  path?: string;
  custom_id?: string;
}

/** What came out of a bulk run. */
export interface BulkSummary {
  run: BulkRun;
  verdict: string;
  counts: {
    total: number;
    done: number;
    succeeded: number;
    failed: number;
    skipped: number;
    findings: number;
    without_findings: number;
  };
  seconds: number | null;
  per_second: number | null;
  rate: { interval_seconds: number; points: { at: string; succeeded: number; failed: number }[] };
  stages: {
    stage: string;
    mean_ms: number;
    p50_ms: number;
    p95_ms: number;
    max_ms: number;
    share: number | null;
  }[];
  labels: { label: string; count: number; entries: number; mean_score: number; colour: string }[];
  more_labels: number;
  scores: { bins: number[]; mean: number; min: number; max: number } | null;
  failures: {
    code: string;
    title: string;
    reason: string;
    count: number;
    examples: (EntryName & { detail: string })[];
  }[];
  more_failures: number;
  slowest: (EntryName & { duration_ms: number })[];
  left_out: { reason: SkipReason; count: number; examples: SkippedLine[] }[];
  configuration: {
    model: string;
    used: {
      version: string;
      loader: string;
      model_path: string[];
      device: string[];
      settings: Record<string, unknown>;
    } | null;
    folder: string | null;
    glob: string | null;
    request: Record<string, unknown>;
    annotate: string | null;
    from_command_line: boolean;
  };
}

export interface BulkEntry extends EntryName {
  id: string;
  line: number;
  status: "succeeded" | "failed";
  response?: Record<string, unknown> | null;
  outputs?: PredictionOutput[];
  error?: ErrorSummary;
  timings?: Timings;
  duration_ms: number | null;
  score: number | null;
  finished_at: string | null;
  links: { thumbnail: string | null; picture: string | null };
}

export interface BulkEntryPage {
  entries: BulkEntry[];
  next_cursor: string | null;
}

export interface NewBulkRun {
  model: string;
  folder: string;
  glob?: string;
  request?: Record<string, unknown>;
  priority?: Priority;
}

export type { BulkRun, ErrorSummary, Timings };
