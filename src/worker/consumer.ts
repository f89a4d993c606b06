/**
 * Consumes the queue of one model: fetch, batch, store, tell. Locks, stalls,
 * retries and priorities are BullMQ's; each job waits here for its own outcome,
 * whatever batch it ran in.
 */
import type { Redis } from "ioredis";
import { UnrecoverableError, WaitingError, Worker } from "bullmq";
import type { Logger } from "pino";
import type { ModelConfig } from "../config/schema.ts";
import { InfermillError, PredictionExpiredError, RetryableError, toInfermillError } from "../errors.ts";
import { createAnnouncer } from "../queue/endings.ts";
import type { InputStore } from "../queue/inputs.ts";
import {
  failedReason,
  PRIORITIES,
  type Completion,
  type PredictionJob,
  type PredictionJobData,
  type Timings,
} from "../queue/jobs.ts";
import type { Names } from "../queue/names.ts";
import { storeResponse } from "../queue/responses.ts";
import { NotStartedError, type EnginePool } from "./enginePool.ts";

/**
 * A worker that dies keeps its jobs locked for up to LOCK_MS, and a check every STALLED_CHECK_MS finds them: recovery
 * takes 10 to 20 s. The process that holds the locks never runs a model, so it renews them in time.
 */
const LOCK_MS = 10_000;
const STALLED_CHECK_MS = 5000;
/** Losing a worker is never a prediction's fault (only engines run models), so it may happen often. */
const MOST_STALLS = 20;
/** Removal by age is BullMQ's; the count bounds memory at high rates. */
const MOST_KEPT = 1_000_000;

export interface ConsumerOptions {
  modelName: string;
  model: ModelConfig;
  pool: EnginePool;
  redis: Redis;
  names: Names;
  inputs: InputStore;
  log: Logger;
}

export interface Consumer {
  /** Fetches as many jobs as the pool has use for; called from time to time, as engines turn out quick or slow. */
  adjust(): void;
  /** Stops fetching, gives back what no engine has begun, waits up to `limitMs` for the rest. */
  close(limitMs: number): Promise<void>;
}

export function startConsumer({
  modelName,
  model,
  pool,
  redis,
  names,
  inputs,
  log,
}: ConsumerOptions): Consumer {
  async function runPrediction(job: PredictionJob, token?: string): Promise<Completion> {
    try {
      if (job.data.expires_at && job.data.expires_at < Date.now())
        throw new PredictionExpiredError("it waited for longer than its ttl_ms");
      const result = await pool.run({
        id: job.id!,
        request: job.data.request,
        inputs: job.data.inputs,
        priority: job.priority || PRIORITIES.normal,
        timeoutMs: job.data.timeout_ms ?? model.timeout_ms,
      });
      const { response, timings, batchSize, engine, startedAt } = result;
      const key = names.response(modelName, job.id!, job.attemptsStarted);
      return {
        ...(await storeResponse(redis, response, key, model.result_ttl_seconds)),
        timings: rounded({ queue_ms: Math.max(0, startedAt - job.timestamp), ...timings }),
        batch_size: batchSize,
        engine,
      };
    } catch (error) {
      if (error instanceof NotStartedError) {
        await job.moveToWait(token);
        throw new WaitingError();
      }
      throw jobError(toInfermillError(error, (detail, options) => new RetryableError(detail, options)));
    }
  }

  const worker = new Worker<PredictionJobData, Completion>(modelName, runPrediction, {
    connection: redis,
    prefix: names.queuePrefix,
    concurrency: pool.capacity,
    lockDuration: LOCK_MS,
    stalledInterval: STALLED_CHECK_MS,
    maxStalledCount: MOST_STALLS,
    runRetryDelay: 1000,
    removeOnComplete: { age: model.result_ttl_seconds, count: MOST_KEPT },
    removeOnFail: { age: model.result_ttl_seconds, count: MOST_KEPT },
  });
  const announceEnding = createAnnouncer(redis, names);
  // Told only once the end is in Redis, so that an input outlives every worker that may still need it.
  const finish = (job: PredictionJob | undefined) => {
    if (!job?.finishedOn) return;
    announceEnding(modelName, job.id!);
    inputs
      .remove(job.data.inputs)
      .catch((error) => log.warn({ err: error, prediction: job.id }, "input not removed"));
  };
  worker.on("completed", finish);
  worker.on("failed", (job, error) => {
    log.debug({ model: modelName, prediction: job?.id, final: Boolean(job?.finishedOn) }, error.message);
    finish(job);
  });
  worker.on("stalled", (id) =>
    log.warn({ model: modelName, prediction: id }, "taken over from a lost worker"),
  );
  worker.on("error", (error) => log.warn({ model: modelName }, `queue: ${error.message}`));

  return {
    adjust() {
      worker.concurrency = pool.capacity;
    },
    async close(limitMs) {
      const closed = worker.close();
      await pool.close(limitMs);
      await closed;
    },
  };
}

/** Decides here and nowhere else whether BullMQ tries a job again. */
function jobError(error: InfermillError): Error {
  const reason = failedReason(error);
  const failure = error.retryable ? new Error(reason) : new UnrecoverableError(reason);
  if (error.stack) failure.stack = error.stack;
  return failure;
}

function rounded(timings: Timings): Timings {
  const two = (ms: number) => Math.round(ms * 100) / 100;
  const { queue_ms, read_ms, preprocess_ms, infer_ms, postprocess_ms } = timings;
  return {
    queue_ms: two(queue_ms),
    read_ms: two(read_ms),
    preprocess_ms: two(preprocess_ms),
    infer_ms: two(infer_ms),
    postprocess_ms: two(postprocess_ms),
  };
}
