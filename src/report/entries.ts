/** The entries of a run that have ended, a page at a time: filtered, sorted, read from its results without an index. */
import { setImmediate as yieldToOthers } from "node:timers/promises";
import { durationOf, nameOf } from "../bulk/countedResults.ts";
import { LINE_BEGINNING, readResults } from "../bulk/resultsFile.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import type { BulkEntryPage, BulkEntryResult, EntrySort } from "../core/bulkSummary.ts";
import { parseJson } from "../core/json.ts";
import { bulkEntryLinks } from "../core/links.ts";
import { BadInputError } from "../errors.ts";
import { findingsOf } from "../imil/response.ts";

/** Bytes of results that one page in the order of lines looks through; then it ends, with fewer entries than asked for. */
const MAX_SCANNED = 64 * 1024 * 1024;
/** Lines after which others get their turn. */
const LINES_A_TURN = 500;

export interface EntryQuery {
  status?: BulkResult["status"] | undefined;
  /** Only entries with a finding of this label; with scores, one that has both. */
  label?: string | undefined;
  min_score?: number | undefined;
  max_score?: number | undefined;
  sort: EntrySort;
  limit: number;
  cursor?: string | undefined;
}

interface Found {
  value: number;
  at: number;
  text: string;
}

/**
 * @param isOver whether the run has ended, so that no lines will follow
 * @throws BadInputError where the cursor is none of this order
 */
export async function readEntryPage(
  run: string,
  resultsFile: string,
  query: EntryQuery,
  isOver: boolean,
): Promise<BulkEntryPage> {
  return query.sort === "line"
    ? readInOrder(run, resultsFile, query, isOver)
    : readSorted(run, resultsFile, query);
}

async function readInOrder(
  run: string,
  resultsFile: string,
  query: EntryQuery,
  isOver: boolean,
): Promise<BulkEntryPage> {
  const [from] = readCursor(query, 1) ?? [0];
  const entries: BulkEntryResult[] = [];
  let next = from!;
  let lines = 0;
  for await (const { text, at, end } of readResults(resultsFile, from)) {
    if (entries.length === query.limit || at - from! > MAX_SCANNED)
      return { entries, next_cursor: writeCursor([at]) };
    if (match(text, query)) entries.push(entryOf(run, parseResult(text), at, query.label));
    next = end;
    if (++lines % LINES_A_TURN === 0) await yieldToOthers();
  }
  return { entries, next_cursor: isOver ? null : writeCursor([next]) };
}

/** One pass over all of them for each page, in which no more than two pages are kept. */
async function readSorted(run: string, resultsFile: string, query: EntryQuery): Promise<BulkEntryPage> {
  const { sort, limit, label } = query;
  const sign = sort.startsWith("-") ? -1 : 1;
  const order = (a: Pick<Found, "value" | "at">, b: Pick<Found, "value" | "at">) =>
    sign * (a.value - b.value) || a.at - b.at;
  const cursor = readCursor(query, 2);
  const after = cursor && { value: cursor[0]!, at: cursor[1]! };
  let best: Found[] = [];
  let lines = 0;
  for await (const { text, at } of readResults(resultsFile)) {
    if (++lines % LINES_A_TURN === 0) await yieldToOthers();
    const result = match(text, query);
    if (!result) continue;
    const { duration_ms, score } = measure(result, label);
    const value = sort === "-duration" ? duration_ms : score;
    if (value === null || (after && order({ value, at }, after) <= 0)) continue;
    best.push({ value, at, text });
    if (best.length > 2 * limit + 2) best = best.toSorted(order).slice(0, limit + 1);
  }
  const page = best.toSorted(order).slice(0, limit);
  const last = page.at(-1);
  return {
    entries: page.map(({ text, at }) => entryOf(run, parseResult(text), at, label)),
    next_cursor: last && best.length > limit ? writeCursor([last.value, last.at]) : null,
  };
}

/** With every number of the response as it was written. */
function parseResult(text: string): BulkResult {
  return parseJson(text) as BulkResult;
}

function match(text: string, { status, label, min_score, max_score }: EntryQuery): BulkResult | undefined {
  if (status !== undefined && LINE_BEGINNING.exec(text)?.[2] !== status) return undefined;
  const result = JSON.parse(text) as BulkResult;
  if (label === undefined && min_score === undefined && max_score === undefined) return result;
  const isWanted = findingsOf(result.result).some(
    ({ Lb, Cs }) =>
      (label === undefined || Lb === label) &&
      (min_score === undefined || Cs >= min_score) &&
      (max_score === undefined || Cs <= max_score),
  );
  return isWanted ? result : undefined;
}

function measure(result: BulkResult, label: string | undefined) {
  const { timings } = result;
  return { duration_ms: timings ? durationOf(timings) : null, score: bestScore(result, label) };
}

/** Of its findings, or of those with a label; null without any. */
export function bestScore({ result }: BulkResult, label?: string): number | null {
  const scores = findingsOf(result)
    .filter(({ Lb }) => label === undefined || Lb === label)
    .map(({ Cs }) => Cs)
    .filter((score) => typeof score === "number");
  return scores.length > 0 ? scores.reduce((a, b) => Math.max(a, b)) : null;
}

/** @param at where its line begins in the results */
export function entryOf(run: string, result: BulkResult, at: number, label?: string): BulkEntryResult {
  const { index, line, status, error, outputs, timings, finished_at } = result;
  // A folder that can't be opened has a line, too.
  const hasPicture = !result.path?.endsWith("/");
  return {
    ...nameOf(result),
    id: `${run}-${index}`,
    line,
    status,
    ...("result" in result && { response: result.result }),
    ...(outputs && { outputs }),
    ...(error && { error }),
    ...(timings && { timings }),
    ...measure(result, label),
    finished_at: finished_at ?? null,
    links: hasPicture ? bulkEntryLinks(run, index, at) : { thumbnail: null, picture: null },
  };
}

/**
 * The result of one entry, and where its line begins; undefined where it has not ended.
 * @param at where it may begin
 */
export async function findResult(
  resultsFile: string,
  index: number,
  at?: number,
): Promise<{ result: BulkResult; at: number } | undefined> {
  for (const from of at === undefined ? [0] : [at, 0]) {
    for await (const { text, at: place } of readResults(resultsFile, from)) {
      if (Number(LINE_BEGINNING.exec(text)?.[1]) === index) return { result: parseResult(text), at: place };
      if (from > 0) break;
    }
  }
  return undefined;
}

function writeCursor(numbers: readonly number[]): string {
  return Buffer.from(JSON.stringify(numbers)).toString("base64url");
}

function readCursor({ cursor, sort }: EntryQuery, length: number): number[] | undefined {
  if (cursor === undefined) return undefined;
  try {
    const numbers = JSON.parse(Buffer.from(cursor, "base64url").toString()) as unknown;
    if (Array.isArray(numbers) && numbers.length === length && numbers.every(Number.isFinite))
      if (Number.isSafeInteger(numbers.at(-1)) && (numbers.at(-1) as number) >= 0) return numbers as number[];
  } catch {
    // Said below.
  }
  throw new BadInputError(`cursor must be the next_cursor of a page with sort=${sort}`);
}
