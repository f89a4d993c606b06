/**
 * Works on the bulk runs of the service, a few of each model and priority side by side: no run waits for one of another
 * model, or for a less urgent one. A run whose coordinator died is found by stall detection and taken over by another.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { rememberBriefly } from "../core/remember.ts";
import { consumeQueue, untilTaken } from "../queue/bullmq.ts";
import { DelayedError, type Job, UnrecoverableError, WaitingError } from "../queue/bullmqPackage.ts";
import type { Logger } from "pino";
import type { Config } from "../config/schema.ts";
import { MAX_DURATION_MS } from "../config/webhooks.ts";
import { diskFaultOf } from "../core/diskFaults.ts";
import {
  BulkRunNotFoundError,
  DiskFullError,
  InfermillError,
  RedisUnavailableError,
  toInfermillError,
} from "../errors.ts";
import { reportCoordinator } from "../queue/coordination.ts";
import { openBulkQueues } from "../queue/bulkQueue.ts";
import { connectRedis } from "../redis/connections.ts";
import { redisFaultOf } from "../redis/refusals.ts";
import { Deliveries } from "../queue/deliveries.ts";
import { failedReason, failureOf } from "../queue/jobs.ts";
import { BULK_QUEUE, createNames } from "../queue/names.ts";
import { HEARTBEAT_INTERVAL_MS, readWorkerReports } from "../queue/workerReports.ts";
import { processSpan } from "../queue/spans.ts";
import { inSpan } from "../tracing/tracing.ts";
import { RunTakenOverError } from "./resultsFile.ts";
import { openBulkRuns, PoisonousRunError, type BulkRuns, type BulkState } from "./runs.ts";
import type { BulkSpec } from "./spec.ts";
import { Turns, type Turn } from "./turns.ts";
import { hasEnded } from "../core/bulkRun.ts";
import { notifyBulkRunEnded } from "./webhook.ts";
import { workOnRun, type WorkOptions } from "./work.ts";

/** Runs of a model and priority that one coordinator works on side by side; they share the window in Redis. */
const SIDE_BY_SIDE = 8;
/** Runs that one coordinator holds; whoever has no turn yet costs next to nothing. */
const MAX_HELD = 1000;
/** How often it is looked whether one that waits for its turn was cancelled. */
const LOOK_INTERVAL_MS = 1000;
/** Losing a coordinator is never a run's fault. */
const MAX_STALLS = 1000;
/** When a run is looked at again that another process works on. */
const LATER_MS = 1000;
/** And one whose files find no room. */
const DISK_LATER_MS = 10_000;
const SWEEP_INTERVAL_MS = 10 * 60_000;
const FORGOTTEN_INTERVAL_MS = 60_000;

export interface BulkCoordinatorOptions {
  config: Config;
  redisUrl: string;
  log: Logger;
}

export interface BulkCoordinator {
  /** Lets go of the runs; another coordinator, or this one after its next start, resumes them. */
  close(): Promise<void>;
}

