/** Accepting predictions: room in the queue, then the jobs, all in one transaction. */
import { randomUUID } from "node:crypto";
import { Job } from "./bullmqPackage.ts";
import type { ChainableCommander } from "ioredis";
import type { RequestDictionary } from "../core/request.ts";
import {
  QueueFullError,
  QueueStorageFullError,
  RedisRefusedError,
  RedisUnavailableError,
  type IdempotencyConflictError,
} from "../errors.ts";
import { execScripts, mayHaveRun, reachRedis, type RedisClient } from "../redis/connections.ts";
import { jobTelemetry } from "../tracing/tracing.ts";
import type { Webhook } from "./deliveries.ts";
import { fingerprintOf, idempotencyConflict } from "./idempotency.ts";
import type { StoredInput } from "./inputs.ts";
import { jobOptions, type PredictionJob, type PredictionJobData } from "./jobs.ts";
import { type Prediction, type Priority } from "../core/prediction.ts";
import { newDeliveryId } from "./names.ts";
import { modelOf, queueOf, readJob, removeInputs, type PredictionStore } from "./predictionStore.ts";
import { describePrediction, readPrediction } from "./read.ts";

/** How long a slot outlives a producer that died; longer than Node lets an upload take (5 minutes). */
const SLOT_TTL_MS = 6 * 60_000;
/** For how long a queue that was full counts as full, so that uploads are refused before they are stored. */
const FULL_MS = 1000;
const NOTHING_ACCEPTED = "nothing was accepted, try again";

/** One prediction to be accepted. */
export interface Submission {
  /** From `newPredictionId()`, or the client's own, which makes the submission idempotent. */
  id: string;
  /** Whether the id is the client's. */
  isIdempotent?: boolean;
  /** The request dictionary without its inputs. */
  request: RequestDictionary;
  inputs: StoredInput[];
  priority?: Priority;
  /** Longest wait in the queue, in milliseconds. */
  ttlMs?: number | undefined;
  /** Longest run, in milliseconds. */
  timeoutMs?: number | undefined;
  /** Where its completion is delivered. */
  webhook?: Webhook | undefined;
}

interface AddedJob {
  job: PredictionJob;
  slot: string;
}

/** Room in a model's queue, held until it is used or given back. */
export interface Slots {
  readonly model: string;
  /** How many were granted; less than were asked for where the queue is nearly full. */
  readonly granted: number;
  /** Gives back what was not used; harmless when all was. */
  release(): void;
  /** @internal name of the next unused slot; "" where none is held */
  take(): string | undefined;
}

/**
 * Reserves room for up to `wanted` predictions, before their inputs are stored.
 * @throws QueueFullError when there is none at all, QueueStorageFullError where Redis has no room
 */
