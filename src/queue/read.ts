/** Predictions as they stand: one, the newest of a model, what each has put out, and how deep a queue is. */
import type { JobType, Queue } from "bullmq";
import { outputLink, predictionLinks } from "../core/links.ts";
import type { Output } from "../core/request.ts";
import { OutputNotFoundError, PredictionCancelledError, PredictionNotFoundError } from "../errors.ts";
import { reachRedis } from "../redis/connections.ts";
import { endPrediction } from "./end.ts";
import {
  endMarkOf,
  failureOf,
  toIsoTime,
  type Completion,
  type EndedJob,
  type PredictionJob,
} from "./jobs.ts";
import {
  isFinal,
  PRIORITIES,
  type Prediction,
  type Status,
  type Timeline,
  type Timings,
} from "../core/prediction.ts";
import { notFound, queueOf, readJob, type PredictionStore } from "./predictionStore.ts";
import { readResponse } from "./responses.ts";

/** BullMQ keeps predictions that ended differently together: this many of them are read for a list. */
export const SEARCHED = 1000;
/** They are read in pages of this many at least. */
const MIN_PAGE = 20;
/** A job's score in BullMQ's set of those that wait is its priority times this, and then counts up. */
const PRIORITY_SCORE = 2 ** 32;
/** The scores of those that wait, from and to, for each priority. */
export const WAITING_SCORES = Object.values(PRIORITIES).map(
  (priority) => [priority * PRIORITY_SCORE, (priority + 1) * PRIORITY_SCORE - 1] as const,
);

export interface QueueDepth {
  waiting: number;
  running: number;
  /** Waiting for another try. */
  delayed: number;
  failed: number;
  completed: number;
}

/** @throws PredictionNotFoundError */
export async function readPrediction(store: PredictionStore, model: string, id: string): Promise<Prediction> {
  const job = await readJob(store, model, id);
  if (!job) throw notFound(store, model, id);
  const hasEnded = job.finishedOn !== undefined || endMarkOf(job) !== undefined;
  if (!hasEnded && isOverdue(job) && (await endPrediction(store, model, id, "expired")))
    return readPrediction(store, model, id);
  const state = hasEnded ? undefined : await reachRedis(() => queueOf(store, model).getJobState(id));
  // It ended between the two looks.
  if (state === "completed" || state === "failed") return readPrediction(store, model, id);
  return describePrediction(store, model, job, state === "active");
}

/**
 * The bytes of one output of a prediction that succeeded.
 * @throws PredictionNotFoundError, OutputNotFoundError
 */
export async function readOutput(
  store: PredictionStore,
  model: string,
  id: string,
  name: string,
): Promise<{ mediaType: string; bytes: Buffer }> {
  const job = await readJob(store, model, id);
  if (!job) throw notFound(store, model, id);
  const refs = job.returnvalue?.outputs ?? [];
  const ref = refs.find((each) => each.name === name);
  const bytes = ref && (await store.outputs.read(ref));
  if (ref && bytes) return { mediaType: ref.media_type, bytes };
  const names = refs.map((each) => each.name).join(", ") || "none";
  throw new OutputNotFoundError(
    `the prediction ${id} has no output ${JSON.stringify(name)}; it has ${names}`,
  );
}

/** @throws OutputNotFoundError */
export async function readBulkOutput(
  store: PredictionStore,
  { id, model }: { id: string; model: string },
  index: string,
  name: string,
): Promise<Buffer> {
  const bytes = await store.outputs.readOf({ model, bulkRun: id, index }, name);
  if (bytes) return bytes;
  throw new OutputNotFoundError(`the entry ${index} of ${id} has no output ${JSON.stringify(name)}`);
}

/**
 * The bytes of all outputs of a prediction.
 * @throws OutputNotFoundError where one is gone
 */
export async function readOutputs(
  store: PredictionStore,
  { model, id, outputs }: Pick<Prediction, "model" | "id" | "outputs">,
): Promise<Output[]> {
  return Promise.all(
    outputs.map(async ({ name, media_type: mediaType, data }) => ({
      name,
      mediaType,
      bytes:
        data === undefined ? (await readOutput(store, model, id, name)).bytes : Buffer.from(data, "base64"),
    })),
  );
}

/**
 * Predictions of a model, those that were accepted last first.
 * @param status only those with this status. Those that ended so are searched for among the last SEARCHED that
 * succeeded, and the last SEARCHED that did not.
 */
