/** For how long ended predictions are kept, with their responses, and that nothing of them stays behind. */
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkRun } from "../src/bulk/spec.ts";
import type { RedisServer } from "../src/redis/provideRedis.ts";
import { openRedis, send } from "./support/api.ts";
import { SCRIPTED_LOADER, startInfermill, submit, until, type TestInfermill } from "./support/infermill.ts";
import { startTestRedis, whyNoRedis } from "./support/redis.ts";

const RESULT_TTL_SECONDS = 2;
const TEXT = "long ".repeat(5000);

describe.skipIf(whyNoRedis)("a large response", () => {
  let redis: RedisServer;
  let connection: Redis;
  let infermill: TestInfermill;

  beforeAll(async () => {
    redis = await startTestRedis();
    connection = openRedis(redis.url);
    const model = {
      loader: "ScriptedModelLoader",
      model_loader_file: SCRIPTED_LOADER,
      result_ttl_seconds: RESULT_TTL_SECONDS,
    };
    infermill = await startInfermill({ models: { Scripted: model } }, { REDIS_URL: redis.url });
  });
  afterAll(async () => {
    await infermill?.stop();
    connection?.disconnect();
    await redis?.close();
  });

  const read = (id: string) => send("GET", `${infermill.url}/v1/models/Scripted/predictions/${id}`);
  const keysOf = (id: string) => connection.keys(`*${id}*`);

  test("is there for as long as its prediction is, and goes with it", async () => {
    const { id, result } = await submit(infermill.url, "Scripted", { Fid: "1", Text: TEXT });
    expect(result).toMatchObject({ Fid: "1", Text: TEXT });
    await connection.set("aside", "", "EX", RESULT_TTL_SECONDS);
    await until(async () => !(await connection.exists("aside")), "the time to live");
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
