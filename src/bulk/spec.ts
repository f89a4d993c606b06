/** What a bulk run is: what was asked for, how it stands, and what it looks like to clients. */
import type { ErrorSummary } from "../errors.ts";
import type { RequestDictionary, ResponseDictionary } from "../core/request.ts";
import type { Webhook } from "../queue/deliveries.ts";
import type { InputRef } from "../queue/inputs.ts";
import type { PredictionOutput, Priority, Timings } from "../queue/jobs.ts";

/** What was asked for; written once, as `run.json`. */
export interface BulkSpec {
  id: string;
  model: string;
  source:
    | {
        kind: "folder";
        /** A root of `bulk_roots`; undefined for a folder of the command line. */
        root?: string | undefined;
        /** Below its root, or absolute where there is none. */
        folder: string;
        glob?: string | undefined;
      }
    | { kind: "manifest" };
  /** Keys for the request dictionary of every entry. */
  request: RequestDictionary;
  priority: Priority;
  /** Unix time in ms. */
  created: number;
  webhook?: Webhook | undefined;
  /** Absolute path of the results, where they are not to lie in the run's own folder. */
  results_file?: string;
  /** Absolute path of the folder for annotated copies. */
  annotate_folder?: string;
}

/** One thing to do: a line of `entries.ndjson`. A string is a file below the run's folder. */
export type BulkEntry = string | ManifestEntry;

export interface ManifestEntry {
  custom_id?: string;
  /** Keys of its own, before those of the run. */
  request?: RequestDictionary;
  /** Inputs by reference. */
  refs?: readonly InputRef[];
  /** Inputs that came inside the manifest; stored only while their prediction is in the queue. */
  base64?: string[];
}

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
}

/**
 * `queued`: no coordinator has begun; `walking`: the folder is listed; the last three are final. `failed` means that
 * the run itself could not go on, not that entries failed.
 */
export const BULK_STATUSES = ["queued", "walking", "running", "completed", "cancelled", "failed"] as const;
export type BulkStatus = (typeof BULK_STATUSES)[number];

export function hasEnded(status: BulkStatus): boolean {
  return status === "completed" || status === "cancelled" || status === "failed";
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
  counts: BulkCounts & { done: number };
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
  links: { self: string; results: string; events: string; cancel: string };
}

export function folderName(spec: BulkSpec): string | null {
  const { source } = spec;
  if (source.kind === "manifest") return null;
  return source.root === undefined ? source.folder : [source.root, source.folder].filter(Boolean).join("/");
}
