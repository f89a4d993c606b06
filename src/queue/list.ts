/**
 * The list of the predictions of all models, page by page: those that have not ended, the newest first, then those that
 * ended, the last first. It reads neither requests nor large responses.
 */
import { InvalidRequestError } from "../errors.ts";
import { thumbnailLink, predictionLinks } from "../core/links.ts";
import type { PredictionEntry, Status } from "../core/prediction.ts";
import { reachRedis } from "../redis/connections.ts";
import { END_FIELDS, endedJobOf, endMarkOf, toIsoTime, type Completion } from "./jobs.ts";
import { queueOf, type PredictionStore } from "./predictionStore.ts";
import { SEARCHED, WAITING_SCORES, errorOf, statusOf } from "./read.ts";

export interface ListOptions {
  /** Default: all. */
  models: readonly string[];
  status?: Status | undefined;
  limit: number;
  /** Of the page before. */
  cursor?: string | undefined;
}

export interface Listed {
  entries: PredictionEntry[];
  /** null where this is the last page. */
  nextCursor: string | null;
}

/** Where a page begins: behind so many that have not ended, or behind one that ended. */
type Cursor = { skipped: number } | Ended;

interface Ended {
  /** Unix time in ms. */
  endedOn: number;
  id: string;
  model: string;
}

/** Before all that ended. */
const FIRST_ENDED = "ended-999999999999999-~";

/** @throws InvalidRequestError where the cursor is none */
export async function listEntries(store: PredictionStore, options: ListOptions): Promise<Listed> {
  const { limit } = options;
  const cursor = parseCursor(options.cursor);
  const entries: PredictionEntry[] = [];
  if ("skipped" in cursor) {
    const open = await listOpen(store, options, cursor.skipped + limit + 1);
    entries.push(...open.slice(cursor.skipped, cursor.skipped + limit));
    const seen = cursor.skipped + limit;
    if (open.length > seen && seen < SEARCHED) return { entries, nextCursor: `open-${seen}` };
  }
  const from = "skipped" in cursor ? undefined : cursor;
  const ended = await listEnded(store, { ...options, limit: limit - entries.length }, from);
  return { entries: [...entries, ...ended.entries], nextCursor: ended.nextCursor };
}

const CURSOR = /^(?:open-(\d{1,6})|ended-(\d{1,15})-([\w.-]{0,128})~([\w.-]*))$/;

function parseCursor(text: string | undefined): Cursor {
  if (text === undefined) return { skipped: 0 };
  const [, skipped, endedOn, id, model] = CURSOR.exec(text) ?? [];
  if (skipped !== undefined) return { skipped: Number(skipped) };
  if (endedOn !== undefined) return { endedOn: Number(endedOn), id: id!, model: model! };
  throw new InvalidRequestError([
    { key: "cursor", problem: `must be the next_cursor of a page, got ${JSON.stringify(text.slice(0, 80))}` },
  ]);
}

/** Up to `count` that have not ended, the newest first. */
async function listOpen(
  store: PredictionStore,
  { models, status }: ListOptions,
  count: number,
): Promise<PredictionEntry[]> {
  // One that is cancelled while it runs stays among those that run until its worker is done with it.
  const states = { queued: ["waiting"], running: ["active"], cancelled: ["active"] };
  const searched = status === undefined ? ["waiting", "active"] : (states[status as "queued"] ?? []);
  const last = Math.min(count, SEARCHED) - 1;
  const found = await Promise.all(
    models.flatMap((model) =>
      searched.map(async (state) => {
        const ids = await (state === "active" ? activeIds(store, model) : waitingIds(store, model, last));
        return readEntries(store, model, ids, state === "active");
      }),
    ),
  );
  // One that was taken meanwhile was found in both states.
  const once = new Map(found.flat().map((entry) => [`${entry.model}:${entry.id}`, entry]));
  return [...once.values()]
    .filter((entry) => (status === undefined ? entry.finished_at === null : entry.status === status))
    .toSorted((a, b) => b.created_at.localeCompare(a.created_at) || b.id.localeCompare(a.id))
    .slice(0, count);
}

function activeIds(store: PredictionStore, model: string): Promise<string[]> {
  return reachRedis(() => store.redis.lrange(queueOf(store, model).toKey("active"), 0, SEARCHED - 1));
}

/** The newest of each place where they wait. */
async function waitingIds(store: PredictionStore, model: string, last: number): Promise<string[]> {
  const { redis } = store;
  const toKey = (state: string) => queueOf(store, model).toKey(state);
  const ids = await reachRedis(() =>
    Promise.all([
      redis.lrange(toKey("wait"), 0, last),
      redis.zrange(toKey("delayed"), 0, String(last), "REV"),
      ...WAITING_SCORES.map(([least, most]) =>
        redis.zrevrangebyscore(toKey("prioritized"), most, least, "LIMIT", 0, last + 1),
      ),
    ]),
  );
  return ids.flat();
}