export async function listPredictions(
  store: PredictionStore,
  model: string,
  limit: number,
  status?: Status,
): Promise<Prediction[]> {
  const found = await Promise.all(
    statesOf(status).map(async (state) => {
      const isRunning = state === "active";
      const fits = (job: PredictionJob) => status === undefined || statusOf(job, isRunning) === status;
      const jobs = await findNewest(store, model, state, limit, fits);
      return jobs.map((job) => ({ job, isRunning }));
    }),
  );
  // One that continued meanwhile was found in two states.
  const once = new Map(found.flat().map((each) => [each.job.id, each]));
  const newest = [...once.values()].toSorted((a, b) => b.job.timestamp - a.job.timestamp).slice(0, limit);
  const described = await Promise.all(
    newest.map(({ job, isRunning }) => describePrediction(store, model, job, isRunning).catch(ignoreRemoved)),
  );
  return described.filter((prediction) => prediction !== undefined);
}

/** Up to `limit` that fit, of those in one of BullMQ's states. */
async function findNewest(
  store: PredictionStore,
  model: string,
  state: JobType,
  limit: number,
  fits: (job: PredictionJob) => boolean,
): Promise<PredictionJob[]> {
  if (state === "prioritized") return newestWaiting(store, model, limit);
  const found: PredictionJob[] = [];
  const page = Math.max(limit, MIN_PAGE);
  for (let start = 0; start < SEARCHED && found.length < limit; start += page) {
    const end = Math.min(start + page, SEARCHED) - 1;
    const jobs = (await reachRedis(() =>
      queueOf(store, model).getJobs(state, start, end),
    )) as PredictionJob[];
    if (jobs.length === 0) break;
    found.push(...jobs.filter(fits));
  }
  return found.slice(0, limit);
}

/** BullMQ sorts what waits by priority first: these are the last of each. */
async function newestWaiting(store: PredictionStore, model: string, limit: number): Promise<PredictionJob[]> {
  const key = queueOf(store, model).toKey("prioritized");
  const ids = await reachRedis(() =>
    Promise.all(
      WAITING_SCORES.map(([least, most]) =>
        store.redis.zrevrangebyscore(key, most, least, "LIMIT", 0, limit),
      ),
    ),
  );
  const jobs = await Promise.all(ids.flat().map((id) => readJob(store, model, id)));
  return jobs.filter((job) => job !== undefined);
}

/**
 * The webhook delivery of a prediction's end, if there is one, and when the prediction expires, if ever.
 * @throws PredictionNotFoundError
 */
export async function webhookOf(
  store: PredictionStore,
  model: string,
  id: string,
): Promise<{ delivery: string | undefined; expiresAt: number | undefined }> {
  const job = await readJob(store, model, id);
  if (!job) throw notFound(store, model, id);
  return { delivery: job.data.webhook, expiresAt: job.data.expires_at };
}

/** @throws PredictionNotFoundError */
export async function stackOf(
  store: PredictionStore,
  model: string,
  id: string,
): Promise<string | undefined> {
  const job = await readJob(store, model, id);
  if (!job) throw notFound(store, model, id);
  return job.stacktrace?.at(-1) ?? undefined;
}

export async function queueDepth(queue: Queue): Promise<QueueDepth> {
  const counts = await reachRedis(() =>
    queue.getJobCounts("wait", "prioritized", "active", "delayed", "failed", "completed"),
  );
  const count = (...states: string[]) => states.reduce((sum, state) => sum + (counts[state] ?? 0), 0);
  return {
    waiting: count("wait", "prioritized", "paused"),
    running: count("active"),
    delayed: count("delayed"),
    failed: count("failed"),
    completed: count("completed"),
  };
}

/** Of a bulk queue, in entries. */
export async function bulkQueueDepth(store: PredictionStore, model: string): Promise<QueueDepth> {
  const { toKey } = store.bulkQueues.get(model)!;
  const [wait = 0, prioritized = 0, running = 0, delayed = 0, failed = 0, completed = 0] = await reachRedis(
    () =>
      store.scripts.countEntries(toKey, ["wait", "prioritized", "active", "delayed", "failed", "completed"]),
  );
  return { waiting: wait + prioritized, running, delayed, failed, completed };
}

/** For how long the prediction that is next in a queue has waited, in milliseconds; 0 where none waits. */
export async function waitOfNext(store: PredictionStore, model: string): Promise<number> {
  const [next] = await reachRedis(() => queueOf(store, model).getJobs(["wait", "prioritized"], 0, 0, true));
  return next ? Date.now() - next.timestamp : 0;
}

