/**
 * Webhook deliveries as jobs of a queue of their own. The delivery of a
 * prediction's end is added in the very transaction that accepts the prediction
 * and waits there, so that no crash can part the two; whoever ends the prediction
 * promotes it. Sending is src/webhooks. On a Redis Cluster, where one transaction can't reach two slots, each model has
 * a queue of deliveries in its own.
 */
import { deliveryLinks } from "../core/links.ts";
import { openQueue } from "./bullmq.ts";
import type { JobType } from "bullmq";
import { Job, type Queue } from "./bullmqPackage.ts";
import type { Config } from "../config/schema.ts";
import type { WebhookEventType } from "../config/webhooks.ts";
import { DeliveryNotFoundError } from "../errors.ts";
import { reachRedis, type RedisClient } from "../redis/connections.ts";
import { jobTelemetry } from "../tracing/tracing.ts";
import { toIsoTime } from "./jobs.ts";
import { isPredictionId as isJobId, newDeliveryId, type Names } from "./names.ts";

/** Where a completion is delivered, and of which ends. */
export interface Webhook {
  url: string;
  events: readonly WebhookEventType[];
}

/** What a receiver gets as JSON. */
export interface WebhookEvent {
  type: WebhookEventType;
  /** When it happened; ISO 8601, UTC. */
  timestamp: string;
  data: { links: Record<string, string> };
}

export interface DeliveryData extends Webhook {
  /** The prediction whose end is told. */
  prediction?: { model: string; id: string };
  /** What is sent: there from the start, or since it had to wait or was sent in vain, so that the prediction's removal can't undo it. */
  event?: WebhookEvent;
  /** Unix time in ms before which the next attempt must not start, whoever promotes the delivery. */
  not_before?: number;
}

/** A delivery's return value. */
export interface DeliveryOutcome {
  /** `skipped`: the prediction ended otherwise than its webhook asked for. */
  status: "delivered" | "skipped";
  event: WebhookEventType;
}

export type DeliveryJob = Job<DeliveryData, DeliveryOutcome>;

/** One attempt, as the job's log has it: a line of JSON. */
export interface DeliveryAttempt {
  at: string;
  /** HTTP status; null where there was no answer. */
  status: number | null;
  error: string | null;
  ms: number;
}

export const DELIVERY_STATUSES = ["pending", "delivered", "skipped", "failed"] as const;
export type DeliveryStatus = (typeof DELIVERY_STATUSES)[number];

/** A delivery as clients see it. */
export interface Delivery {
  /** Also the `webhook-id` of every attempt. */
  id: string;
  url: string;
  status: DeliveryStatus;
  /** null until the prediction ended. */
  event: WebhookEventType | null;
  prediction: { model: string; id: string } | null;
  /** Id of the bulk run whose end is told. */
  run: string | null;
  created_at: string;
  finished_at: string | null;
  /** When it is tried next, where it failed and is tried again. */
  next_attempt_at: string | null;
  error: string | null;
  attempts: DeliveryAttempt[];
  links: { self: string; replay: string };
}

/** Whoever ends a prediction promotes its delivery; this is for an api that died between the two. */
export const LOOK_WAITING_MS = 2 * 60_000;
/** The same for a worker that died, which promotes the delivery before the end, too. */
export const LOOK_RUNNING_MS = 5000;
/** Redis and this process may not agree on the millisecond in which a prediction expires. */
const EXPIRY_MARGIN_MS = 100;
const MAX_LOGGED_ATTEMPTS = 100;
/** For how long a URL that answered 410 is left alone. */
const GONE_SECONDS = 7 * 86_400;

/** Job states behind each status, for lists. */
const STATES = {
  pending: ["active", "wait", "delayed"],
  delivered: ["completed"],
  skipped: ["completed"],
  failed: ["failed"],
} as const satisfies Record<DeliveryStatus, readonly string[]>;

const ALL_STATES = ["active", "wait", "delayed", "failed", "completed"] as const;
/** Jobs that are read at a time, and for one page. */
const PAGE = 100;
const MAX_SEARCHED = 5000;