export async function reserveSlots(store: PredictionStore, model: string, wanted = 1): Promise<Slots> {
  const limit = modelOf(store, model).max_queue_length;
  const queue = queueOf(store, model);
  // Before an upload is read for nothing.
  store.storage.claimPredictions(model, wanted);
  const token = randomUUID();
  const freeFirst = (count: number) =>
    freeSlots(
      store,
      model,
      Array.from({ length: count }, (_, index) => `${token}:${index + 1}`),
    );
  let unused: number;
  try {
    unused = await reachRedis(
      () =>
        store.scripts.reserveSlots(store.names.slots(model), queue.toKey, {
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
  if (unused === 0) throw queueFull(store, model);
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
 * Room for one prediction without a webhook that has little to store before it is added: whether there is any is found
 * out in the step that adds it.
 * @throws QueueStorageFullError where Redis has no room
 */
export function roomWhenAdded(store: PredictionStore, model: string): Slots {
  store.storage.claimPredictions(model, 1);
  let unused = 1;
  return { model, granted: 1, take: () => (unused-- > 0 ? "" : undefined), release() {} };
}

/** Whether the queue was found full in the last second. */
export function wasFull({ fullAt }: PredictionStore, model: string): boolean {
  return Date.now() - (fullAt.get(model) ?? 0) < FULL_MS;
}

/**
 * Adds predictions to a queue, in order, all in one step. An id that was used before is not added again.
 * @returns for each submission its prediction, or the error that it was refused with: QueueFullError where there is no
 * room, IdempotencyConflictError where the id belongs to another request. The inputs of those are removed.
 * @throws RedisUnavailableError, which says whether it is known that nothing was accepted
 */
export async function submitPredictions(
  store: PredictionStore,
  slots: Slots,
  submissions: readonly Submission[],
): Promise<(Prediction | QueueFullError | IdempotencyConflictError)[]> {
  const { model } = slots;
  const settings = modelOf(store, model);
  const added = new Map<Submission, AddedJob>();
  const refused = new Map<Submission, QueueFullError | IdempotencyConflictError>();
  for (const submission of submissions) {
    const slot = slots.take();
    if (slot === undefined) {
      refused.set(submission, queueFull(store, model));
      continue;
    }
    const options = {
      ...jobOptions(settings, submission.id, submission.priority ?? "normal"),
      ...jobTelemetry(),
    };
    const job: PredictionJob = new Job(
      queueOf(store, model),
      "predict",
      jobData(submission),
      options,
      submission.id,
    );
    added.set(submission, { job, slot });
  }
  try {
    if (store.storage.isLimited(model)) store.storage.claim(model, sizeOf(added));
    if (!(await reachRedis(() => addJobs(store, model, added), NOTHING_ACCEPTED))) {
      for (const submission of added.keys()) refused.set(submission, queueFull(store, model));
      added.clear();
    }
  } catch (error) {
    // Redis may have run out of memory between two of them; what is refused as a whole leaves no part behind.
    if (error instanceof RedisRefusedError || error instanceof QueueStorageFullError)
      await removeFresh(added);
    freeSlots(
      store,
      model,
      [...added.values()].flatMap(({ slot }) => (slot === "" ? [] : [slot])),
    );
    // What was accepted after all needs its inputs; else they go when their time to live is over.
    if (error instanceof RedisUnavailableError && mayHaveRun(error)) throw acceptanceUnknown(error);
    await Promise.allSettled(submissions.map(({ inputs }) => removeInputs(store, inputs)));
    throw error;
  }
  const repeats = new Set<Submission>();
  for (const [submission, { job }] of added) {
    const { data } = job;
    if (!submission.isIdempotent) continue;
    const first = await readJob(store, model, submission.id);
    if (first?.data.submission === data.submission) continue;
    if (data.webhook) await store.deliveries.discard(model, data.webhook);
    if (first?.data.fingerprint !== data.fingerprint)
      refused.set(submission, idempotencyConflict(submission.id));
    else repeats.add(submission);
  }
  await Promise.all([...refused.keys(), ...repeats].map(({ inputs }) => removeInputs(store, inputs)));
  return Promise.all(
    submissions.map(async (submission) => {
      const error = refused.get(submission);
      if (error) return error;
      if (repeats.has(submission)) return readPrediction(store, model, submission.id);
      // What was just added needs no look into Redis to be described.
      return describePrediction(store, model, added.get(submission)!.job, false);
    }),
  );
}

/** Whether an id is taken; a submission with it needs no slot then. */
export async function predictionExists(store: PredictionStore, model: string, id: string): Promise<boolean> {
  const key = queueOf(store, model).toKey(id);
  return (await reachRedis(() => store.redis.exists(key), NOTHING_ACCEPTED)) === 1;
}

/**
 * One job is one command, several or one with a webhook are a transaction.
 * @returns false where there was no room for the one that has no slot
 */
async function addJobs(
  store: PredictionStore,
  model: string,
  added: ReadonlyMap<Submission, AddedJob>,
): Promise<boolean> {
  const { toKey } = queueOf(store, model);
  const options = { limit: modelOf(store, model).max_queue_length, slotTtlMs: SLOT_TTL_MS };
  const slots = store.names.slots(model);
  const add = (commands: RedisClient | ChainableCommander, { job, slot }: AddedJob) =>
    store.scripts.addPrediction(commands, (client) => job.addJob(client as never), slots, toKey, {
      ...options,
      slot,
    });
  const [first] = added;
  if (added.size === 1 && !first![0].webhook) return (await add(store.redis, first![1])) !== null;

  // BullMQ's own view of the connection: a bare ioredis transaction doesn't know its scripts.
  const client = await queueOf(store, model).getBackend().client;
  await execScripts(store.redis, async () => {
    const transaction = client.multi() as unknown as ChainableCommander;
    const adding: Promise<unknown>[] = [];
    for (const [{ id, webhook }, each] of added) {
      const { webhook: delivery, expires_at } = each.job.data;
      if (webhook && delivery) {
        const job = store.deliveries.jobFor(delivery, webhook, { model, id }, expires_at);
        adding.push(job.addJob(transaction as never));
      }
      adding.push(add(transaction, each));
    }
    await Promise.all(adding);
    return transaction;
  });
  return true;
}

/** What the jobs take in Redis, in bytes. */
function sizeOf(added: ReadonlyMap<Submission, AddedJob>): number {
  let bytes = 0;
  for (const { job } of added.values()) bytes += JSON.stringify(job.data).length;
  return bytes;
}

async function removeFresh(added: ReadonlyMap<Submission, AddedJob>): Promise<void> {
  for (const [{ isIdempotent }, { job }] of added) if (!isIdempotent) await job.remove().catch(() => {});
}

/** Without waiting for it: the commands of a connection keep their order. */
function freeSlots(store: PredictionStore, model: string, slots: string[]): void {
  if (slots.length > 0) store.redis.zrem(store.names.slots(model), slots).catch(() => {});
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
      fingerprint: fingerprintOf(request, inputs),
      submission: randomUUID(),
    }),
  };
}

function queueFull(store: PredictionStore, model: string): QueueFullError {
  store.fullAt.set(model, Date.now());
  const { max_queue_length: limit } = modelOf(store, model);
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
