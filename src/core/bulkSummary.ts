/** What came out of a bulk run, as clients see it: its summary, and its entries a page at a time. */
import type { ErrorSummary } from "../errors.ts";
import type { BulkResult, BulkRun, SkippedLine, SkipReason } from "./bulkRun.ts";
import type { PredictionOutput, Timings } from "./prediction.ts";
import type { ResponseDictionary } from "./request.ts";

/** Where the time of an entry goes, in the order in which it passes. */
export const STAGES = ["queue", "read", "preprocess", "infer", "postprocess"] as const;

export type Stage = (typeof STAGES)[number];

/** Bins of the histogram of scores: of 0 to 1, each as wide. */
export const SCORE_BINS = 20;

/** What an entry is recognised by. */
export interface EntryName {
  index: number;
  /** Of a file, below the run's folder. */
  path?: string;
  /** Of a manifest's entry. */
  custom_id?: string;
}

export interface StageSummary {
  stage: Stage;
  /** Milliseconds; an entry's stage takes as long as its batch's. Quantiles are exact to 3 %. */
  mean_ms: number;
  p50_ms: number;
  p95_ms: number;
  max_ms: number;
  /** Of the time in the engine, 0 to 1; of `queue`, which is none of it, null. */
  share: number | null;
}

export interface LabelSummary {
  label: string;
  /** Findings. */
  count: number;
  /** Entries with at least one of them. */
  entries: number;
  mean_score: number;
  /** `#rrggbb`, as it is drawn everywhere. */
  colour: string;
}

export interface FailureSummary {
  code: string;
  title: string;
  /** The details of the failures, with what differs from one to the next left out as "…". */
  reason: string;
  count: number;
  /** The first few. */
  examples: (EntryName & { detail: string })[];
}

/** Annotated copies of a run's pictures. */
export interface CopyCounts {
  drawn: number;
  failed: number;
  /** Why the first one could not be drawn. */
  first_failure: string | null;
}

/** The model as it was configured when the run began. */
export interface UsedModel {
  /** Of infermill. */
  version: string;
  loader: string;
  /** Without what may be secret in an address. */
  model_path: string[];
  device: string[];
  /** Numbers and switches of its section of the configuration. */
  settings: Record<string, number | boolean | readonly (string | number)[]>;
}

/** `GET /v1/bulk/{run}/summary` */
export interface BulkSummary {
  run: BulkRun;
  /** "204 of 205, 1 failed, 17 s, 12.2/s" */
  verdict: string;
  counts: {
    total: number;
    done: number;
    succeeded: number;
    failed: number;
    skipped: number;
    findings: number;
    /** Entries that succeeded and in which nothing was found; 0 where the model has no findings. */
    without_findings: number;
  };
  /** Time that was worked, without interruptions; null before the run is begun. */
  seconds: number | null;
  /** Entries a second over that time. */
  per_second: number | null;
  /** Entries by the time at which they ended, at most 120 points; empty for lines of an older version. */
  rate: { interval_seconds: number; points: { at: string; succeeded: number; failed: number }[] };
  /** Of the entries that succeeded. */
  stages: StageSummary[];
  /** The most frequent, at most 100. */
  labels: LabelSummary[];
  /** Labels that are not in `labels`. */
  more_labels: number;
  /** Of all findings; null where there are none. `bins[0]` counts those below 0.05, the last those from 0.95 on. */
  scores: { bins: number[]; mean: number; min: number; max: number } | null;
  /** The most frequent, at most 50. */
  failures: FailureSummary[];
  /** Entries that failed for other reasons than those. */
  more_failures: number;
  /** The longest in the engine, at most 20; without the wait in the queue. */
  slowest: (EntryName & { duration_ms: number })[];
  /** What was found in the folder and left out. */
  left_out: { reason: SkipReason; count: number; examples: SkippedLine[] }[];
  /** Annotated copies of a server's run that has ended; null where none were asked for. */
  copies: CopyCounts | null;
  configuration: {
    model: string;
    /** null for a run of an older version. */
    used: UsedModel | null;
    /** `<root>/<path>` or an absolute path; null for a manifest. */
    folder: string | null;
    glob: string | null;
    /** Keys of the request dictionary of every entry. */
    request: Record<string, unknown>;
    /** Where annotated copies go, or null. */
    annotate: string | null;
    /** Whether it was started by a command on the machine of its files. */
    from_command_line: boolean;
  };
}

/** One entry that has ended, in `GET /v1/bulk/{run}/entries`. */
export interface BulkEntryResult extends EntryName {
  /** Of its prediction: `<run>-<index>`. */
  id: string;
  /** Of its line in the results, from 1. */
  line: number;
  status: BulkResult["status"];
  /** The response dictionary of one that succeeded. */
  response?: ResponseDictionary | null;
  outputs?: PredictionOutput[];
  error?: ErrorSummary;
  timings?: Timings;
  /** Milliseconds in the engine, without the wait in the queue; null where it failed. */
  duration_ms: number | null;
  /** The best score of its findings, of those with `label` where that is asked for; null without any. */
  score: number | null;
  finished_at: string | null;
  /** null where the entry's picture can't be reached from here. */
  links: { thumbnail: string | null; picture: string | null };
}

export const ENTRY_SORTS = ["line", "-duration", "score", "-score"] as const;

export type EntrySort = (typeof ENTRY_SORTS)[number];

/** `GET /v1/bulk/{run}/entries` */
export interface BulkEntryPage {
  entries: BulkEntryResult[];
  /** Continues behind the last entry; null where no more came when it was asked for. */
  next_cursor: string | null;
}
