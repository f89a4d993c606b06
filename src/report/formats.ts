/** The formats in which results can be had beside the lines of JSON that they are. */
import type { BulkRuns } from "../bulk/runs.ts";
import type { StorageConfig } from "../storage/storage.ts";

export const FORMATS = ["ndjson", "csv", "coco", "parquet"] as const;

export type ResultsFormat = (typeof FORMATS)[number];

export const MEDIA_TYPES: Readonly<Record<ResultsFormat, string>> = {
  ndjson: "application/x-ndjson",
  csv: "text/csv; charset=utf-8",
  coco: "application/json",
  parquet: "application/vnd.apache.parquet",
};

export const FILE_ENDINGS: Readonly<Record<ResultsFormat, string>> = {
  ndjson: ".ndjson",
  csv: ".csv",
  coco: ".coco.json",
  parquet: ".parquet",
};

/**
 * What has ended so far, some of it at a time.
 * @throws BulkRunNotFoundError
 * @throws BadInputError where the results have no place in this format
 */
export async function convertResults(
  format: Exclude<ResultsFormat, "ndjson">,
  runs: BulkRuns,
  id: string,
  config: StorageConfig,
): Promise<AsyncIterable<string | Uint8Array>> {
  const spec = await runs.readSpec(id);
  const resultsFile = runs.resultsFile(spec);
  // Loaded when they are asked for: every command and api starts sooner without them.
  if (format === "csv") return (await import("./csv.ts")).writeCsv(resultsFile);
  if (format === "parquet") return (await import("./parquet.ts")).writeParquet(resultsFile);
  const { writeCoco } = await import("./coco.ts");
  return writeCoco({ spec, run: await runs.read(id), folder: runs.folder(id), resultsFile, config });
}
