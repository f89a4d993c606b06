/** What a bulk run is: what was asked for, how it stands, and what it looks like to clients. */

import type { RootedPath } from "../config/bulkRoots.ts";
import type { BulkLimits } from "../core/bulkOptions.ts";
import type { RequestDictionary } from "../core/request.ts";
import type { Webhook } from "../queue/deliveries.ts";
import type { InputRef } from "../queue/inputs.ts";
import type { Priority } from "../core/prediction.ts";

/** What was asked for; written once, as `run.json`. */
export interface BulkSpec {
  id: string;
  model: string;
  source:
    | {
        kind: "folder";
        /** A root of `bulk_roots`; undefined for a folder of the command line. */
        root?: string | undefined;
        /** Below its root, or an absolute path or s3:// URL where there is none. */
        folder: string;
        glob?: string | undefined;
      }
    | { kind: "manifest" };
  /** Keys for the request dictionary of every entry. */
  request: RequestDictionary;
  priority: Priority;
  limits?: BulkLimits;
  metadata?: Record<string, string>;
  /** Unix time in ms. */
  created: number;
  /** The client's, under which the run is started once only. */
  idempotency_key?: string;
  webhook?: Webhook | undefined;
  /** Absolute path of the results, where they are not to lie in the run's own folder. */
  results_file?: string;
  /** Where the results go at the end, of a run of the command line that writes into object storage. */
  results_url?: string;
  /** The file for the results below one of `results_roots`, of a run of a server. */
  results?: RootedPath | undefined;
  /** Absolute path or s3:// URL of the folder for annotated copies, of a run of the command line. */
  annotate_folder?: string;
  /** The folder for annotated copies below one of `annotate_roots`, of a run of a server. */
  annotate?: RootedPath | undefined;
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

export function folderName(spec: BulkSpec): string | null {
  const { source } = spec;
  if (source.kind === "manifest") return null;
  return source.root === undefined ? source.folder : [source.root, source.folder].filter(Boolean).join("/");
}
