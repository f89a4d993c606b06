/**
 * Consumes a queue of one model, its own or its bulkQueue: fetch, batch, store,
 * tell. Locks, stalls, retries and priorities are BullMQ's; each job waits here for its own outcome,
 * whatever batch it ran in.
 */
import { consumeQueue, untilTaken } from "../queue/bullmq.ts";
import type { RedisClient } from "../redis/connections.ts";
import { UnrecoverableError, WaitingError, type Job } from "../queue/bullmqPackage.ts";
import type { Logger } from "pino";
import type { ModelConfig } from "../config/schema.ts";
import { InfermillError, PredictionExpiredError, RetryableError, toInfermillError } from "../errors.ts";
import { createNotifier } from "../queue/completionEvents.ts";
import type { Output, ResponseDictionary } from "../core/request.ts";
import { isChunk, MAX_CHUNK, type BulkChunkData } from "../queue/bulkChunks.ts";
import type { Deliveries } from "../queue/deliveries.ts";
import type { InputStore, LocalInputRef } from "../queue/inputs.ts";
import {
  failedReason,
  failureOf,
  type Completion,
  type PredictionJob,
  type PredictionJobData,
} from "../queue/jobs.ts";
import { PRIORITIES } from "../core/prediction.ts";
import { partsOfBulkPredictionId, type Names } from "../queue/names.ts";
import { bytesInRedis, type OutputOwner, type OutputStore } from "../queue/outputs.ts";
import { storeResponse } from "../queue/responses.ts";
import { defineScripts } from "../queue/scripts.ts";
import { createChunkRunner, type ChunkJob } from "./chunkRunner.ts";
import { processSpan } from "../queue/spans.ts";
import { inSpan, isTracing, type Span } from "../tracing/tracing.ts";
import { timingAttributes } from "./batchSpans.ts";
import type { EndOfInputs } from "./endOfInputs.ts";
import { NotStartedError, type EnginePool } from "./enginePool.ts";
import { createTaskRunner } from "./runTask.ts";
import type { FetchInputs } from "./urlInputs.ts";

/** Losing a worker is never a prediction's fault (only engines run models), so it may happen often. */
const MAX_STALLS = 20;
/** Predictions that wait for pictures from elsewhere take no room from the others, up to this number. */
const MAX_FETCHING = 64;
/** Removal by age is BullMQ's; the count bounds memory at high rates. */
const MAX_KEPT = 1_000_000;
/** Codes of failures that say nothing about the loader or the machine. */
const NO_FAULTS: ReadonlySet<string> = new Set(["bad_input", "expired", "cancelled"]);

/** Codes of failures that come after an engine has read the inputs. */
const READ_ALL_THE_SAME: ReadonlySet<string> = new Set(["loader_failed", "implausible_output"]);

export interface ConsumerOptions {
  modelName: string;
  model: ModelConfig;
  /** Predictions of bulk runs come from a queue of their own, the model's bulkQueue. */
  source: "queue" | "bulk";
  pool: EnginePool;
  redis: RedisClient;
  names: Names;
  inputs: InputStore;
  outputs: OutputStore;
  fetchInputs: FetchInputs;
  endOfInputs: EndOfInputs;
  deliveries: Deliveries;
  log: Logger;
}

export interface Consumer {
  /** Fetches as many jobs as the pool has use for; called from time to time, as engines turn out quick or slow. */
  adjust(): void;
  /** Stops fetching; resolves when the pool has given back or finished all that was fetched. */
  close(): Promise<void>;
}

