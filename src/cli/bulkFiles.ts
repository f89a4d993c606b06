/** The files that a bulk run can leave beside its results: its report, and the results in other formats. */
import { access, constants, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { isStorageUrl } from "../config/storagePlace.ts";
import { FILE_ENDINGS, FORMATS, MEDIA_TYPES, type ResultsFormat } from "../report/formats.ts";
import { UsageError } from "./exit.ts";

export type OtherFormat = Exclude<ResultsFormat, "ndjson">;

/** What is asked for beside the results. */
export interface FilesBeside {
  /** Absolute path or s3:// URL of the report. */
  report?: string | undefined;
  formats: readonly OtherFormat[];
}

/** Where the content of such a file comes from. */
export interface FileSources {
  report: () => Promise<string>;
  results: (format: OtherFormat) => Promise<AsyncIterable<string | Uint8Array>>;
  /** Where what goes into object storage is written first, and what uploads it. */
  upload?: { folder: string; put: (file: string, url: string, mediaType: string) => Promise<void> };
}

/** @throws UsageError where a format is unknown, or the report's folder can't be written to */
export async function readFilesBeside(options: {
  report?: string | undefined;
  format?: string | undefined;
}): Promise<FilesBeside> {
  const names = (options.format ?? "").split(",").map((name) => name.trim().toLowerCase());
  const known: readonly string[] = FORMATS;
  const unknown = names.filter((name) => name !== "" && !known.includes(name));
  if (unknown.length > 0)
    throw new UsageError(
      `--format must be ${FORMATS.join(", ")} or several separated by commas, got ${unknown.join(", ")}`,
    );
  const formats = FORMATS.filter((format) => format !== "ndjson" && names.includes(format)) as OtherFormat[];
  const isUrl = options.report !== undefined && isStorageUrl(options.report);
  const report = options.report === undefined || isUrl ? options.report : resolve(options.report);
  if (report !== undefined && !isUrl)
    await access(dirname(report), constants.W_OK).catch((error: Error) => {
      throw new UsageError(`the report can't be written: ${error.message}`);
    });
  return { report, formats };
}

/**
 * Writes what is asked for, each whole or not at all.
 * @returns whether all could be written
 */
export async function writeFilesBeside(
  { report, formats }: FilesBeside,
  resultsFile: string,
  sources: FileSources,
): Promise<boolean> {
  let isWhole = true;
  const write = async (
    name: string,
    path: string,
    mediaType: string,
    read: () => Promise<string | AsyncIterable<string | Uint8Array>>,
  ) => {
    const { upload } = sources;
    const part = upload && isStorageUrl(path) ? join(upload.folder, `${name}.part`) : `${path}.part`;
    try {
      await writeFile(part, await read());
      if (upload && isStorageUrl(path)) {
        await upload.put(part, path, mediaType);
        await rm(part);
      } else {
        await rename(part, path);
      }
      console.log(`${name.padEnd(15)}${path}`);
    } catch (error) {
      await rm(part, { force: true });
      console.error(`infermill: ${name} can't be written: ${(error as Error).message}`);
      isWhole = false;
    }
  };
  for (const format of formats) {
    const path = `${resultsFile.replace(/\.(nd)?jsonl?$/i, "")}${FILE_ENDINGS[format]}`;
    await write(format, path, MEDIA_TYPES[format], () => sources.results(format));
  }
  if (report !== undefined) await write("report", report, "text/html; charset=utf-8", sources.report);
  return isWhole;
}
