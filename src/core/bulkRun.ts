/** A bulk run and its results as clients see them. */
import type { ErrorSummary } from "../errors.ts";
import type { PredictionOutput, Priority, Timings } from "./prediction.ts";
import type { ResponseDictionary } from "./request.ts";

/** How one entry ended: a line of `results.ndjson`. The first three keys stand first in the line, in this order. */
export interface BulkResult<Result = ResponseDictionary> {
  /** Of the entry, from 0. */
  index: number;
  status: "succeeded" | "failed";
  /** Of this line in the results, from 1; `?after=` continues behind it. */
  line: number;
  /** Of a file, below the run's folder. */
  path?: string;
  custom_id?: string;
  result?: Result | null;
  /** Bytes beside the result. */
  outputs?: PredictionOutput[];
  error?: ErrorSummary;
  timings?: Timings;
  /** When it ended, ISO 8601. */
  finished_at?: string;
}

/**
 * `queued`: no coordinator has begun; `walking`: the folder is listed; the last three are final. `failed` means that
 * the run itself could not continue, not that entries failed.
 */
export const BULK_STATUSES = ["queued", "walking", "running", "completed", "cancelled", "failed"] as const;

export type BulkStatus = (typeof BULK_STATUSES)[number];

export function hasEnded(status: BulkStatus): boolean {
  return status === "completed" || status === "cancelled" || status === "failed";
}

/**
 * Why a run leaves out what it finds in its folder: `not_a_picture` by its first bytes, where no pattern chooses;
 * `not_matched` by the pattern; `link_outside` leads out of the bulk root; `not_a_file` is a socket, a pipe or a device.
 */
export const SKIP_REASONS = [
  "hidden",
  "not_a_picture",
  "not_matched",
  "empty",
  "link_to_folder",
  "broken_link",
  "link_outside",
  "not_a_file",
  "unreadable",
] as const;

export type SkipReason = (typeof SKIP_REASONS)[number];

/** How much was left out of a folder. */
export interface SkippedCounts {
  total: number;
  by_reason: Partial<Record<SkipReason, number>>;
}

/** One that was left out: a line of `GET /v1/bulk/{run}/skipped`. */
export interface SkippedLine {
  /** Below the run's folder; that of a folder ends in "/". */
  path: string;
  reason: SkipReason;
  /** What it is instead. */
  detail?: string;
}

/** How far a run is. */
export interface BulkCounts {
  /** Entries; while the folder is walked, those that were found so far. */
  total: number;
  succeeded: number;
  failed: number;
}

/** A bulk run as clients see it. */
export interface BulkRun {
  id: string;
  model: string;
  status: BulkStatus;
  /** `<root>/<path>` or an absolute path; null for a manifest. */
  folder: string | null;
  glob: string | null;
  priority: Priority;
  /** Entries that may fail before the run gives up; null for any number. */
  max_failures: number | null;
  /** When it gives up; null for never. */
  deadline: string | null;
  /** As its client gave it. */
  metadata: Record<string, string>;
  counts: BulkCounts & { done: number };
  /** What was found in the folder and left out; none for a manifest. */
  skipped: SkippedCounts;
  /** 0 to 1; null while the folder is walked. */
  progress: number | null;
  /** Over the last seconds; after the end over the whole run. */
  images_per_second: number | null;
  eta_seconds: number | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  /** Why the run itself failed. */
  error: ErrorSummary | null;
  links: {
    self: string;
    results: string;
    skipped: string;
    events: string;
    cancel: string;
    summary: string;
    entries: string;
    report: string;
  };
}