async function listEnded(
  store: PredictionStore,
  { models, status, limit }: ListOptions,
  from: Ended | undefined,
): Promise<Listed> {
  const sets = models.flatMap((model) => setsOf(status).map((set) => ({ model, set })));
  const entries: PredictionEntry[] = [];
  let after = from;
  let searched = 0;
  while (sets.length > 0) {
    if (entries.length >= limit || searched >= SEARCHED)
      return { entries, nextCursor: after ? cursorOf(after) : FIRST_ENDED };
    const count = Math.max(limit - entries.length, status === undefined ? 0 : MIN_PAGE);
    const found = (
      await Promise.all(sets.map(({ model, set }) => endedIn(store, model, set, after, count)))
    ).flat();
    const page = found.toSorted(lastFirst).slice(0, count);
    if (page.length === 0) break;
    const described = await readAcross(store, page);
    for (const [index, entry] of described.entries()) {
      if (entries.length === limit) break;
      after = page[index]!;
      searched++;
      if (entry && (status === undefined || entry.status === status)) entries.push(entry);
    }
  }
  return { entries, nextCursor: null };
}

/** Those that ended with some status are among others: so many are looked at a time. */
const MIN_PAGE = 20;

/** Several can have ended in one millisecond; Redis keeps those of a set in the order of their ids. */
function lastFirst(a: Ended, b: Ended): number {
  return b.endedOn - a.endedOn || descending(a.id, b.id) || descending(a.model, b.model);
}

function descending(a: string, b: string): number {
  return a < b ? 1 : a > b ? -1 : 0;
}

function cursorOf({ endedOn, id, model }: Ended): string {
  return `ended-${endedOn}-${id}~${model}`;
}

/** BullMQ's sets in which those with a status are once their jobs have ended. */
function setsOf(status: Status | undefined): string[] {
  if (status === "queued" || status === "running") return [];
  if (status === "succeeded") return ["completed"];
  return status === undefined || status === "cancelled" ? ["completed", "failed"] : ["failed"];
}

/** The last `count` of a set, of those that ended before. */
async function endedIn(
  store: PredictionStore,
  model: string,
  set: string,
  before: Ended | undefined,
  count: number,
): Promise<Ended[]> {
  const key = queueOf(store, model).toKey(set);
  const found: Ended[] = [];
  for (let offset = 0; found.length < count; offset += count) {
    const most = before?.endedOn ?? "+inf";
    const pairs = await reachRedis(() =>
      store.redis.zrevrangebyscore(key, most, "-inf", "WITHSCORES", "LIMIT", offset, count),
    );
    for (let index = 0; index < pairs.length; index += 2) {
      const ended = { model, id: pairs[index]!, endedOn: Number(pairs[index + 1]) };
      if (!before || lastFirst(before, ended) < 0) found.push(ended);
    }
    if (pairs.length < 2 * count) break;
  }
  return found.slice(0, count);
}

/** What each is, in their order; undefined of one that was removed meanwhile. */
async function readAcross(
  store: PredictionStore,
  page: readonly Ended[],
): Promise<(PredictionEntry | undefined)[]> {
  const read = new Map<string, PredictionEntry>();
  await Promise.all(
    [...new Set(page.map(({ model }) => model))].map(async (model) => {
      const ids = page.flatMap((ended) => (ended.model === model ? [ended.id] : []));
      for (const entry of await readEntries(store, model, ids, false))
        read.set(`${model}:${entry.id}`, entry);
    }),
  );
  return page.map(({ model, id }) => read.get(`${model}:${id}`));
}

async function readEntries(
  store: PredictionStore,
  model: string,
  ids: readonly string[],
  isRunning: boolean,
): Promise<PredictionEntry[]> {
  const toKey = queueOf(store, model).toKey;
  const [hashes, thumbnails] = await Promise.all([
    reachRedis(() => Promise.all(ids.map((id) => store.redis.hmget(toKey(id), ...END_FIELDS)))),
    store.thumbnails.has(model, ids),
  ]);
  return ids.flatMap((id, index) => {
    const fields = hashes[index]!;
    if (fields[0] == null) return [];
    const job = endedJobOf(fields);
    const status = statusOf(job, isRunning);
    const mark = endMarkOf(job);
    const timings = status === "succeeded" ? job.returnvalue.timings : undefined;
    return {
      id,
      model,
      status,
      created_at: new Date(job.timestamp).toISOString(),
      started_at: toIsoTime(job.processedOn),
      finished_at: toIsoTime(mark?.ended_on ?? job.finishedOn),
      wait_ms: timings?.queue_ms ?? waitOf(job, status),
      run_ms: timings ? sumOfRun(timings) : null,
      attempts: job.attemptsStarted,
      batch_size: timings ? job.returnvalue.batch_size : null,
      engine: timings ? job.returnvalue.engine : null,
      error: errorOf(status, job),
      links: {
        ...predictionLinks(model, id),
        ...(thumbnails[index] && { thumbnail: thumbnailLink(model, id) }),
      },
    };
  });
}

function waitOf(
  { timestamp, processedOn }: { timestamp: number; processedOn?: number | undefined },
  status: Status,
): number | null {
  if (processedOn !== undefined) return Math.max(0, processedOn - timestamp);
  return status === "queued" || status === "running" ? Math.max(0, Date.now() - timestamp) : null;
}

function sumOfRun({ read_ms, preprocess_ms, infer_ms, postprocess_ms }: Completion["timings"]): number {
  return Math.round(100 * (read_ms + preprocess_ms + infer_ms + postprocess_ms)) / 100;
}
