/**
 * Works the queue of deliveries: waits for each prediction's end, sends its
 * event, tries again. Delivered is what was answered with 2xx; until then a
 * delivery is tried as often as the configuration says, and may arrive more than
 * once.
 */
import { consumeQueue, untilTaken } from "../queue/bullmq.ts";
import { createFaultLog } from "../queue/faultLog.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { DelayedError, UnrecoverableError } from "../queue/bullmqPackage.ts";
import type { Logger } from "pino";
import type { Config } from "../config/schema.ts";
import { createEgress } from "../egress/egress.ts";
import { PredictionNotFoundError } from "../errors.ts";
import { connectRedis } from "../redis/connections.ts";
import { redisFaultOf } from "../redis/refusals.ts";
import {
  LOOK_RUNNING_MS,
  LOOK_WAITING_MS,
  msUntilLook,
  type DeliveryAttempt,
  type DeliveryData,
  type DeliveryJob,
  type DeliveryOutcome,
  type WebhookEvent,
} from "../queue/deliveries.ts";
import { isFinal } from "../core/prediction.ts";
import { openPredictions } from "../queue/predictions.ts";
import { carrierOf } from "../tracing/tracing.ts";
import { version } from "../version.ts";
import { attemptDelivery } from "./attempt.ts";
import { eventOfPrediction, withAbsoluteLinks } from "./event.ts";
import { Receivers, type Visit } from "./receivers.ts";
import { provideSecrets } from "./secret.ts";

/** Deliveries in flight, to all receivers together: each dead one holds a single one of them. */
const CONCURRENCY = 2000;
/** A delivery that waits for room at its receiver is woken; this is for a coordinator that died, and its list with it. */
const ROOM_LIMIT_MS = 15_000;
/** And longer where many wait, so that no more than a hundred a second wake at one receiver, in vain. */
const ROOM_LIMIT_EACH_MS = 10;
const MAX_STALLS = 100;
/** Deliveries stay on record for a day, those that failed for good for a month. */
const KEPT_DELIVERED = { age: 86_400, count: 100_000 };
const KEPT_FAILED = { age: 30 * 86_400, count: 100_000 };
/** Receivers that were down together are not to be asked together again. */
const JITTER = 0.2;
const REDIS_PAUSE_MS = 1000;

export interface RunningDelivery {
  /** Starts no attempt any more, waits up to `limitMs` for those in flight. */
  close(limitMs: number): Promise<void>;
}