/** For how long the prediction that has waited longest has, in milliseconds; 0 where none waits. */
export async function longestWait(store: PredictionStore, model: string): Promise<number> {
  const queue = queueOf(store, model);
  const firsts = await reachRedis(() =>
    Promise.all([
      store.redis.lrange(queue.toKey("wait"), -1, -1),
      ...WAITING_SCORES.map(([least, most]) =>
        store.redis.zrangebyscore(queue.toKey("prioritized"), least, most, "LIMIT", 0, 1),
      ),
    ]),
  );
  const times = await reachRedis(() =>
    Promise.all(firsts.flat().map((id) => store.redis.hget(queue.toKey(id), "timestamp"))),
  );
  const waits = times.flatMap((time) => (time === null ? [] : [Date.now() - Number(time)]));
  return Math.max(0, ...waits);
}

export async function describePrediction(
  store: PredictionStore,
  model: string,
  job: EndedJob & { id?: string },
  isRunning: boolean,
): Promise<Prediction> {
  const id = job.id!;
  const status = statusOf(job, isRunning);
  const completion = status === "succeeded" ? job.returnvalue : null;
  const result = completion && (await reachRedis(() => readResponse(queueOf(store, model), id, completion)));
  if (result === undefined) throw notFound(store, model, id);
  const endedAt = isFinal(status) ? (endMarkOf(job)?.ended_on ?? job.finishedOn) : undefined;
  return {
    id,
    model,
    status,
    created_at: new Date(job.timestamp).toISOString(),
    started_at: toIsoTime(job.processedOn),
    finished_at: toIsoTime(endedAt),
    attempts: job.attemptsStarted,
    result,
    outputs: (completion?.outputs ?? []).map(({ name, media_type, bytes, data }) => ({
      name,
      media_type,
      bytes,
      ...(data !== undefined && { data }),
      url: outputLink(model, id, name),
    })),
    error: errorOf(status, job),
    timings: completion?.timings ?? null,
    batch_size: completion?.batch_size ?? null,
    engine: completion?.engine ?? null,
    timeline: timelineOf(job, completion?.timings, endedAt),
    links: predictionLinks(model, id),
  };
}

/** Clocks of several machines may not agree: nothing is earlier than what comes before it, or later than the end. */
function timelineOf(
  { timestamp, processedOn }: EndedJob,
  timings: Timings | undefined,
  endedAt: number | undefined,
): Timeline {
  const within = (time: number) => Math.min(Math.max(time, processedOn ?? timestamp), endedAt ?? Infinity);
  const handed = timings && within(timestamp + timings.queue_ms);
  const inferred = handed && within(handed + timings.read_ms + timings.preprocess_ms);
  return {
    queued_at: new Date(timestamp).toISOString(),
    taken_at: toIsoTime(processedOn),
    batch_at: toIsoTime(handed),
    infer_at: toIsoTime(inferred),
    ended_at: toIsoTime(endedAt),
  };
}

function isOverdue(job: PredictionJob): boolean {
  return job.data.expires_at !== undefined && job.data.expires_at < Date.now();
}

/** BullMQ's states in which predictions with a status are; all where none is given. */
function statesOf(status?: Status): JobType[] {
  if (status === "queued") return ["prioritized", "wait", "delayed"];
  if (status === "running") return ["active"];
  if (status === "succeeded") return ["completed"];
  // One that was cancelled while it ran stays there until its worker is done with it, and then where that left it.
  if (status === "cancelled") return ["active", "completed", "failed"];
  if (status !== undefined) return ["failed"];
  return ["prioritized", "wait", "delayed", "active", "completed", "failed"];
}

/** As much of a job as tells how its prediction stands. */
type Standing = Pick<PredictionJob, "progress" | "failedReason"> & {
  finishedOn?: number | undefined;
  returnvalue: Completion | null;
};

export function statusOf(job: Standing, isRunning: boolean): Status {
  const mark = endMarkOf(job);
  if (mark) return mark.ended;
  if (!job.finishedOn) return isRunning ? "running" : "queued";
  // Not by failedReason, which an earlier try leaves behind.
  if (job.returnvalue) return "succeeded";
  const { code } = failureOf(job.failedReason);
  return code === "cancelled" || code === "expired" ? code : "failed";
}

export function errorOf(status: Status, job: Pick<PredictionJob, "failedReason">) {
  if (status === "failed" || status === "expired") return failureOf(job.failedReason);
  if (status === "cancelled") return new PredictionCancelledError("cancelled by its client").toSummary();
  return null;
}

function ignoreRemoved(error: unknown): undefined {
  if (!(error instanceof PredictionNotFoundError)) throw error;
}