export function startConsumer({
  modelName,
  model,
  source,
  pool,
  redis,
  names,
  inputs,
  outputs: outputStore,
  fetchInputs,
  endOfInputs,
  deliveries,
  log,
}: ConsumerOptions): Consumer {
  const scripts = defineScripts(redis);
  let entriesOfChunk = 1;
  const tasks = createTaskRunner({
    modelName,
    pool,
    fetchInputs,
    onFetching: adjust,
    onFetchedEnd: endFetched,
    onFault,
  });
  const chunks = createChunkRunner({
    modelName,
    pool,
    tasks,
    inputs,
    outputs: outputStore,
    timeoutMs: model.timeout_ms,
    keepRows: (chunk, rows) => scripts.keepRows(worker.toKey, chunk, rows),
    async readRows(chunk) {
      const key = worker.toKey(chunk);
      const [rows, mark] = await Promise.all([
        redis.lrange(`${key}:logs`, 0, -1),
        redis.hexists(key, "withdrawn"),
      ]);
      return { rows, isWithdrawn: mark === 1 };
    },
    onRows: (chunk) => notifyCompletion(modelName, chunk),
    onHeld: adjust,
    onFailure: (id, error) => logFailure(id, true, error),
    onFault,
    log,
  });

  async function runJob(job: BulkOrPredictionJob, token?: string): Promise<Completion | number> {
    try {
      const prediction = asPrediction(job);
      if (prediction) return await takePrediction(prediction);
      const count = await chunks.run(job as ChunkJob, token);
      notifyCompletion(modelName, job.id!);
      return count;
    } catch (error) {
      if (error instanceof WaitingError) throw error;
      if (error instanceof NotStartedError) {
        await job.moveToWait(token);
        throw new WaitingError();
      }
      throw jobError(asInfermillError(error));
    }
  }

  /** Those of bulk runs have no spans: their run has one. */
  function takePrediction(job: PredictionJob): Promise<Completion> {
    if (source === "bulk" || !isTracing()) return runPrediction(job);
    return inSpan(
      `process ${modelName}`,
      processSpan(modelName, job),
      (span) => runPrediction(job, span),
      (error) => (error instanceof NotStartedError ? undefined : asInfermillError(error).code),
    );
  }

  async function runPrediction(job: PredictionJob, span?: Span): Promise<Completion> {
    try {
      if (job.data.expires_at && job.data.expires_at < Date.now())
        throw new PredictionExpiredError("it waited for longer than its ttl_ms");
      const task = {
        id: job.id!,
        request: job.data.request,
        priority: job.priority || PRIORITIES.normal,
        timeoutMs: Math.min(job.data.timeout_ms ?? Infinity, model.timeout_ms),
        expiresAt: job.data.expires_at,
        span,
      };
      const result = await tasks.run(task, job.data.inputs, job.timestamp);
      const { response, outputs, timings, batchSize, engine } = result;
      span?.setAttributes({ ...timingAttributes(timings), "infermill.batch_size": batchSize });
      const stored = await untilTaken(() => store(job, response, outputs), onFault);
      // Sent right behind BullMQ's own command, which goes out before the event loop turns: a round trip less than after it.
      notifyCompletion(modelName, job.id!);
      return { ...stored, timings, batch_size: batchSize, engine };
    } finally {
      // Before BullMQ ends the job, in case that this process dies then.
      if (job.data.webhook) deliveries.soon(modelName, job.data.webhook).catch(warnOfWebhook(job));
    }
  }

  /** Entries of bulk runs have files of their own, and so many of them end that none is worth a look. */
  function endInputs({ id, data }: PredictionJob, wasRead: boolean): Promise<void> {
    return source === "bulk"
      ? inputs.remove(data.inputs)
      : endOfInputs.end({ model: modelName, id: id! }, data.inputs, wasRead);
  }

  function endFetched(id: string, fetched: readonly LocalInputRef[], wasRead: boolean): void {
    const ending =
      source === "bulk"
        ? inputs.remove(fetched)
        : endOfInputs.endFetched({ model: modelName, id }, fetched, wasRead);
    ending.catch(warnOfInput(id));
  }

  async function store(job: PredictionJob, response: ResponseDictionary, outputs: readonly Output[]) {
    const { stored, bytes } = await storeResponse(job, response);
    const refs = outputs.length > 0 ? await outputStore.write(ownerOf(job.id!), outputs) : [];
    pool.addResponseBytes(bytes + bytesInRedis(refs));
    return { ...stored, ...(refs.length > 0 && { outputs: refs }) };
  }

  /** A coordinator of 0.1 sends entries of bulk runs one by one. */
  function ownerOf(id: string): OutputOwner {
    if (source === "queue") return { model: modelName, id };
    const { run, index } = partsOfBulkPredictionId(id);
    return { model: modelName, bulkRun: run, index };
  }

  /** As many predictions as the pool has use for; a chunk brings several, and one that is nearly done counts for little. */
  function adjust(): void {
    const wanted = pool.capacity + Math.min(tasks.fetching, MAX_FETCHING);
    if (source === "queue") {
      worker.concurrency = wanted;
      return;
    }
    const { chunks: count, entries } = chunks.held;
    if (count > 0) entriesOfChunk = Math.max(1, Math.min(MAX_CHUNK, entries / count));
    const more = Math.max(0, wanted - entries) / entriesOfChunk;
    // One more than there are engines, each of which may be held up by an entry of a chunk of its own.
    worker.concurrency = Math.max(pool.engines + 1, count + Math.ceil(more));
  }

  /** What the client can't help is seen at the default level, once it isn't tried again. */
  function logFailure(id: string | undefined, isFinal: boolean, error: Error): void {
    const facts = { model: modelName, prediction: id, final: isFinal, err: error };
    const isFault = isFinal && !NO_FAULTS.has(codeOf(error));
    if (isFault) log.warn(facts, `prediction failed: ${error.message}`);
    else log.debug(facts, `prediction failed: ${error.message}`);
  }

  const warnOfInput = (id: string) => (error: unknown) =>
    log.warn({ err: error, prediction: id }, "input not removed");
  const warnOfWebhook = (job: PredictionJob) => (error: unknown) =>
    log.warn({ err: error, prediction: job.id }, "webhook delivery not promoted; it goes out a little later");

  const worker = consumeQueue<PredictionJobData | BulkChunkData, Completion | number>(modelName, runJob, {
    redis,
    log: log.child({ model: modelName }),
    name: "queue",
    prefix: source === "bulk" ? names.bulkQueuePrefix(modelName) : names.queuePrefix(modelName),
    concurrency: pool.capacity,
    maxStalledCount: MAX_STALLS,
    removeOnComplete: { age: model.result_ttl_seconds, count: MAX_KEPT },
    removeOnFail: { age: model.result_ttl_seconds, count: MAX_KEPT },
  });
  function onFault(error: Error): void {
    worker.emit("error", error);
  }
  const notifyCompletion = createNotifier(redis, names, source);
  // Only once the end is in Redis, so that an input outlives every worker that may still need it.
  const cleanUp = (job: PredictionJob, wasRead: boolean) => {
    if (job.data.webhook) deliveries.now(modelName, job.data.webhook).catch(warnOfWebhook(job));
    endInputs(job, wasRead).catch(warnOfInput(job.id!));
  };
  worker.on("completed", (job) => {
    const prediction = asPrediction(job);
    if (prediction) cleanUp(prediction, true);
  });
  worker.on("failed", (job, error) => {
    logFailure(job?.id, Boolean(job?.finishedOn), error);
    if (!job?.finishedOn) return;
    notifyCompletion(modelName, job.id!);
    const prediction = asPrediction(job);
    if (prediction) cleanUp(prediction, READ_ALL_THE_SAME.has(codeOf(error)));
  });
  worker.on("stalled", (id) =>
    log.warn({ model: modelName, prediction: id }, "taken over from a lost worker"),
  );
  adjust();

  return {
    adjust,
    close: () => worker.close(),
  };
}

type BulkOrPredictionJob = Job<PredictionJobData | BulkChunkData, Completion | number>;

/** Undefined for a chunk. */
function asPrediction(job: BulkOrPredictionJob): PredictionJob | undefined {
  return isChunk(job.data) ? undefined : (job as PredictionJob);
}

/** What nobody foresaw may pass. */
function asInfermillError(error: unknown): InfermillError {
  return toInfermillError(error, (detail, options) => new RetryableError(detail, options));
}

/** Of an error as it is thrown, or as BullMQ was given it. */
function codeOf(error: Error): string {
  return error instanceof InfermillError ? error.code : failureOf(error.message).code;
}

/** Decides here and nowhere else whether BullMQ tries a job again. */
function jobError(error: InfermillError): Error {
  const reason = failedReason(error);
  const failure = error.retryable ? new Error(reason) : new UnrecoverableError(reason);
  if (error.stack) failure.stack = error.stack;
  return failure;
}