export async function startBulkCoordinator(options: BulkCoordinatorOptions): Promise<BulkCoordinator> {
  const { config, redisUrl, log } = options;
  const tools = await openBulkTools(options);
  const redis = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "worker");
  const names = createNames(config.redis_prefix, redis.isCluster);
  const closing = new AbortController();

  /** Runs whose coordinator was lost without progress: one at a time, so that the next loss has one suspect. */
  const suspects = new Turns(1);
  const places = new Turns(SIDE_BY_SIDE);
  /** Those that wait for their turn, each with what ends its wait. */
  const waiting = new Map<string, AbortController>();
  let lastReading: Promise<unknown> = Promise.resolve();
  /** The runs of this process. */
  const working = new Map<string, { letGo: AbortController; done: Promise<void> }>();

  /** A run whose lock was lost while Redis was away is given out again, to this process, too. */
  async function workAlone(job: Job, token?: string): Promise<void> {
    const id = job.id!;
    const earlier = working.get(id);
    if (earlier) {
      earlier.letGo.abort();
      await earlier.done.catch(() => {});
      // Not now: BullMQ stops renewing the lock of this id when it is done with the earlier one.
      return later(job, token);
    }
    const letGo = new AbortController();
    const done = work(job, token, letGo.signal);
    working.set(id, { letGo, done });
    await done.finally(() => working.delete(id));
  }

  /** Who comes first gets the first turn, however long reading takes. */
  function inOrder<T>(read: () => Promise<T>): Promise<T> {
    const reading = lastReading.then(read);
    lastReading = reading.catch(() => {});
    return reading;
  }

  async function work(job: Job, token: string | undefined, letGo: AbortSignal): Promise<void> {
    const id = job.id!;
    const signal = AbortSignal.any([closing.signal, letGo]);
    let turns: { alone: Turn | undefined; end(): void } | undefined;
    let hasBegun = false;
    try {
      const { spec, run, turning } = await inOrder(async () => {
        const read = await tools.runs.folder(id).readSpec();
        await tools.runs.register(read, 0);
        const found = await tools.runs.read(id);
        // In an object: who comes next waits for this reading, not for these turns.
        return {
          spec: read,
          run: found,
          turning: hasEnded(found.status) ? undefined : takeTurns(read, signal),
        };
      });
      // Ended, but its coordinator died before the queue knew.
      if (!turning) return await tools.runs.end(id, "completed");
      turns = await turning;
      if (signal.aborted) return await giveBack(job, token, letGo);
      await tools.runs.beginWork(id);
      hasBegun = true;
      const outcome = await workOnRun(spec, {
        ...tools,
        config,
        log,
        signal,
        onHeartbeat: (state) => {
          // With an entry that ended the run has shown that it kills nobody.
          if (state.succeeded + state.failed > run.counts.done) turns?.alone?.end();
          job.updateProgress(progressOf(state)).catch(() => {});
        },
      });
      if (outcome !== "released") await untilTaken(() => showProgress(job, tools.runs), onFault);
      if (outcome === "failed") throw new UnrecoverableError(await reasonOf(id));
      if (outcome !== "released") return;
    } catch (error) {
      if (error instanceof WaitingError || error instanceof UnrecoverableError) throw error;
      return await fail(job, token, redisFaultOf(error) ?? diskFaultOf(error) ?? error, {
        runs: tools.runs,
        log,
        onFault,
      });
    } finally {
      turns?.end();
      if (hasBegun && !letGo.aborted) await tools.runs.endWork(id).catch(onFault);
    }
    return giveBack(job, token, letGo);
  }

  /** One that is cancelled, let go of, or over its deadline waits no longer. */
  async function takeTurns({ id, model, priority, limits }: BulkSpec, signal: AbortSignal) {
    const waits = new AbortController();
    const until = AbortSignal.any([signal, waits.signal]);
    waiting.set(id, waits);
    const placing = places.take(`${model} ${priority}`, until);
    let timer: NodeJS.Timeout | undefined;
    try {
      const { isResumed } = await tools.runs.readResumption(id);
      if (limits?.deadline !== undefined && !isResumed)
        timer = setTimeout(() => waits.abort(), Math.min(limits.deadline - Date.now(), MAX_DURATION_MS));
      const place = await placing;
      const alone = (await tools.runs.isSuspect(id)) ? await suspects.take("", until) : undefined;
      return {
        alone,
        end() {
          alone?.end();
          place?.end();
        },
      };
    } catch (error) {
      waits.abort();
      void placing.then((place) => place?.end());
      throw error;
    } finally {
      clearTimeout(timer);
      waiting.delete(id);
    }
  }

  /** For the dashboard. */
  async function reasonOf(id: string): Promise<string> {
    const { error } = await tools.runs.read(id);
    return error ? `${error.code}: ${error.detail}` : "failed";
  }

  async function endWaitOfCancelled(): Promise<void> {
    if (waiting.size === 0) return;
    for (const id of await tools.runs.findCancelled([...waiting.keys()])) waiting.get(id)?.abort();
  }

  /** Without its lock the job is no longer this process's to move. */
  async function giveBack(job: Job, token: string | undefined, letGo: AbortSignal): Promise<never> {
    if (!letGo.aborted) await job.moveToWait(token).catch(onFault);
    throw new WaitingError();
  }

  /** A span each time that it is taken up, until it has ended or is let go. */
  const workTraced = (job: Job, token?: string) =>
    inSpan(
      `process ${BULK_QUEUE}`,
      processSpan(BULK_QUEUE, job),
      () => workAlone(job, token),
      (error) =>
        error instanceof WaitingError || error instanceof DelayedError
          ? undefined
          : failureOf((error as Error).message).code,
    );

  const worker = consumeQueue(BULK_QUEUE, workTraced, {
    redis,
    log,
    name: "bulk",
    prefix: names.queuePrefix(undefined),
    concurrency: MAX_HELD,
    maxStalledCount: MAX_STALLS,
  });
  const onFault = (error: Error) => void worker.emit("error", error);
  worker.on("lockRenewalFailed", (ids) => {
    for (const id of ids) working.get(id)?.letGo.abort();
  });
  worker.on("stalled", (run) => log.warn({ run }, "taken over from a lost coordinator"));
  const report = reportCoordinator(redis, names, `${hostname()}-${process.pid}-${randomUUID()}`, onFault);
  const sweep = async () => {
    const count = await tools.runs.sweep().catch(() => 0);
    if (count > 0) log.info({ count }, "removed bulk runs that are older than bulk_ttl_seconds");
  };
  void sweep();
  const sweeper = setInterval(() => void sweep(), SWEEP_INTERVAL_MS);
  const enqueueForgotten = async () => {
    const enqueued = await tools.runs.enqueueForgotten().catch(() => []);
    for (const run of enqueued) log.warn({ run }, "enqueued for a process that died before it could");
  };
  void enqueueForgotten();
  const forgottenTimer = setInterval(() => void enqueueForgotten(), FORGOTTEN_INTERVAL_MS);
  const looker = setInterval(() => void endWaitOfCancelled().catch(() => {}), LOOK_INTERVAL_MS);

  return {
    async close() {
      clearInterval(sweeper);
      clearInterval(forgottenTimer);
      clearInterval(looker);
      report.stop();
      closing.abort();
      await worker.close();
      redis.disconnect();
      await tools.close();
    },
  };
}

