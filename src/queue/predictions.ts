/**
 * The producer's side of the queues: submit, read, wait for, cancel. The api,
 * the bulk runs and the tests use predictions through this only.
 */
import { outputLink, predictionLinks } from "../core/links.ts";
import { openQueue } from "./bullmq.ts";
import { createHash, randomUUID } from "node:crypto";
import { Job, Queue, type JobType } from "bullmq";
import type { ChainableCommander, Redis } from "ioredis";
import { stringify } from "safe-stable-stringify";
import type { Config, ModelConfig } from "../config/schema.ts";
import {
  AlreadyEndedError,
  IdempotencyConflictError,
  ModelNotFoundError,
  OutputNotFoundError,
  PredictionCancelledError,
  PredictionExpiredError,
  PredictionNotFoundError,
  QueueFullError,
  RedisUnavailableError,
} from "../errors.ts";
import type { Output, RequestDictionary } from "../core/request.ts";
import { connectRedis, mayHaveRun, reachRedis } from "../redis/connections.ts";
import {
  createNotifier,
  openCompletionEvents,
  type NotifyCompletion,
  type CompletionEvents,
  type Watch,
} from "./completionEvents.ts";
import { Deliveries, type Webhook } from "./deliveries.ts";
import { createInputStore, type InputStore, type StoredInput } from "./inputs.ts";
import {
  endMarkOf,
  failedReason,
  failureOf,
  isFinal,
  jobOptions,
  PRIORITIES,
  toIsoTime,
  type Prediction,
  type PredictionJob,
  type PredictionJobData,
  type Priority,
  type Status,
} from "./jobs.ts";
import { createNames, newDeliveryId, type Names } from "./names.ts";
import { createOutputStore, type OutputStore } from "./outputs.ts";
import { readResponse } from "./responses.ts";
import { defineScripts, type Scripts } from "./scripts.ts";
import { readWorkerReports, type WorkerReport } from "./workerReports.ts";

/** How long a slot outlives a producer that died; longer than Node lets an upload take (5 minutes). */
const SLOT_TTL_MS = 6 * 60_000;
/** How often a waiter looks for itself, in case that word of an ending was lost. */
const LOOK_INTERVAL_MS = 1000;
/** BullMQ keeps predictions that ended differently together: of them so many are looked at for a list. */
const SEARCHED = 1000;
/** At least so many at a time. */
const MIN_PAGE = 20;
/** A job's score in BullMQ's set of those that wait is its priority times this, and then counts up. */
const PRIORITY_SCORE = 2 ** 32;
const NOTHING_ACCEPTED = "nothing was accepted, try again";

/** One prediction to be accepted. */
export interface Submission {
  /** From `newPredictionId()`, or the client's own, which makes the submission idempotent. */
  id: string;
  /** Whether the id is the client's. */
  isIdempotent?: boolean;
  /** The request dictionary without its pictures. */
  request: RequestDictionary;
  inputs: StoredInput[];
  priority?: Priority;
  /** Longest wait in the queue, in milliseconds. */
  ttlMs?: number | undefined;
  /** Longest run, in milliseconds. */
  timeoutMs?: number | undefined;
  /** Where word of its end goes. */
  webhook?: Webhook | undefined;
}

/** Room in a model's queue, held until it is used or given back. */
export interface Slots {
  readonly model: string;
  /** How many were granted; less than were asked for where the queue is nearly full. */
  readonly granted: number;
  /** Gives back what was not used; harmless when all was. */
  release(): void;
  /** @internal name of the next unused slot */
  take(): string | undefined;
}

export interface QueueDepth {
  waiting: number;
  running: number;
  /** Waiting for another try. */
  delayed: number;
  failed: number;
  completed: number;
}

export class Predictions {
  readonly names: Names;
  readonly inputs: InputStore;
  readonly outputs: OutputStore;
  /** BullMQ's queues by model name, for the dashboard. */
  readonly queues: ReadonlyMap<string, Queue>;
  readonly deliveries: Deliveries;
  readonly #config: Config;
  readonly #redis: Redis;
  readonly #scripts: Scripts;
  readonly #completions: CompletionEvents;
  readonly #notifyCompletion: NotifyCompletion;
  readonly #close: () => Promise<void>;

