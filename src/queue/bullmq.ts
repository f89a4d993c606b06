/** How infermill opens BullMQ's queues and workers: what all of them have in common. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Processor, WorkerOptions } from "bullmq";
import { Queue, Worker, type Job } from "./bullmqPackage.ts";
import type { RedisClient } from "../redis/connections.ts";
import type { Logger } from "pino";
import { createBackoff } from "../core/backoff.ts";
import { diskFaultOf } from "../core/diskFaults.ts";
import { QueueStorageFullError, RedisRefusedError } from "../errors.ts";
import { redisFaultOf } from "../redis/refusals.ts";
import { createFaultLog } from "./faultLog.ts";

/**
 * A worker that dies keeps its jobs locked for up to `lockDuration`, and a check every `stalledInterval` finds them:
 * recovery takes 10 to 20 s. The processes that hold locks never run a model, so they renew them in time.
 */
const RECOVERY = {
  lockDuration: 10_000,
  stalledInterval: 5000,
  // BullMQ's own loop waits for so long after a fault of the connection.
  runRetryDelay: 1000,
} as const;

/** How long a consumer waits after a command that Redis refused. */
const PAUSES = { firstMs: 250, maxMs: 5000 };

/** How long a consumer that closes is waited for once it has no job: what ended is stored by then. */
const IDLE_CLOSE_MS = 3000;
const CLOSE_LOOK_MS = 50;

/** A queue whose faults reach the caller of each command, and whose event stream stays short: nobody reads it. */
export function openQueue(name: string, redis: RedisClient, prefix: string): Queue {
  const queue = new Queue(name, {
    connection: redis,
    prefix,
    streams: { events: { maxLen: 100 } },
  });
  return queue.on("error", () => {});
}

export interface ConsumeOptions extends Omit<WorkerOptions, "connection"> {
  redis: RedisClient;
  log: Logger;
  /** Begins each line of the log, such as "webhooks". */
  name: string;
}

/** Consumes a queue; whatever Redis refuses is tried again later, and said once. */
export function consumeQueue<Data, Result>(
  queue: string,
  processor: Processor<Data, Result>,
  { redis, log, name, ...options }: ConsumeOptions,
): Worker<Data, Result> {
  const worker = new PatientWorker<Data, Result>(queue, processor, {
    connection: redis,
    ...RECOVERY,
    ...options,
  });
  return worker.on("error", createFaultLog(log, name));
}

/**
 * BullMQ's own loop waits only after a lost connection. Where Redis answers and refuses, it would ask again at once, for
 * ever, and would drop the outcome of a job that can't be finished at this moment.
 */
class PatientWorker<Data, Result> extends Worker<Data, Result> {
  readonly #pauses = createBackoff(PAUSES);
  #isRefused = false;

  constructor(queue: string, processor: Processor<Data, Result>, options: WorkerOptions) {
    super(queue, processor, options);
    this.on("error", (error) => (this.#isRefused = isRefusal(error)));
    // Of a cluster without a node it would make a second connection beside the one that ioredis is about to make.
    const { blockingConnection } = this.backend as unknown as {
      blockingConnection?: { disableBlockingClusterReconnect(): void };
    };
    blockingConnection?.disableBlockingClusterReconnect();
  }

  /** Fetching: a refusal costs a pause, and then there is no job. */
  protected override async moveToActive(token: string, name?: string): Promise<Job<Data, Result>> {
    try {
      const job = await super.moveToActive(token, name);
      this.#pauses.reset();
      this.#isRefused = false;
      return job;
    } catch (error) {
      if (isRefusal(error)) await this.#pause();
      throw error;
    }
  }

  /** Where BullMQ waits for a job and Redis refuses, it waits for a moment that is the same each time. */
  override async delay(...[ms, abort]: Parameters<Worker<Data, Result>["delay"]>): Promise<void> {
    if (ms === undefined && this.#isRefused) return this.#pause();
    return super.delay(ms, abort);
  }

  /** Finishing: an outcome is kept until Redis takes it, or the job's lock is over. */
  protected override async handleCompleted(
    ...finish: Parameters<Worker<Data, Result>["handleCompleted"]>
  ): Promise<Job<Data, Result>> {
    return this.#persist(() => super.handleCompleted(...finish));
  }

  protected override async handleFailed(
    ...finish: Parameters<Worker<Data, Result>["handleFailed"]>
  ): Promise<Job<Data, Result>> {
    // Not the job's fault: it is taken over once its lock is over.
    if (isRefusal(finish[0])) throw finish[0];
    return this.#persist(() => super.handleFailed(...finish));
  }

  /** BullMQ waits for the end of its blocking connection, which a cluster may never tell: without a job, for a moment only. */
  override async close(force?: boolean): Promise<void> {
    const closed = super.close(force).then(() => true);
    closed.catch(() => {});
    for (let idleMs = 0; idleMs < IDLE_CLOSE_MS; idleMs += CLOSE_LOOK_MS) {
      if (await Promise.race([closed, sleep(CLOSE_LOOK_MS, false)])) return;
      if (this.lockManager.getActiveJobCount() > 0) idleMs = 0;
    }
  }

  async #persist<T>(finish: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await finish();
      } catch (error) {
        if (!isRefusal(error) || this.closing) throw error;
        this.emit("error", error as Error);
        await this.#pause();
      }
    }
  }

  async #pause(): Promise<void> {
    if (!this.closing) await sleep(this.#pauses.next());
  }
}

/** Runs something that writes to Redis or the disk again and again, as long as those refuse it. */
export async function untilTaken<T>(work: () => Promise<T>, onFault: (error: Error) => void): Promise<T> {
  const pauses = createBackoff(PAUSES);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isRefusal(error) && !diskFaultOf(error)) throw error;
      onFault(error as Error);
      await sleep(pauses.next());
    }
  }
}

/** Whether Redis answered, with a refusal. */
function isRefusal(error: unknown): boolean {
  const fault = redisFaultOf(error);
  return fault instanceof RedisRefusedError || fault instanceof QueueStorageFullError;
}
