/**
 * Results as rows of a table: one for each finding, and one for an entry without any. What failed says so in its row and
 * has no number of findings, so that it can't be taken for an entry in which nothing was found.
 */
import { durationOf } from "../bulk/countedResults.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import { formatJson, parseJson } from "../core/json.ts";
import type { Finding } from "../imil/dictionaries.ts";
import { findingsOf } from "../imil/response.ts";

type Cell = string | number | undefined;

/** In this order; those of boxes are fractions of the upright picture. */
export const COLUMNS = [
  "index",
  "path",
  "custom_id",
  "status",
  "findings",
  "finding",
  "label",
  "score",
  "x",
  "y",
  "width",
  "height",
  "angle",
  "value",
  "picture",
  "result",
  "error_code",
  "error_detail",
  "duration_ms",
  "finished_at",
] as const;

export type Row = Partial<Record<(typeof COLUMNS)[number], Cell>>;

/** @param line of the results */
export function rowsOf(line: string): Row[] {
  const entry = JSON.parse(line) as BulkResult;
  const { index, path, custom_id, status, error, timings, finished_at, result } = entry;
  const shared: Row = {
    index,
    path,
    custom_id,
    status,
    error_code: error?.code,
    error_detail: error?.detail,
    duration_ms: timings && durationOf(timings),
    finished_at,
  };
  if (status === "failed") return [shared];
  if (!Array.isArray(result?.["Fs"])) {
    // Of a model that has no findings, what it answered, with every number as it was written.
    const { result: exact = null } = parseJson(line) as BulkResult;
    return [{ ...shared, result: formatJson(exact) }];
  }
  const findings = findingsOf(result);
  if (findings.length === 0) return [{ ...shared, findings: 0 }];
  return findings.map((finding, at) => ({
    ...shared,
    findings: findings.length,
    finding: at,
    ...cellsOf(finding),
  }));
}

function cellsOf({ Lb, Cs, Dm, Rb, Value, Info, Vector }: Finding): Row {
  return {
    label: Lb,
    score: Cs,
    ...("W" in Dm && { x: Dm.X, y: Dm.Y, width: Dm.W, height: Dm.H }),
    angle: Rb?.Angle,
    value: Value,
    picture: Info,
    result: Vector && JSON.stringify(Vector),
  };
}
