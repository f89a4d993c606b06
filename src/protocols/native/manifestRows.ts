/** Manifests as they arrive: lines of JSON, rows of CSV, rows of Parquet. What a row must hold is `manifest.ts`'s to say. */
import { mkdir, open, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { AsyncBuffer } from "hyparquet";
import { parseJson, type ManifestForm } from "../../api/body/read.ts";
import { BodyTooLargeError } from "../../api/problems.ts";
import { splitLines } from "../../bulk/lines.ts";
import type { Config } from "../../config/schema.ts";
import { sniffPicture } from "../../core/pictureFormats.ts";
import { toUtf8 } from "../../core/text.ts";
import { BadInputError } from "../../errors.ts";

/** One entry as it stands there, still to be checked. */
export interface ManifestRow {
  /** "line 3", "row 3". */
  place: string;
  /** @throws BadInputError where it is not even JSON */
  read: () => unknown;
}

/** @throws BadInputError where the whole can't be read, BodyTooLargeError */
export function readRows(
  form: ManifestForm,
  body: AsyncIterable<Buffer>,
  config: Config,
): AsyncGenerator<ManifestRow> {
  if (form === "csv") return readCsv(body, config);
  return form === "parquet" ? readParquet(body, config) : readLines(body, config);
}

async function* readLines(body: AsyncIterable<Buffer>, config: Config): AsyncGenerator<ManifestRow> {
  for await (const { text, number } of splitLines(toUtf8(body), config.max_body_bytes))
    if (text.trim() !== "") yield { place: `line ${number}`, read: () => parseJson(text, "it") };
}

/** Columns `image`, `custom_id` and `request`, the last as JSON; an empty cell is none. */
async function* readCsv(body: AsyncIterable<Buffer>, config: Config): AsyncGenerator<ManifestRow> {
  const { parse } = await import("csv-parse");
  const parser = parse({
    columns: (names: string[]) => names.map((name) => name.trim()),
    bom: true,
    skip_empty_lines: true,
    max_record_size: config.max_body_bytes,
    info: true,
  });
  const feeding = pipeline(Readable.from(toUtf8(body)), parser);
  // Its fault is that of the parser, which is met below.
  feeding.catch(() => {});
  try {
    for await (const { record, info } of parser as AsyncIterable<{
      record: Record<string, string>;
      info: { lines: number };
    }>)
      yield { place: `line ${info.lines}`, read: () => rowOf(record) };
    await feeding;
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (!code?.startsWith("CSV_")) throw error;
    throw new BadInputError(`the manifest is no CSV: ${message}`, { cause: error });
  }
}

/** Of Parquet without a type for text, what is no picture is text. */
async function* readParquet(body: AsyncIterable<Buffer>, config: Config): AsyncGenerator<ManifestRow> {
  const { parquetMetadataAsync, parquetReadObjects } = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  const file = await keepBody(body, config);
  try {
    const buffer = await openBuffer(file);
    const metadata = await parquetMetadataAsync(buffer);
    let start = 0;
    for (const { num_rows, total_byte_size } of metadata.row_groups) {
      // A row group is held in memory, and may be many times as large as what came.
      if (total_byte_size > config.max_manifest_bytes)
        throw new BodyTooLargeError(config.max_manifest_bytes, "max_manifest_bytes", "a row group");
      const [rowStart, rowEnd] = [start, start + Number(num_rows)];
      const options = { file: buffer, metadata, compressors, utf8: false, rowStart, rowEnd };
      for (const record of await parquetReadObjects(options)) {
        const row = ++start;
        yield { place: `row ${row}`, read: () => rowOf(record) };
      }
    }
  } catch (error) {
    if (error instanceof BadInputError || error instanceof BodyTooLargeError) throw error;
    throw new BadInputError(`the manifest can't be read as Parquet: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    await file.close();
  }
}

/** In a file without a name, which is gone with the process at the latest: Parquet is read from its end. */
async function keepBody(body: AsyncIterable<Buffer>, { data_dir }: Config): Promise<FileHandle> {
  await mkdir(data_dir, { recursive: true });
  const path = join(data_dir, `manifest-${randomUUID()}`);
  const file = await open(path, "wx+", 0o600);
  try {
    await rm(path);
    for await (const chunk of body) await file.writeFile(chunk);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openBuffer(file: FileHandle): Promise<AsyncBuffer> {
  const { size } = await file.stat();
  return {
    byteLength: size,
    async slice(start, end = size) {
      const bytes = new Uint8Array(Math.max(0, end - start));
      let length = 0;
      while (length < bytes.length) {
        const { bytesRead } = await file.read(bytes, length, bytes.length - length, start + length);
        if (bytesRead === 0) throw new BadInputError("the manifest is cut off");
        length += bytesRead;
      }
      return bytes.buffer;
    },
  };
}

/** The keys of a line of JSON, from a row of a table. */
function rowOf(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(record).flatMap(([key, cell]) => {
      if (cell === null || cell === undefined || cell === "") return [];
      if (key === "image") return [[key, imageOf(cell)]];
      if (key === "custom_id")
        return [[key, isNumber(cell) || cell instanceof Uint8Array ? textOf(cell) : cell]];
      return [[key, key === "request" ? requestOf(cell) : cell]];
    }),
  );
}

/** A name, a URL, base64 or bytes; a list of them, in CSV as JSON; or a picture as data sets have it, `{bytes, path}`. */
function imageOf(cell: unknown): unknown {
  if (Array.isArray(cell)) return cell.map(imageOf);
  if (cell instanceof Uint8Array)
    return sniffPicture(Buffer.from(cell)) ? Buffer.from(cell).toString("base64") : textOf(cell);
  if (typeof cell === "string" && cell.startsWith("[")) return parseJson(cell, "image");
  const { bytes } = cell as { bytes?: unknown };
  return bytes instanceof Uint8Array ? Buffer.from(bytes).toString("base64") : cell;
}

function requestOf(cell: unknown): unknown {
  if (cell instanceof Uint8Array || typeof cell === "string") return parseJson(textOf(cell), "request");
  return plainOf(cell);
}

/** What Parquet has and JSON has not. */
function plainOf(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return textOf(value);
  if (Array.isArray(value)) return value.map(plainOf);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => (inner === null ? [] : [[key, plainOf(inner)]])),
  );
}

function isNumber(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

function textOf(value: number | bigint | string | Uint8Array): string {
  return value instanceof Uint8Array ? Buffer.from(value).toString("utf8") : String(value);
}
