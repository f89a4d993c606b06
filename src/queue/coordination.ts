/** The sign of life of coordinators, and whether what they work on waits in vain. */
import { QueueKeys } from "./bullmqPackage.ts";
import { execAll, reachRedis, type RedisClient } from "../redis/connections.ts";
import type { Deliveries } from "./deliveries.ts";
import { BULK_QUEUE, type Names } from "./names.ts";

const BEAT_MS = 2000;
/** A coordinator that was silent for longer is gone, or its event loop is blocked. */
const SILENCE_LIMIT_MS = 10_000;

/** Reports a coordinator until `stop()`. One that stops in order counts as alive for as long as its successor needs. */
export function reportCoordinator(
  redis: RedisClient,
  names: Names,
  id: string,
  onFault: (error: Error) => void,
): { stop(): void } {
  const beat = () =>
    execAll(
      redis
        .multi()
        .zadd(names.coordinators, Date.now(), id)
        .zremrangebyscore(names.coordinators, "-inf", Date.now() - SILENCE_LIMIT_MS),
    ).catch(onFault);
  void beat();
  const timer = setInterval(() => void beat(), BEAT_MS);
  return { stop: () => clearInterval(timer) };
}

export interface Coordination {
  /** Coordinators that reported themselves lately. */
  live: number;
  /** Bulk runs that wait or are under way, and webhook deliveries that are due. */
  runs: number;
  deliveries: number;
}

export async function readCoordination(
  redis: RedisClient,
  names: Names,
  deliveries: Deliveries,
): Promise<Coordination> {
  const keys = new QueueKeys(names.queuePrefix(undefined));
  const pipeline = redis.pipeline().zcount(names.coordinators, Date.now() - SILENCE_LIMIT_MS, "+inf");
  for (const state of ["wait", "active"]) pipeline.llen(keys.toKey(BULK_QUEUE, state));
  const [replies, due] = await Promise.all([
    reachRedis(() => execAll(pipeline)) as Promise<number[]>,
    deliveries.countDue(),
  ]);
  const [live = 0, waiting = 0, active = 0] = replies;
  return { live, runs: waiting + active, deliveries: due };
}
