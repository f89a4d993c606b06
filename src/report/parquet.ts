/** Results as Parquet, by the rows of `rows.ts`: a column has one type, and what a row has not is null. */
import { ByteWriter, ParquetWriter, schemaFromColumnData, type BasicType } from "hyparquet-writer";
import { readResults } from "../bulk/resultsFile.ts";
import { COLUMNS, rowsOf, type Row } from "./rows.ts";

/** Of a row group: what is held in memory. */
const MAX_ROWS = 20_000;
const MAX_CHARACTERS = 16 * 1024 * 1024;

const TYPES: Readonly<Record<(typeof COLUMNS)[number], BasicType>> = {
  index: "INT32",
  path: "STRING",
  custom_id: "STRING",
  status: "STRING",
  findings: "INT32",
  finding: "INT32",
  label: "STRING",
  score: "DOUBLE",
  x: "DOUBLE",
  y: "DOUBLE",
  width: "DOUBLE",
  height: "DOUBLE",
  angle: "DOUBLE",
  value: "DOUBLE",
  picture: "STRING",
  result: "STRING",
  error_code: "STRING",
  error_detail: "STRING",
  duration_ms: "DOUBLE",
  finished_at: "TIMESTAMP",
};

export async function* writeParquet(resultsFile: string): AsyncGenerator<Uint8Array> {
  const writer = new ByteWriter();
  // What was written is given on and forgotten; places in the file count from its beginning all the same.
  const take = () => {
    const bytes = writer.getBytes().slice();
    writer.index = 0;
    return bytes;
  };
  const schema = schemaFromColumnData({ columnData: columnsOf([]) });
  const parquet = new ParquetWriter({ writer, schema, createdBy: "infermill" });
  let rows: Row[] = [];
  let characters = 0;
  for await (const { text } of readResults(resultsFile)) {
    rows.push(...rowsOf(text));
    characters += text.length;
    if (rows.length < MAX_ROWS && characters < MAX_CHARACTERS) continue;
    await parquet.write({ columnData: columnsOf(rows), rowGroupSize: rows.length });
    yield take();
    rows = [];
    characters = 0;
  }
  if (rows.length > 0) await parquet.write({ columnData: columnsOf(rows), rowGroupSize: rows.length });
  await parquet.finish();
  yield take();
}

function columnsOf(rows: readonly Row[]) {
  return COLUMNS.map((name) => ({
    name,
    type: TYPES[name],
    nullable: true,
    data: rows.map((row) => cellOf(row[name], TYPES[name])),
  }));
}

function cellOf(cell: Row[keyof Row], type: BasicType): string | number | Date | null {
  if (cell === undefined || cell === null) return null;
  if (type === "TIMESTAMP") return new Date(cell);
  return type === "STRING" ? String(cell) : Number(cell);
}