export interface DeliverySearch {
  status?: DeliveryStatus | undefined;
  /** Id of a prediction, of whatever model. */
  prediction?: string | undefined;
  /** Id of a bulk run. */
  run?: string | undefined;
  /** How many to leave out, of those that are searched. Default: 0. */
  offset?: number;
  /** Default: 100. */
  limit?: number;
}

export interface FoundDeliveries {
  deliveries: Delivery[];
  /** Offset of the next page; null where this is the last. */
  next: number | null;
}

type DeliveryQueue = Queue<DeliveryData, DeliveryOutcome>;

export class Deliveries {
  /** BullMQ's queues by the model whose deliveries they hold; undefined stands for all others. */
  readonly queues: ReadonlyMap<string | undefined, DeliveryQueue>;
  readonly #redis: RedisClient;
  readonly #names: Names;
  readonly #attempts: number;

  /** @param redis shared with the queues of the models, whose transactions add deliveries */
  constructor(redis: RedisClient, names: Names, { models, webhooks }: Pick<Config, "models" | "webhooks">) {
    this.#redis = redis;
    this.#names = names;
    this.#attempts = webhooks.retry_delays_ms.length;
    this.queues = new Map(
      names
        .deliveryOwners(Object.keys(models))
        .map((owner) => [owner, openQueue(names.deliveryQueue, redis, names.queuePrefix(owner))] as const),
    );
  }

  /** The delivery of a prediction that is about to be accepted, to be added in the same transaction. */
  jobFor(
    id: string,
    webhook: Webhook,
    prediction: { model: string; id: string },
    expiresAt: number | undefined,
  ): DeliveryJob {
    const data = { ...webhook, prediction };
    return this.#build(this.#queueOf(prediction.model), id, data, msUntilLook(LOOK_WAITING_MS, expiresAt));
  }

  /**
   * Sends an event that isn't a prediction's.
   * @param id where it is given, the same event is sent only once, however often this is called
   */
  async send(webhook: Webhook, event: WebhookEvent, id = newDeliveryId()): Promise<void> {
    if (!webhook.events.includes(event.type)) return;
    const queue = this.#queueOf(undefined);
    const { data, opts, name } = this.#build(queue, id, { ...webhook, event }, 0);
    await reachRedis(() => queue.add(name, data, opts));
  }

