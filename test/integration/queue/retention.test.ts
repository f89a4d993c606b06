/** For how long ended predictions are kept, with their responses, and that nothing of them stays behind. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, openRedis, send, startTestApi } from "../../support/api.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const RESULT_TTL_SECONDS = 2;
const TEXT = "long ".repeat(5000);

const models = {
  Scripted: {
    loader: "ScriptedModelLoader",
    model_loader_file: SCRIPTED_LOADER,
    result_ttl_seconds: RESULT_TTL_SECONDS,
  },
};

let redis: RedisServer;
let connection: Redis;
beforeAll(async () => {
  if (whyNoRedis) return;
  redis = await startTestRedis();
  connection = openRedis(redis.url);
});
afterAll(async () => {
  connection?.disconnect();
  await redis?.close();
});

const keysOf = (id: string) => connection.keys(`*${id}*`);

async function timeToLive(): Promise<void> {
  await connection.set("aside", "", "EX", RESULT_TTL_SECONDS);
  await until(async () => !(await connection.exists("aside")), "the time to live");
}

describe.skipIf(whyNoRedis)("a large response", () => {
  let infermill: TestInfermill;

  beforeAll(async () => {
    infermill = await startInfermill({ models }, { REDIS_URL: redis.url });
  });
  afterAll(() => infermill?.stop());

  const read = (id: string) => send("GET", `${infermill.url}/v1/models/Scripted/predictions/${id}`);

  test("is there for as long as its prediction is, and goes with it", async () => {
    const { id, result } = await submit(infermill.url, "Scripted", { Fid: "1", Text: TEXT });
    expect(result).toMatchObject({ Fid: "1", Text: TEXT });
    await timeToLive();
    // BullMQ removes by age only when another prediction ends.
    expect((await read(id)).body).toMatchObject({ status: "succeeded", result });

    await submit(infermill.url, "Scripted", { Fid: "2" });
    expect((await read(id)).status).toBe(404);
    expect(await keysOf(id)).toEqual([]);
  });

  test("is in the line of its bulk run, and is forgotten when that is written", async () => {
    const answer = await fetch(`${infermill.url}/v1/bulk?model=Scripted`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: JSON.stringify({ custom_id: "a", request: { Text: TEXT } }),
    });
    const { id } = (await answer.json()) as BulkRun;
    const url = `${infermill.url}/v1/bulk/${id}`;
    await until(async () => (await send("GET", url)).body.status === "completed", "the end of the run");
    const line = JSON.parse(await (await fetch(`${url}/results`)).text());
    expect(line).toMatchObject({ status: "succeeded", result: { Text: TEXT } });
    expect(await connection.keys(`*${id}-0*`)).toEqual([]);
  });
});

test.skipIf(whyNoRedis)("cancelled and succeeded predictions go where no other one ends", async () => {
  const api = await startTestApi(redis.url, { models });
  try {
    const url = api.predictions("Scripted");
    await send("PUT", `${url}/cancelled`, {});
    expect((await send("DELETE", `${url}/cancelled`)).body.status).toBe("cancelled");
    const consumer = consume(redis.url, api.config, "Scripted", async () => ({}));
    const { body } = await send("PUT", `${url}/succeeded`, {}, { Prefer: "wait=30" });
    expect(body.status).toBe("succeeded");
    await consumer.close();
    await timeToLive();

    const { data_dir, redis_prefix } = api.config;
    const file = join(data_dir, "worker.json");
    writeFileSync(file, JSON.stringify({ data_dir, redis_prefix, models }));
    const worker = runInfermill(["worker", "--config", file], { env: { REDIS_URL: redis.url } });
    const statuses = async () =>
      Promise.all(["cancelled", "succeeded"].map(async (id) => (await send("GET", `${url}/${id}`)).status));
    try {
      await expect.poll(statuses).toEqual([404, 404]);
      expect([...(await keysOf("cancelled")), ...(await keysOf("succeeded"))]).toEqual([]);
    } finally {
      worker.child.kill("SIGTERM");
      await worker.exited;
    }
  } finally {
    await api.close();
  }
});
