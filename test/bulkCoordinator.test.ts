/** What a coordinator does with bulk runs by itself: no worker runs here, so that entries wait in the lane. */
import { truncateSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBulkCoordinator, type BulkCoordinator } from "../src/bulk/coordinator.ts";
import { openBulkRuns, type BulkRuns } from "../src/bulk/runs.ts";
import type { RedisServer } from "../src/redis/provideRedis.ts";
import { send, startTestApi, type TestApi } from "./support/api.ts";
import { until } from "./support/infermill.ts";
import { startTestRedis, whyNoRedis } from "./support/redis.ts";

const NDJSON = { "Content-Type": "application/x-ndjson" };

describe.skipIf(whyNoRedis)("a coordinator", () => {
  let redis: RedisServer;
  let api: TestApi;
  let runs: BulkRuns;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url);
    runs = await openBulkRuns(api.config, redis.url);
  });
  afterAll(async () => {
    await runs?.close();
    await api?.close();
    await redis?.close();
  });

  async function sendManifest(entries: number): Promise<string> {
    const lines = Array.from({ length: entries }, (_, index) => JSON.stringify({ custom_id: `c${index}` }));
    return (await send("POST", `${api.url}/v1/bulk?model=Echo`, lines.join("\n"), NDJSON)).body.id;
  }

  function startCoordinator(): Promise<BulkCoordinator> {
    const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });
    return startBulkCoordinator({ config: api.config, redisUrl: redis.url, log });
  }

  test("doesn't call a run complete whose entries were cut off", async () => {
    const id = await sendManifest(3);
    truncateSync(join(api.config.data_dir, "bulk", id, "entries.ndjson"), 0);
    const coordinator = await startCoordinator();
    try {
      const job = await until(async () => {
        const known = await runs.queue.getJob(id);
        return known?.failedReason && known;
      }, "the first try");
      expect(job.failedReason).toContain("should hold 3 entries, 0 were found");
      expect(await runs.read(id)).toMatchObject({ status: "running", finished_at: null });
    } finally {
      await coordinator.close();
    }
  });
});