export type BulkTools = Pick<WorkOptions, "runs" | "bulkQueues" | "capacityOf" | "sideBySide"> & {
  close(): Promise<void>;
};

/** What it takes to work on runs, in the coordinator and on the command line. */
export async function openBulkTools({
  config,
  redisUrl,
}: Pick<BulkCoordinatorOptions, "config" | "redisUrl">): Promise<BulkTools> {
  const redis = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "producer");
  const names = createNames(config.redis_prefix, redis.isCluster);
  const deliveries = new Deliveries(redis, names, config);
  const runs = await openBulkRuns(config, redisUrl, notifyBulkRunEnded(deliveries));
  const bulkQueues = await openBulkQueues(config, redisUrl);
  const reports = rememberBriefly(() => readWorkerReports(redis, names), HEARTBEAT_INTERVAL_MS);
  return {
    runs,
    bulkQueues,
    sideBySide: new Map(),
    async capacityOf(model) {
      const serving = (await reports().catch(() => [])).flatMap(({ models }) => models[model] ?? []);
      return {
        workers: serving.length,
        capacity: serving.reduce((sum, { capacity }) => sum + capacity, 0),
      };
    },
    async close() {
      await runs.close();
      await bulkQueues.close();
      await deliveries.close();
      redis.disconnect();
    },
  };
}

async function showProgress(job: Job, runs: BulkRuns): Promise<void> {
  await job.updateProgress(progressOf(await runs.read(job.id!)));
}

/** The dashboard draws a ring from the number `progress`. */
function progressOf(state: BulkState | { counts: { total: number; succeeded: number; failed: number } }) {
  const { total, succeeded, failed } = "counts" in state ? state.counts : state;
  const done = succeeded + failed;
  const rate = "rate" in state ? Math.round(state.rate * 10) / 10 : undefined;
  return { progress: total > 0 ? Math.floor((100 * done) / total) : 0, total, done, succeeded, failed, rate };
}

/** Decides whether BullMQ tries the run again; the last fault ends it. */
async function fail(
  job: Job,
  token: string | undefined,
  thrown: unknown,
  { runs, log, onFault }: { runs: BulkRuns; log: Logger; onFault: (error: Error) => void },
): Promise<never> {
  if (thrown instanceof BulkRunNotFoundError) throw new UnrecoverableError(thrown.message);
  const error = toInfermillError(thrown, (detail, cause) => new InfermillError(detail, cause));
  // None of the run's own faults: they don't count.
  const isDisk = error instanceof DiskFullError;
  if (isDisk || error instanceof RunTakenOverError || error instanceof RedisUnavailableError) {
    log.warn({ run: job.id }, `the bulk run has to wait: ${error.message}`);
    return untilTaken(() => later(job, token, isDisk ? DISK_LATER_MS : LATER_MS), onFault);
  }
  log.error({ run: job.id, err: thrown }, `the bulk run can't continue: ${error.message}`);
  const isHopeless = error.status < 500 || error instanceof PoisonousRunError;
  const isLast = job.attemptsMade + 1 >= (job.opts.attempts ?? 1);
  if (!isHopeless && !isLast) throw error;
  await runs.end(job.id!, "failed", undefined, error.toSummary());
  throw new UnrecoverableError(failedReason(error));
}

async function later(job: Job, token: string | undefined, ms = LATER_MS): Promise<never> {
  await job.moveToDelayed(Date.now() + ms, token);
  throw new DelayedError();
}