export async function startWebhookDelivery({
  config,
  redisUrl,
  log,
}: {
  config: Config;
  redisUrl: string;
  log: Logger;
}): Promise<RunningDelivery> {
  const { allow, retry_delays_ms: delays, timeout_ms: timeoutMs } = config.webhooks;
  const { secrets, file } = await provideSecrets(config);
  if (file) log.debug(`webhooks are signed with the secret in ${file}`);
  const egress = createEgress({ allow, allowKey: "webhooks.allow" });
  const userAgent = `infermill/${version}`;
  const predictions = await openPredictions(config, redisUrl);
  const { deliveries, names } = predictions;
  const receivers = new Receivers(CONCURRENCY, (key) => {
    const [model, id] = key.split(" ") as [string, string];
    deliveries.now(model || undefined, id).catch((error) => log.debug(`webhooks: ${error.message}`));
  });
  const keyOf = (job: DeliveryJob) => `${job.data.prediction?.model ?? ""} ${job.id}`;

  async function deliver(job: DeliveryJob, token?: string): Promise<DeliveryOutcome> {
    try {
      // Woken for an end that it was sent for already, in vain so far.
      const early = (job.data.not_before ?? 0) - Date.now();
      if (early > 0) return await putBack(job, early, token);
      const event = job.data.event ?? (await awaitEvent(job, token));
      if (!job.data.events.includes(event.type)) return { status: "skipped", event: event.type };
      const { host } = new URL(job.data.url);
      const visit = receivers.visit(host, keyOf(job));
      return visit ? await send(job, event, visit) : await awaitRoom(job, event, host, token);
    } catch (error) {
      // Redis was away or refused, which is not the receiver's fault and costs no attempt.
      if (!redisFaultOf(error)) throw error;
      onFault(error as Error);
      return untilTaken(() => putBack(job, REDIS_PAUSE_MS, token), onFault);
    }
  }

  const onFault = createFaultLog(log, "webhooks");

  async function send(job: DeliveryJob, event: WebhookEvent, visit: Visit): Promise<DeliveryOutcome> {
    const { url } = job.data;
    let hasAnswered: boolean | undefined;
    try {
      if (await deliveries.isGone(url)) {
        await keepEvent(job, event);
        throw new UnrecoverableError("its URL has answered 410 Gone before; replay it to try again");
      }
      const startedAt = Date.now();
      const result = await attemptDelivery({
        egress,
        url,
        id: job.id!,
        event: withAbsoluteLinks(event, config.public_url),
        secrets,
        timeoutMs,
        userAgent,
        attempts: job.attemptsMade,
        trace: carrierOf(job),
      });
      hasAnswered = result.status !== null || result.outcome === "refused";
      await record(job, startedAt, result);
      if (result.outcome === "delivered") return { status: "delivered", event: event.type };
      const delayMs = Math.max(delayAfter(job.attemptsMade + 1), result.retryAfterMs ?? 0);
      await job.updateData({ ...job.data, event, not_before: Date.now() + delayMs });
      if (result.outcome === "gone") await deliveries.markGone(url);
      if (result.outcome !== "failed") throw new UnrecoverableError(result.error ?? "");
      throw new AttemptError(result.error ?? "", delayMs);
    } finally {
      visit.leave(hasAnswered);
    }
  }

  async function awaitRoom(
    job: DeliveryJob,
    event: WebhookEvent,
    host: string,
    token?: string,
  ): Promise<never> {
    // The prediction may be gone before there is room.
    await keepEvent(job, event);
    const limitMs = Math.max(ROOM_LIMIT_MS, ROOM_LIMIT_EACH_MS * receivers.countWaiting(host));
    const until = Date.now() + withJitter(limitMs);
    await job.moveToDelayed(until, token);
    receivers.whenFree(host, keyOf(job), until);
    throw new DelayedError();
  }

  /** What is to be sent; puts back what is not due yet. */
  async function awaitEvent(job: DeliveryJob, token?: string): Promise<WebhookEvent> {
    const { model, id } = job.data.prediction!;
    const { delivery, expiresAt } = await predictions.webhookOf(model, id).catch(giveUpWhereGone);
    // Of two submissions with the same id one made the prediction.
    if (delivery !== job.id) throw new UnrecoverableError("the prediction has another delivery");
    const prediction = await predictions.read(model, id).catch(giveUpWhereGone);
    if (!isFinal(prediction.status)) {
      const usual = prediction.status === "running" ? LOOK_RUNNING_MS : LOOK_WAITING_MS;
      await job.moveToDelayed(Date.now() + msUntilLook(usual, expiresAt), token);
      // It may have ended between the look and the move, and whoever ended it found nothing to promote.
      await predictions
        .read(model, id)
        .then(async ({ status }) => isFinal(status) && deliveries.now(model, job.id!))
        .catch((error) => log.debug(`webhooks: ${error.message}`));
      throw new DelayedError();
    }
    const event = eventOfPrediction(prediction, config.webhooks.inline_result_bytes);
    if (delays[0]! > 0 && job.data.events.includes(event.type)) {
      const delayMs = delayAfter(0);
      await job.updateData({ ...job.data, event, not_before: Date.now() + delayMs });
      await putBack(job, delayMs, token);
    }
    return event;
  }

  /** Before the next attempt, when so many were made. */
  function delayAfter(attempts: number): number {
    return withJitter(delays[Math.min(attempts, delays.length - 1)]!);
  }

  const redis = await connectRedis({ url: redisUrl, tls: config.redis_tls }, "worker");
  const workers = [...deliveries.queues.keys()].map((owner) => {
    const worker = consumeQueue<DeliveryData, DeliveryOutcome>(names.deliveryQueue, deliver, {
      redis,
      log,
      name: "webhooks",
      prefix: names.queuePrefix(owner),
      // Of all together, `receivers` lets so many be sent at a time.
      concurrency: CONCURRENCY,
      maxStalledCount: MAX_STALLS,
      removeOnComplete: KEPT_DELIVERED,
      removeOnFail: KEPT_FAILED,
      settings: {
        backoffStrategy: (attemptsMade, _type, error) =>
          error instanceof AttemptError ? error.delayMs : delayAfter(attemptsMade),
      },
    });
    return worker.on("failed", (job, error) => {
      if (job?.finishedOn)
        log.warn(
          { delivery: job.id, host: new URL(job.data.url).host },
          `webhook not delivered: ${error.message}`,
        );
    });
  });

  return {
    async close(limitMs) {
      const closed = Promise.all(workers.map((worker) => worker.close()));
      await Promise.race([closed, sleep(limitMs, undefined, { ref: false })]);
      await predictions.close();
      redis.disconnect();
    },
  };
}

/** An attempt that is to be followed by another, if there are any left. */
class AttemptError extends Error {
  readonly delayMs: number;

  constructor(message: string, delayMs: number) {
    super(message);
    this.delayMs = delayMs;
  }
}

function giveUpWhereGone(error: unknown): never {
  throw error instanceof PredictionNotFoundError ? new UnrecoverableError(error.message) : error;
}

async function putBack(job: DeliveryJob, ms: number, token?: string): Promise<never> {
  await job.moveToDelayed(Date.now() + ms, token);
  throw new DelayedError();
}

async function keepEvent(job: DeliveryJob, event: WebhookEvent): Promise<void> {
  if (!job.data.event) await job.updateData({ ...job.data, event });
}

async function record(
  job: DeliveryJob,
  startedAt: number,
  { status, error }: Pick<DeliveryAttempt, "status" | "error">,
): Promise<void> {
  const at = new Date(startedAt).toISOString();
  await job.log(JSON.stringify({ at, status, error, ms: Date.now() - startedAt } satisfies DeliveryAttempt));
}

/** Only ever later: nobody is asked before the time that the configuration says. */
function withJitter(ms: number): number {
  return Math.round(ms * (1 + Math.random() * JITTER));
}
