/**
 * Chunks: entries of a bulk run that travel together as one job of the bulk queue, so that Redis has a part of the work
 * for each of them. Each entry ends by itself: as soon as it has, its outcome is a row of the job's log.
 */
import type { PredictionOutput, Timings } from "../core/prediction.ts";
import type { RequestDictionary, ResponseDictionary } from "../core/request.ts";
import type { ErrorSummary } from "../errors.ts";
import type { InputRef } from "./inputs.ts";

/** Entries of a chunk. More gain next to nothing: Redis costs less than a microsecond for each then. */
export const MAX_CHUNK = 32;

export interface BulkEntryData {
  /** Of the entry in its run, from 0. */
  index: number;
  /** Keys of its own, before those of the chunk. */
  request?: RequestDictionary;
  inputs: InputRef[];
}

/** A chunk's job data. */
export interface BulkChunkData {
  run: string;
  /** Keys for the request dictionary of every entry, without pictures. */
  request: RequestDictionary;
  entries: BulkEntryData[];
  /**
   * A worker of 0.1 takes a job of the bulk queue for one prediction, whose time is over then: it gives it back as
   * expired at once, and the chunk is sent again.
   */
  expires_at: typeof LONG_PAST;
  inputs: [];
}

const LONG_PAST = 1;

export function chunkData(run: string, request: RequestDictionary, entries: BulkEntryData[]): BulkChunkData {
  return { run, request, entries, expires_at: LONG_PAST, inputs: [] };
}

/** Whether a job of the bulk queue is a chunk; else it is the one prediction that a coordinator of 0.1 sent. */
export function isChunk(data: object): data is BulkChunkData {
  return "entries" in data;
}

/** `<run>-<index of the first>_<how many>`: whoever counts entries has the number from the id. */
export function chunkId(run: string, entries: readonly Pick<BulkEntryData, "index">[]): string {
  return `${run}-${entries[0]!.index}_${entries.length}`;
}

/** How an entry ended, as a row: JSON that begins with its index and status, as its line of the results does. */
export function succeededRow(
  index: number,
  {
    response,
    outputs,
    timings,
  }: { response: ResponseDictionary; outputs: readonly PredictionOutput[]; timings: Timings },
): string {
  const beside = outputs.length > 0 ? `,"outputs":${JSON.stringify(outputs)}` : "";
  return `{"index":${index},"status":"succeeded","result":${JSON.stringify(response)}${beside},"timings":${JSON.stringify(timings)},"finished_at":"${now()}"}`;
}

export function failedRow(index: number, error: ErrorSummary, finishedAt = now()): string {
  return `{"index":${index},"status":"failed","error":${JSON.stringify(error)},"finished_at":"${finishedAt}"}`;
}

/** A row in its parts. */
export interface EntryOutcome {
  index: number;
  status: "succeeded" | "failed";
  /** The keys behind these two as JSON, each behind a comma. */
  rest: string;
}

const ROW_BEGINNING = /^\{"index":(\d+),"status":"(succeeded|failed)"/;

/** @throws where the text is no row */
export function readRow(text: string): EntryOutcome {
  const [beginning, index, status] = ROW_BEGINNING.exec(text) ?? [];
  if (beginning === undefined)
    throw new Error(`a row of a chunk's log is ${JSON.stringify(text.slice(0, 100))}`);
  return {
    index: Number(index),
    status: status as EntryOutcome["status"],
    rest: text.slice(beginning.length, -1),
  };
}

let nowMs = 0;
let nowText = "";

/** Tens of thousands of entries end in a second, many in the same millisecond. */
function now(): string {
  const ms = Date.now();
  if (ms !== nowMs) {
    nowMs = ms;
    nowText = new Date(ms).toISOString();
  }
  return nowText;
}
