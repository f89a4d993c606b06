/**
 * Results as CSV: a row for each finding, and one for an entry without any. What failed says so in its row and has no
 * number of findings, so that it can't be taken for an entry in which nothing was found.
 */
import { stringify } from "csv-stringify/sync";
import { durationOf } from "../bulk/countedResults.ts";
import { readResults } from "../bulk/summary.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import { formatJson } from "../core/json.ts";
import type { Finding } from "../imil/dictionaries.ts";
import { findingsOf } from "../imil/response.ts";

type Cell = string | number | undefined;

/** In this order; those of boxes are fractions of the upright picture. */
const COLUMNS = [
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

type Row = Partial<Record<(typeof COLUMNS)[number], Cell>>;

/** Rows that are written together. */
const ROWS_A_BLOCK = 500;

/** With a line of headings; what a spreadsheet would take for a formula begins with "'". */
export async function* writeCsv(resultsFile: string): AsyncGenerator<string> {
  yield `${COLUMNS.join(",")}\n`;
  let rows: Row[] = [];
  for await (const { text } of readResults(resultsFile)) {
    rows.push(...rowsOf(JSON.parse(text) as BulkResult));
    if (rows.length < ROWS_A_BLOCK) continue;
    yield format(rows);
    rows = [];
  }
  yield format(rows);
}

function format(rows: readonly Row[]): string {
  // A path or a label may come from anyone.
  return stringify(
    rows.map((row) => COLUMNS.map((column) => row[column])),
    { escape_formulas: true },
  );
}

function rowsOf(entry: BulkResult): Row[] {
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
  // Of a model that has no findings, what it answered.
  if (!Array.isArray(result?.["Fs"])) return [{ ...shared, result: formatJson(result ?? null) }];
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
