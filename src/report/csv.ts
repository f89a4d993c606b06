/** Results as CSV, by the rows of `rows.ts`. */
import { stringify } from "csv-stringify/sync";
import { readResults } from "../bulk/resultsFile.ts";
import { COLUMNS, rowsOf, type Row } from "./rows.ts";

/** Rows that are written together. */
const ROWS_A_BLOCK = 500;

/** With a line of headings; what a spreadsheet would take for a formula begins with "'". */
export async function* writeCsv(resultsFile: string): AsyncGenerator<string> {
  yield `${COLUMNS.join(",")}\n`;
  let rows: Row[] = [];
  for await (const { text } of readResults(resultsFile)) {
    rows.push(...rowsOf(text));
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