  /** Use `openPredictions`. */
  constructor(
    config: Config,
    names: Names,
    redis: Redis,
    completions: CompletionEvents,
    queues: ReadonlyMap<string, Queue>,
    close: () => Promise<void>,
  ) {
    this.names = names;
    this.queues = queues;
    this.inputs = createInputStore(config, names, redis);
    this.outputs = createOutputStore(config, names, redis);
    this.deliveries = new Deliveries(redis, names, config.webhooks.retry_delays_ms.length);
    this.#config = config;
    this.#redis = redis;
    this.#scripts = defineScripts(redis);
    this.#completions = completions;
    this.#notifyCompletion = createNotifier(redis, names);
    this.#close = close;
  }

  /** @throws ModelNotFoundError naming the models that there are */
  model(name: string): ModelConfig {
    const model = Object.hasOwn(this.#config.models, name) ? this.#config.models[name] : undefined;
    if (model) return model;
    throw new ModelNotFoundError(
      `there is no model "${name}"; configured are: ${Object.keys(this.#config.models).join(", ")}`,
    );
  }

  /**
   * Reserves room for up to `wanted` predictions, before their inputs are stored.
   * @throws QueueFullError when there is none at all
   */
  async reserve(model: string, wanted = 1): Promise<Slots> {
    const limit = this.model(model).max_queue_length;
    const queue = this.#queue(model);
    const token = randomUUID();
    const freeFirst = (count: number) =>
      this.#freeSlots(
        model,
        Array.from({ length: count }, (_, index) => `${token}:${index + 1}`),
      );
    let unused: number;
    try {
      unused = await reachRedis(
        () =>
          this.#scripts.reserveSlots(this.names.slots(model), queue.toKey, {
            limit,
            wanted,
            slotTtlMs: SLOT_TTL_MS,
            token,
          }),
        NOTHING_ACCEPTED,
      );
    } catch (error) {
      // A slow Redis may reserve them yet.
      freeFirst(wanted);
      throw error;
    }
    if (unused === 0) throw queueFull(model, limit);
    return {
      model,
      granted: unused,
      take: () => (unused > 0 ? `${token}:${unused--}` : undefined),
      release() {
        freeFirst(unused);
        unused = 0;
      },
    };
  }

  /**
   * Adds predictions to a queue, in order, all in one step. An id that was used before is not added again.
   * @returns for each submission its prediction, or the error that it was refused with: QueueFullError where the slots
   * ran out, IdempotencyConflictError where the id belongs to another request. The inputs of those are removed.
   * @throws RedisUnavailableError, which says whether it is known that nothing was accepted
   */
  async submit(
    slots: Slots,
    submissions: readonly Submission[],
  ): Promise<(Prediction | QueueFullError | IdempotencyConflictError)[]> {
    const { model } = slots;
    const queue = this.#queue(model);
    const settings = this.model(model);
    // BullMQ's own view of the connection: a bare ioredis transaction doesn't know its scripts.
    const transaction = (await queue.getBackend().client).multi() as unknown as ChainableCommander;
    const adding: Promise<unknown>[] = [];
    const taken: string[] = [];
    const added = new Map<Submission, PredictionJob>();
    const refused = new Map<Submission, QueueFullError | IdempotencyConflictError>();
    for (const submission of submissions) {
      const slot = slots.take();
      if (!slot) {
        refused.set(submission, queueFull(model, settings.max_queue_length));
        continue;
      }
      taken.push(slot);
      const data = jobData(submission);
      const options = jobOptions(settings, submission.id, submission.priority ?? "normal");
      const job: PredictionJob = new Job(queue, "predict", data, options, submission.id);
      if (data.webhook && submission.webhook) {
        const prediction = { model, id: submission.id };
        const delivery = this.deliveries.jobFor(
          data.webhook,
          submission.webhook,
          prediction,
          data.expires_at,
        );
        adding.push(delivery.addJob(transaction as never));
      }
      // The job takes the slot's place in one transaction, or the limit would not be exact.
      adding.push(job.addJob(transaction as never));
      transaction.zrem(this.names.slots(model), slot);
      added.set(submission, job);
    }
    try {
      await Promise.all(adding);
      await reachRedis(async () => {
        for (const [error] of (await transaction.exec()) ?? []) if (error) throw error;
      }, NOTHING_ACCEPTED);
    } catch (error) {
      this.#freeSlots(model, taken);
      // What was accepted after all needs its inputs; else they go when their time to live is over.
      if (error instanceof RedisUnavailableError && mayHaveRun(error)) throw acceptanceUnknown(error);
      await Promise.allSettled(submissions.map(({ inputs }) => this.#removeInputs(inputs)));
      throw error;
    }
    const repeats = new Set<Submission>();
    for (const [submission, { data }] of added) {
      if (!submission.isIdempotent) continue;
      const first = await this.#readJob(model, submission.id);
      if (first?.data.submission === data.submission) continue;
      if (data.webhook) await this.deliveries.discard(data.webhook);
      if (first?.data.fingerprint !== data.fingerprint)
        refused.set(submission, idempotencyConflict(submission.id));
      else repeats.add(submission);
    }
    await Promise.all([...refused.keys(), ...repeats].map(({ inputs }) => this.#removeInputs(inputs)));
    return Promise.all(
      submissions.map(async (submission) => {
        const error = refused.get(submission);
        if (error) return error;
        if (repeats.has(submission)) return this.read(model, submission.id);
        // What was just added needs no look into Redis to be described.
        return this.#describe(model, added.get(submission)!, false);
      }),
    );
  }

  /** Whether an id is taken; a submission with it needs no slot then. */
  async exists(model: string, id: string): Promise<boolean> {
    const key = this.#queue(model).toKey(id);
    return (await reachRedis(() => this.#redis.exists(key), NOTHING_ACCEPTED)) === 1;
  }

  /**
   * Compares a submission with the prediction that has its id, and removes the inputs that came with it.
   * @throws IdempotencyConflictError where it is another request
   */
  async confirmSame(model: string, submission: Submission): Promise<void> {
    const first = await this.#readJob(model, submission.id);
    await this.#removeInputs(submission.inputs);
    if (first?.data.fingerprint !== jobData(submission).fingerprint) throw idempotencyConflict(submission.id);
  }

  /** @throws PredictionNotFoundError */
  async read(model: string, id: string): Promise<Prediction> {
    const job = await this.#readJob(model, id);
    if (!job) throw this.#notFound(model, id);
    const hasEnded = job.finishedOn !== undefined || endMarkOf(job) !== undefined;
    if (!hasEnded && isOverdue(job) && (await this.#end(model, id, "expired"))) return this.read(model, id);
    const state = hasEnded ? undefined : await reachRedis(() => this.#queue(model).getJobState(id));
    // It ended between the two looks.
    if (state === "completed" || state === "failed") return this.read(model, id);
    return this.#describe(model, job, state === "active");
  }

  /**
   * The bytes of one output of a prediction that succeeded.
   * @throws PredictionNotFoundError, OutputNotFoundError
   */
  async readOutput(model: string, id: string, name: string): Promise<{ mediaType: string; bytes: Buffer }> {
    const job = await this.#readJob(model, id);
    if (!job) throw this.#notFound(model, id);
    const refs = job.returnvalue?.outputs ?? [];
    const ref = refs.find((each) => each.name === name);
    const bytes = ref && (await this.outputs.read(ref));
    if (ref && bytes) return { mediaType: ref.media_type, bytes };
    const names = refs.map((each) => each.name).join(", ") || "none";
    throw new OutputNotFoundError(
      `the prediction ${id} has no output ${JSON.stringify(name)}; it has ${names}`,
    );
  }

  /** @throws OutputNotFoundError */
  async readBulkOutput(bulkRun: string, index: string, name: string): Promise<Buffer> {
    const bytes = await this.outputs.readOf({ bulkRun, index }, name);
    if (bytes) return bytes;
    throw new OutputNotFoundError(`the entry ${index} of ${bulkRun} has no output ${JSON.stringify(name)}`);
  }

  /**
   * The bytes of all outputs of a prediction.
   * @throws OutputNotFoundError where one is gone
   */
  async readOutputs({ model, id, outputs }: Pick<Prediction, "model" | "id" | "outputs">): Promise<Output[]> {
    return Promise.all(
      outputs.map(async ({ name, media_type: mediaType, data }) => ({
        name,
        mediaType,
        bytes:
          data === undefined ? (await this.readOutput(model, id, name)).bytes : Buffer.from(data, "base64"),
      })),
    );
  }

  /**
   * Predictions of a model, those that were accepted last first.
   * @param status only those with this status. Those that ended so are searched for among the last SEARCHED that
   * succeeded, and the last SEARCHED that did not.
   */
  async list(model: string, limit: number, status?: Status): Promise<Prediction[]> {
    const found = await Promise.all(
      statesOf(status).map(async (state) => {
        const isRunning = state === "active";
        const fits = (job: PredictionJob) => status === undefined || statusOf(job, isRunning) === status;
        const jobs = await this.#newest(model, state, limit, fits);
        return jobs.map((job) => ({ job, isRunning }));
      }),
    );
    // One that went on meanwhile was found in two states.
    const once = new Map(found.flat().map((each) => [each.job.id, each]));
    const newest = [...once.values()].toSorted((a, b) => b.job.timestamp - a.job.timestamp).slice(0, limit);
    const described = await Promise.all(
      newest.map(({ job, isRunning }) => this.#describe(model, job, isRunning).catch(ignoreRemoved)),
    );
    return described.filter((prediction) => prediction !== undefined);
  }

  /** Up to `limit` that fit, of those in one of BullMQ's states. */
  async #newest(
    model: string,
    state: JobType,
    limit: number,
    fits: (job: PredictionJob) => boolean,
  ): Promise<PredictionJob[]> {
    if (state === "prioritized") return this.#newestWaiting(model, limit);
    const found: PredictionJob[] = [];
    const page = Math.max(limit, MIN_PAGE);
    for (let start = 0; start < SEARCHED && found.length < limit; start += page) {
      const end = Math.min(start + page, SEARCHED) - 1;
      const jobs = (await reachRedis(() => this.#queue(model).getJobs(state, start, end))) as PredictionJob[];
      if (jobs.length === 0) break;
      found.push(...jobs.filter(fits));
    }
    return found.slice(0, limit);
  }

  /** BullMQ sorts what waits by priority first: these are the last of each. */
  async #newestWaiting(model: string, limit: number): Promise<PredictionJob[]> {
    const key = this.#queue(model).toKey("prioritized");
    const ids = await reachRedis(() =>
      Promise.all(
        Object.values(PRIORITIES).map((priority) => {
          const [least, most] = [priority * PRIORITY_SCORE, (priority + 1) * PRIORITY_SCORE - 1];
          return this.#redis.zrevrangebyscore(key, most, least, "LIMIT", 0, limit);
        }),
      ),
    );
    const jobs = await Promise.all(ids.flat().map((id) => this.#readJob(model, id)));
    return jobs.filter((job) => job !== undefined);
  }

  /**
   * The delivery that tells of a prediction's end, if there is one, and when the prediction expires, if ever.
   * @throws PredictionNotFoundError
   */
  async webhookOf(
    model: string,
    id: string,
  ): Promise<{ delivery: string | undefined; expiresAt: number | undefined }> {
    const job = await this.#readJob(model, id);
    if (!job) throw this.#notFound(model, id);
    return { delivery: job.data.webhook, expiresAt: job.data.expires_at };
  }

  /** Begins to watch for the end of a prediction, which may not have been submitted yet. Call `stop()` in the end. */
  watch(model: string, id: string): Watch {
    return this.#completions.watch(model, id);
  }

  /**
   * Waits until a prediction ends, at most `ms`, and reads it either way.
   * @param watched a watch that began before the prediction was submitted or last read: then there is no need to look
   * before its end is heard of. The caller stops it.
   * @throws PredictionNotFoundError
   */
  async wait(
    model: string,
    id: string,
    ms: number,
    signal?: AbortSignal,
    watched?: Watch,
  ): Promise<Prediction> {
    const deadline = Date.now() + ms;
    const watch = watched ?? this.watch(model, id);
    try {
      if (watched) await firstOf(watch.ended, Math.min(ms, LOOK_INTERVAL_MS), signal);
      for (;;) {
        // Word can come before its end is in Redis, and must not count twice.
        watch.rearm();
        const prediction = await this.read(model, id);
        const left = deadline - Date.now();
        if (isFinal(prediction.status) || left <= 0 || signal?.aborted) return prediction;
        await firstOf(watch.ended, Math.min(left, LOOK_INTERVAL_MS), signal);
      }
    } finally {
      if (!watched) watch.stop();
    }
  }

  /**
   * Cancels a prediction: one that waits at once, of one that runs the outcome is dropped. Once more is harmless.
   * @throws PredictionNotFoundError
   * @throws AlreadyEndedError where it ended otherwise
   */
  async cancel(model: string, id: string): Promise<Prediction> {
    await this.#end(model, id, "cancelled");
    const prediction = await this.read(model, id);
    if (prediction.status !== "cancelled")
      throw new AlreadyEndedError(`the prediction ${id} has ${prediction.status} and can't be cancelled`);
    return prediction;
  }

  async depth(model: string): Promise<QueueDepth> {
    const counts = await reachRedis(() =>
      this.#queue(model).getJobCounts("wait", "prioritized", "active", "delayed", "failed", "completed"),
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

  /** For how long the prediction that is next in a queue has waited, in milliseconds; 0 where none waits. */
  async waitOfNext(model: string): Promise<number> {
    const [next] = await reachRedis(() => this.#queue(model).getJobs(["wait", "prioritized"], 0, 0, true));
    return next ? Date.now() - next.timestamp : 0;
  }

  workers(): Promise<WorkerReport[]> {
    return reachRedis(() => readWorkerReports(this.#redis, this.names));
  }

  async ping(): Promise<void> {
    await reachRedis(() => this.#redis.ping());
  }

  close(): Promise<void> {
    return this.#close();
  }

  #queue(model: string): Queue {
    this.model(model);
    return this.queues.get(model)!;
  }

  async #readJob(model: string, id: string): Promise<PredictionJob | undefined> {
    return reachRedis(() => Job.fromId(this.#queue(model), id) as Promise<PredictionJob | undefined>);
  }

  /** Without waiting for it: the commands of a connection keep their order. */
  #freeSlots(model: string, slots: string[]): void {
    if (slots.length > 0) this.#redis.zrem(this.names.slots(model), slots).catch(() => {});
  }

  #removeInputs(inputs: readonly StoredInput[]): Promise<void> {
    return this.inputs.remove(inputs.map(({ ref }) => ref));
  }

  /** @returns whether it was ended by this call */
  async #end(model: string, id: string, status: "cancelled" | "expired"): Promise<boolean> {
    const queue = this.#queue(model);
    const reason = failedReason(
      status === "cancelled"
        ? new PredictionCancelledError("cancelled by its client")
        : new PredictionExpiredError("it waited for longer than its ttl_ms"),
    );
    return reachRedis(async () => {
      const outcome = await this.#scripts.endPrediction(queue.toKey, id, { status, failedReason: reason });
      if (outcome === "missing") throw this.#notFound(model, id);
      if (outcome === "ended before" || outcome === "running") return false;
      this.#notifyCompletion(model, id);
      const job = await this.#readJob(model, id);
      if (job?.data.webhook) await this.deliveries.now(job.data.webhook);
      // The worker removes the inputs of what it runs.
      if (outcome === "ended waiting") await this.inputs.remove(job?.data.inputs ?? []);
      return true;
    });
  }

  #notFound(model: string, id: string): PredictionNotFoundError {
    return new PredictionNotFoundError(
      `the model "${model}" has no prediction "${id}"; ended predictions are kept for ${this.model(model).result_ttl_seconds} s`,
    );
  }

  async #describe(model: string, job: PredictionJob, isRunning: boolean): Promise<Prediction> {
    const id = job.id!;
    const status = statusOf(job, isRunning);
    const completion = status === "succeeded" ? job.returnvalue : null;
    const result = completion && (await reachRedis(() => readResponse(this.#queue(model), id, completion)));
    if (result === undefined) throw this.#notFound(model, id);
    return {
      id,
      model,
      status,
      created_at: new Date(job.timestamp).toISOString(),
      started_at: toIsoTime(job.processedOn),
      finished_at: isFinal(status) ? toIsoTime(endMarkOf(job)?.ended_on ?? job.finishedOn) : null,
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
      links: predictionLinks(model, id),
    };
  }
}

/** Connects to Redis and opens the queue of every model. */
export async function openPredictions(config: Config, redisUrl: string): Promise<Predictions> {
  const redis = await connectRedis(redisUrl, "producer");
  const subscriber = await connectRedis(redisUrl, "worker");
  const names = createNames(config.redis_prefix);
  const queues = new Map(
    Object.keys(config.models).map((model) => [model, openQueue(model, redis, names.queuePrefix)] as const),
  );
  await Promise.all([...queues.values()].map((queue) => queue.waitUntilReady()));
  const endings = await openCompletionEvents(subscriber, names);
  const predictions = new Predictions(config, names, redis, endings, queues, async () => {
    await Promise.allSettled([...queues.values()].map((queue) => queue.close()));
    await predictions.deliveries.close();
    redis.disconnect();
    subscriber.disconnect();
  });
  await predictions.deliveries.queue.waitUntilReady();
  return predictions;
}

function jobData({
  id: _id,
  isIdempotent,
  request,
  inputs,
  ttlMs,
  timeoutMs,
  webhook,
}: Submission): PredictionJobData {
  return {
    request,
    inputs: inputs.map(({ ref }) => ref),
    ...(ttlMs && { expires_at: Date.now() + ttlMs }),
    ...(timeoutMs && { timeout_ms: timeoutMs }),
    ...(webhook && { webhook: newDeliveryId() }),
    ...(isIdempotent && {
      fingerprint: createHash("sha256")
        .update(stringify({ request, pictures: inputs.map(({ sha256 }) => sha256) }) ?? "")
        .digest("base64url"),
      submission: randomUUID(),
    }),
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

function statusOf(job: PredictionJob, isRunning: boolean): Status {
  const mark = endMarkOf(job);
  if (mark) return mark.ended;
  if (!job.finishedOn) return isRunning ? "running" : "queued";
  // Not by failedReason, which an earlier try leaves behind.
  if (job.returnvalue) return "succeeded";
  const { code } = failureOf(job.failedReason);
  return code === "cancelled" || code === "expired" ? code : "failed";
}

function errorOf(status: Status, job: PredictionJob) {
  if (status === "failed" || status === "expired") return failureOf(job.failedReason);
  if (status === "cancelled") return new PredictionCancelledError("cancelled by its client").toSummary();
  return null;
}

function ignoreRemoved(error: unknown): undefined {
  if (!(error instanceof PredictionNotFoundError)) throw error;
}

function queueFull(model: string, limit: number): QueueFullError {
  return new QueueFullError(
    `the queue of the model "${model}" holds its max_queue_length of ${limit} predictions; try again later`,
    5,
  );
}

function acceptanceUnknown(cause: Error): RedisUnavailableError {
  return new RedisUnavailableError(
    "Redis did not answer, so it isn't known whether this was accepted; to repeat it with the same id or Idempotency-Key is safe",
    { cause },
  );
}

function idempotencyConflict(id: string): IdempotencyConflictError {
  return new IdempotencyConflictError(
    `the prediction ${id} was made from another request; use a new key, or send the same dictionary and pictures again`,
  );
}

/** Resolves at the first of an event, a time and an abort, and leaves no timer behind. */
async function firstOf(event: Promise<void>, ms: number, signal?: AbortSignal): Promise<void> {
  let stop = () => {};
  const other = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      resolve();
    };
    signal?.addEventListener("abort", stop);
  });
  await Promise.race([event, other]);
  stop();
}
