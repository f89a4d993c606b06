import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { consumeQueue, openQueue } from "../../../src/queue/bullmq.ts";
import { connectRedis } from "../../../src/redis/connections.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("a consumer that is closed", () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startTestRedis();
  });
  afterAll(() => redis?.close());

  test("finishes its job, and then waits no longer for a connection that tells no end", async () => {
    const connection = await connectRedis({ url: redis.url, tls: undefined }, "worker");
    const queue = openQueue("jobs", connection, "test");
    let isRunning = false;
    const worker = consumeQueue(
      "jobs",
      async () => {
        isRunning = true;
        await sleep(4000);
        return "done";
      },
      { redis: connection, log: pino({ level: "silent" }), name: "queue", prefix: "test" },
    );
    const { backend } = worker as unknown as { backend: { disconnectBlocking(): Promise<void> } };
    backend.disconnectBlocking = () => new Promise(() => {});
    const job = await queue.add("job", {});
    await until(() => isRunning, "the job");
    const startedAt = Date.now();
    await worker.close();
    expect(Date.now() - startedAt).toBeGreaterThan(3900);
    expect(Date.now() - startedAt).toBeLessThan(20_000);
    expect((await queue.getJob(job.id!))?.returnvalue).toBe("done");
    await queue.close();
    connection.disconnect();
  });
});
