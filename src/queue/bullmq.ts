/** How infermill opens BullMQ's queues and workers: what all of them have in common. */
import { Queue } from "bullmq";
import type { Redis } from "ioredis";

/**
 * A worker that dies keeps its jobs locked for up to `lockDuration`, and a check every `stalledInterval` finds them:
 * recovery takes 10 to 20 s. The processes that hold locks never run a model, so they renew them in time.
 */
export const RECOVERY = {
  lockDuration: 10_000,
  stalledInterval: 5000,
  // BullMQ's own loop waits for so long after a fault of the connection.
  runRetryDelay: 1000,
} as const;

/** A queue whose faults reach the caller of each command, and whose event stream stays short: nobody reads it. */
export function openQueue(name: string, redis: Redis, prefix: string): Queue {
  const queue = new Queue(name, {
    connection: redis,
    prefix,
    streams: { events: { maxLen: 100 } },
  });
  return queue.on("error", () => {});
}
