/**
 * Consumes a queue of one model, its own or its bulkQueue: fetch, batch, store,
 * tell. Locks, stalls, retries and priorities are BullMQ's; each job waits here for its own outcome,
 * whatever batch it ran in.
 */
import { consumeQueue, untilTaken } from "../queue/bullmq.ts";
import type { RedisClient } from "../redis/connections.ts";
import { UnrecoverableError, WaitingError } from "bullmq";
import type { Logger } from "pino";
import type { ModelConfig } from "../config/schema.ts";
import { InfermillError, PredictionExpiredError, RetryableError, toInfermillError } from "../errors.ts";
import { createNotifier } from "../queue/completionEvents.ts";
import type { Output, ResponseDictionary } from "../core/request.ts";
import type { Deliveries } from "../queue/deliveries.ts";
import type { InputStore, LocalInputRef } from "../queue/inputs.ts";
import {
  failedReason,
  failureOf,
  type Completion,
  type PredictionJob,
  type PredictionJobData,
} from "../queue/jobs.ts";
import { PRIORITIES, type Timings } from "../core/prediction.ts";
import { partsOfBulkPredictionId, type Names } from "../queue/names.ts";
import type { OutputOwner, OutputStore } from "../queue/outputs.ts";
import { storeResponse } from "../queue/responses.ts";
import { processSpan } from "../queue/spans.ts";
import { inSpan, isTracing, type Span } from "../tracing/tracing.ts";
import { timingAttributes } from "./batchSpans.ts";
import type { EndOfInputs } from "./endOfInputs.ts";
import { NotStartedError, type EnginePool } from "./enginePool.ts";
import type { FetchedInputs, FetchInputs } from "./urlInputs.ts";

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
  let fetching = 0;

  /** Those of bulk runs have no spans: their run has one. */
  function takePrediction(job: PredictionJob, token?: string): Promise<Completion> {
    if (source === "bulk" || !isTracing()) return runPrediction(job, token);
    return inSpan(
      `process ${modelName}`,
      processSpan(modelName, job),
      (span) => runPrediction(job, token, span),
      (error) => (error instanceof WaitingError ? undefined : failureOf((error as Error).message).code),
    );
  }

  async function runPrediction(job: PredictionJob, token?: string, span?: Span): Promise<Completion> {
    let pictures: FetchedInputs | undefined;
    let wasRead = false;
    try {
      if (job.data.expires_at && job.data.expires_at < Date.now())
        throw new PredictionExpiredError("it waited for longer than its ttl_ms");
      pictures = await fetchElsewhere(job);
      const result = await pool.run({
        id: job.id!,
        request: job.data.request,
        inputs: pictures.refs,
        priority: job.priority || PRIORITIES.normal,
        timeoutMs: Math.min(job.data.timeout_ms ?? Infinity, model.timeout_ms),
        expiresAt: job.data.expires_at,
        span,
      });
      wasRead = true;
      const { response, outputs, timings, batchSize, engine, startedAt } = result;
      const ownTimings = {
        ...timings,
        queue_ms: Math.max(0, startedAt - job.timestamp - pictures.ms),
        read_ms: timings.read_ms + pictures.ms,
      };
      pool.addTimings(ownTimings);
      span?.setAttributes({ ...timingAttributes(ownTimings), "infermill.batch_size": batchSize });
      const stored = await untilTaken(() => store(job, response, outputs), onFault);
      // Sent right behind BullMQ's own command, which goes out before the event loop turns: a round trip less than after it.
      notifyCompletion(modelName, job.id!);
      return {
        ...stored,
        timings: rounded(ownTimings),
        batch_size: batchSize,
        engine,
      };
    } catch (error) {
      if (error instanceof NotStartedError) {
        await job.moveToWait(token);
        throw new WaitingError();
      }
      throw jobError(toInfermillError(error, (detail, options) => new RetryableError(detail, options)));
    } finally {
      pictures?.release();
      if (pictures && pictures.fetched.length > 0)
        endFetched(job, pictures.fetched, wasRead).catch(warnOfInput(job));
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

  function endFetched({ id }: PredictionJob, fetched: readonly LocalInputRef[], wasRead: boolean) {
    return source === "bulk"
      ? inputs.remove(fetched)
      : endOfInputs.endFetched({ model: modelName, id: id! }, fetched, wasRead);
  }

  async function store(job: PredictionJob, response: ResponseDictionary, outputs: readonly Output[]) {
    const { stored, bytes } = await storeResponse(job, response);
    const refs = outputs.length > 0 ? await outputStore.write(ownerOf(job.id!), outputs) : [];
    const inRedis = refs.reduce((sum, ref) => sum + ("redis" in ref || "data" in ref ? ref.bytes : 0), bytes);
    pool.addResponseBytes(inRedis);
    return { ...stored, ...(refs.length > 0 && { outputs: refs }) };
  }

  function ownerOf(id: string): OutputOwner {
    if (source === "queue") return { model: modelName, id };
    const { run, index } = partsOfBulkPredictionId(id);
    return { model: modelName, bulkRun: run, index };
  }

  async function fetchElsewhere({ data }: PredictionJob): Promise<FetchedInputs> {
    if (!fetchInputs.isNeeded(data.inputs)) return fetchInputs(modelName, data.inputs);
    fetching++;
    adjust();
    try {
      return await untilTaken(() => fetchInputs(modelName, data.inputs), onFault);
    } finally {
      fetching--;
      adjust();
    }
  }

  function adjust(): void {
    worker.concurrency = pool.capacity + Math.min(fetching, MAX_FETCHING);
  }

  /** What the client can't help is seen at the default level, once it isn't tried again. */
  function logFailure(job: PredictionJob | undefined, error: Error): void {
    const facts = { model: modelName, prediction: job?.id, final: Boolean(job?.finishedOn), err: error };
    const isFault = facts.final && !NO_FAULTS.has(failureOf(error.message).code);
    if (isFault) log.warn(facts, `prediction failed: ${error.message}`);
    else log.debug(facts, `prediction failed: ${error.message}`);
  }

  const warnOfInput = (job: PredictionJob) => (error: unknown) =>
    log.warn({ err: error, prediction: job.id }, "input not removed");
  const warnOfWebhook = (job: PredictionJob) => (error: unknown) =>
    log.warn({ err: error, prediction: job.id }, "webhook delivery not promoted; it goes out a little later");

  const worker = consumeQueue<PredictionJobData, Completion>(modelName, takePrediction, {
    redis,
    log: log.child({ model: modelName }),
    name: "queue",
    prefix: source === "bulk" ? names.bulkQueuePrefix(modelName) : names.queuePrefix(modelName),
    concurrency: pool.capacity,
    maxStalledCount: MAX_STALLS,
    removeOnComplete: { age: model.result_ttl_seconds, count: MAX_KEPT },
    removeOnFail: { age: model.result_ttl_seconds, count: MAX_KEPT },
  });
  const onFault = (error: Error) => void worker.emit("error", error);
  const notifyCompletion = createNotifier(redis, names, source);
  // Only once the end is in Redis, so that an input outlives every worker that may still need it.
  const cleanUp = (job: PredictionJob, wasRead: boolean) => {
    if (job.data.webhook) deliveries.now(modelName, job.data.webhook).catch(warnOfWebhook(job));
    endInputs(job, wasRead).catch(warnOfInput(job));
  };
  worker.on("completed", (job) => cleanUp(job, true));
  worker.on("failed", (job, error) => {
    logFailure(job, error);
    if (!job?.finishedOn) return;
    notifyCompletion(modelName, job.id!);
    cleanUp(job, READ_ALL_THE_SAME.has(failureOf(error.message).code));
  });
  worker.on("stalled", (id) =>
    log.warn({ model: modelName, prediction: id }, "taken over from a lost worker"),
  );

  return {
    adjust,
    close: () => worker.close(),
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