  /** A prediction of a model is about to end: should this process die now, its delivery is looked at soon. */
  soon(model: string, id: string): Promise<void> {
    return ignoreOtherStates(this.#queueOf(model).getBackend().changeDelay(id, LOOK_RUNNING_MS));
  }

  /**
   * A prediction has ended: its delivery goes out.
   * @param model undefined of what isn't a prediction's
   */
  now(model: string | undefined, id: string): Promise<void> {
    return ignoreOtherStates(this.#queueOf(model).getBackend().promote(id));
  }

  /** Takes back what was added for a prediction that was there already; at the latest it finds that out by itself. */
  async discard(model: string, id: string): Promise<void> {
    await this.#queueOf(model)
      .remove(id)
      .catch(() => {});
  }

  /** @throws DeliveryNotFoundError */
  async read(id: string): Promise<Delivery> {
    return this.#describe(await this.#readJob(id));
  }

  /** Undefined where it is no longer on record. */
  async find(id: string): Promise<Delivery | undefined> {
    return this.read(id).catch((error) => {
      if (error instanceof DeliveryNotFoundError) return undefined;
      throw error;
    });
  }

  /**
   * A page of those of one status or of all, of one prediction or bulk run or of all; the newest of each state first. At
   * most MAX_SEARCHED are looked at.
   */
  async search({
    status,
    prediction,
    run,
    offset = 0,
    limit = 100,
  }: DeliverySearch): Promise<FoundDeliveries> {
    const states = status === undefined ? ALL_STATES : STATES[status];
    const counts = await this.#countEach(...states);
    const fits = ({ data, returnvalue }: DeliveryJob) =>
      (prediction === undefined || data.prediction?.id === prediction) &&
      (run === undefined || runOf(data) === run) &&
      (status === undefined || status === "pending" || status === "failed" || returnvalue?.status === status);
    // One that is sent meanwhile is met in two states.
    const found = new Map<string, DeliveryJob>();
    let [left, position] = [offset, offset];
    for (const state of states) {
      const all = sumOf(counts, state);
      for await (const job of newestIn(state, counts, Math.min(left, all), Math.min(PAGE, limit))) {
        if (found.size >= limit || position >= offset + MAX_SEARCHED)
          return { deliveries: await this.#describeAll(found), next: position };
        if (job && fits(job)) found.set(job.id!, job);
        position++;
      }
      left = Math.max(0, left - all);
    }
    return { deliveries: await this.#describeAll(found), next: null };
  }

  #describeAll(jobs: ReadonlyMap<string, DeliveryJob>): Promise<Delivery[]> {
    return Promise.all([...jobs.values()].map((job) => this.#describe(job)));
  }

  /** How many there are of each status; skipped ones count as delivered. */
  async count(): Promise<{ pending: number; delivered: number; failed: number }> {
    const counts = await this.#countEach("wait", "active", "delayed", "completed", "failed");
    return {
      pending: sumOf(counts, "wait", "active", "delayed"),
      delivered: sumOf(counts, "completed"),
      failed: sumOf(counts, "failed"),
    };
  }

  /** How many wait for a coordinator, or are with one, at this moment. */
  async countDue(): Promise<number> {
    return sumOf(await this.#countEach("wait", "active"), "wait", "active");
  }

  /** Of each queue how many are in each state. */
  #countEach(...states: readonly JobType[]): Promise<QueueCounts> {
    return reachRedis(async () => {
      const queues = [...this.queues.values()];
      const counts = await Promise.all(queues.map((queue) => queue.getJobCounts(...states)));
      return queues.map((queue, index) => ({ queue, counts: counts[index]! }));
    });
  }

  /**
   * Sends a delivery once more, with all its attempts before it, or at once where it waits for its next attempt. A URL
   * that was gone gets another chance.
   * @throws DeliveryNotFoundError
   */
  async replay(id: string): Promise<Delivery> {
    const job = await this.#readJob(id);
    const state = await reachRedis(() => job.getState());
    await reachRedis(() => this.#redis.zrem(this.#names.goneWebhooks, job.data.url));
    await reachRedis(() => job.updateData({ ...job.data, not_before: 0 }));
    if (state === "failed" || state === "completed")
      await reachRedis(() => ignoreOtherStates(job.retry(state, { resetAttemptsMade: true })));
    else await reachRedis(() => this.now(job.data.prediction?.model, id));
    return this.read(id);
  }

  /** Leaves a URL alone that answered 410. */
  async markGone(url: string): Promise<void> {
    await reachRedis(async () => {
      await this.#redis.zremrangebyscore(this.#names.goneWebhooks, "-inf", Date.now());
      await this.#redis.zadd(this.#names.goneWebhooks, Date.now() + GONE_SECONDS * 1000, url);
    });
  }

  async isGone(url: string): Promise<boolean> {
    const until = await reachRedis(() => this.#redis.zscore(this.#names.goneWebhooks, url));
    return until !== null && Number(until) > Date.now();
  }

  /** URLs that answered 410, and until when they are left alone. */
  async listGone(): Promise<{ url: string; until: string }[]> {
    const pairs = await reachRedis(async () => {
      await this.#redis.zremrangebyscore(this.#names.goneWebhooks, "-inf", Date.now());
      return this.#redis.zrange(this.#names.goneWebhooks, 0, "-1", "WITHSCORES");
    });
    return pairs.flatMap((url, index) =>
      index % 2 === 0 ? [{ url, until: new Date(Number(pairs[index + 1])).toISOString() }] : [],
    );
  }

  async close(): Promise<void> {
    await Promise.all([...this.queues.values()].map((queue) => queue.close()));
  }

  #queueOf(model: string | undefined): DeliveryQueue {
    return this.queues.get(model) ?? this.queues.get(undefined)!;
  }

  #build(queue: DeliveryQueue, id: string, data: DeliveryData, delay: number): DeliveryJob {
    const options = {
      jobId: id,
      delay,
      attempts: this.#attempts,
      backoff: { type: "webhook" },
      keepLogs: MAX_LOGGED_ATTEMPTS,
      stackTraceLimit: 0,
      ...jobTelemetry(),
    };
    return new Job(queue, "deliver", data, options, id) as DeliveryJob;
  }

  async #readJob(id: string): Promise<DeliveryJob> {
    // What can't be an id could be another of the queue's keys.
    const queues = isJobId(id) ? [...this.queues.values()] : [];
    const jobs = await reachRedis(() => Promise.all(queues.map((queue) => queue.getJob(id))));
    const job = jobs.find((each) => each !== undefined);
    if (job) return job;
    throw new DeliveryNotFoundError(`there is no delivery ${JSON.stringify(id.slice(0, 200))}`);
  }

  async #describe(job: DeliveryJob): Promise<Delivery> {
    const id = job.id!;
    const queue = this.#queueOf(job.data.prediction?.model);
    const { logs } = await reachRedis(() => queue.getJobLogs(id));
    const { url, event, prediction, not_before } = job.data;
    const attempts = logs.map((line) => JSON.parse(line) as DeliveryAttempt);
    const status = job.finishedOn ? (job.returnvalue?.status ?? "failed") : "pending";
    return {
      id,
      url,
      status,
      event: event?.type ?? job.returnvalue?.event ?? null,
      prediction: prediction ?? null,
      run: runOf(job.data) ?? null,
      created_at: new Date(job.timestamp).toISOString(),
      finished_at: toIsoTime(job.finishedOn),
      next_attempt_at: status === "pending" && attempts.length > 0 ? toIsoTime(not_before) : null,
      error: status === "delivered" || status === "skipped" ? null : (job.failedReason ?? null),
      attempts,
      links: deliveryLinks(id),
    };
  }
}

type QueueCounts = readonly { queue: DeliveryQueue; counts: Readonly<Record<string, number>> }[];

function sumOf(all: QueueCounts, ...states: readonly string[]): number {
  return all.reduce(
    (sum, { counts }) => sum + states.reduce((own, state) => own + (counts[state] ?? 0), 0),
    0,
  );
}

/**
 * Those of all queues in one state, the newest first, without the first `skip`; undefined for one that was removed
 * meanwhile.
 * @param page how many are read at a time
 */
async function* newestIn(
  state: JobType,
  all: QueueCounts,
  skip: number,
  page: number,
): AsyncGenerator<DeliveryJob | undefined> {
  // Of one queue, Redis skips them.
  const start = all.length === 1 ? skip : 0;
  const readers = all.map(({ queue, counts }) => readPages(queue, state, start, counts[state] ?? 0, page));
  const heads = await Promise.all(readers.map((reader) => reader.next()));
  for (let position = start; ; position++) {
    const ages = heads.map(({ done, value }) =>
      done ? -1 : (value?.finishedOn ?? value?.timestamp ?? Infinity),
    );
    const newest = Math.max(...ages);
    if (newest < 0) return;
    const index = ages.indexOf(newest);
    if (position >= skip) yield heads[index]!.value as DeliveryJob | undefined;
    heads[index] = await readers[index]!.next();
  }
}

async function* readPages(
  queue: DeliveryQueue,
  state: JobType,
  start: number,
  end: number,
  page: number,
): AsyncGenerator<DeliveryJob | undefined> {
  for (let first = start; first < end; first += page) {
    const last = Math.min(first + page, end) - 1;
    const jobs = (await reachRedis(() => queue.getJobs([state], first, last))) as (DeliveryJob | undefined)[];
    for (let index = 0; index <= last - first; index++) yield jobs[index];
  }
}

/** The bulk run whose end a delivery tells. */
function runOf({ event }: DeliveryData): string | undefined {
  return event?.type.startsWith("bulk.") ? (event.data as { id?: string }).id : undefined;
}

/** Until a prediction is looked at again that has not ended; one with a time to live ends when nobody else looks, too. */
export function msUntilLook(usual: number, expiresAt: number | undefined): number {
  if (expiresAt === undefined) return usual;
  return Math.min(usual, Math.max(0, expiresAt - Date.now()) + EXPIRY_MARGIN_MS);
}

/** A delivery that is being looked at this moment looks again before it goes back to sleep. */
async function ignoreOtherStates(change: Promise<unknown>): Promise<void> {
  await change.catch((error: Error) => {
    if (!/is not in the|Missing key/.test(error.message)) throw error;
  });
}
