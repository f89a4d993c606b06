/** A Redis of 16 MB that gets more than it can hold. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import { SCRIPTED_LOADER, startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { startOwnRedis, type OwnRedis } from "../../support/ownRedis.ts";
import { send, type Json } from "../../support/api.ts";
import { whyNoRedis } from "../../support/redis.ts";

const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);
const MAX_MEMORY = 16 * 1024 ** 2;

describe.skipIf(whyNoRedis)("when uploads fill a Redis with maxmemory", () => {
  let redis: OwnRedis;
  let infermill: TestInfermill;

  beforeAll(async () => {
    redis = await startOwnRedis({ maxmemory: String(MAX_MEMORY) });
    infermill = await startInfermill(
      {
        inputs: "redis",
        models: {
          Scripted: {
            loader: "ScriptedModelLoader",
            model_loader_file: SCRIPTED_LOADER,
            instances: 1,
            result_ttl_seconds: 20,
            max_batch_size: 1,
          },
        },
      },
      { REDIS_URL: redis.url },
    );
  });
  afterAll(async () => {
    await infermill?.stop();
    await redis?.close();
  });

  const submitPicture = (kilobytes: number, ms: number) =>
    fetch(`${infermill.url}/v1/models/Scripted/predictions?Ms=${ms}`, {
      method: "POST",
      headers: { "Content-Type": "image/jpeg" },
      body: new Uint8Array(kilobytes * 1024),
    });

  test("submissions stop at max_memory_share with the reason, everything accepted ends, and then it accepts again", async () => {
    const accepted: string[] = [];
    let refusal: { status: number; headers: Headers; body: Json } | undefined;
    let isSeen = false;
    const clients = Array.from({ length: 8 }, async () => {
      while (!isSeen) {
        const answer = await submitPicture(100, 30);
        const body = (await answer.json()) as Json;
        if (answer.status === 202) accepted.push(body.id);
        else {
          refusal ??= { status: answer.status, headers: answer.headers, body };
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
    });
    const ready = await until(async () => {
      const answer = await send("GET", `${infermill.url}/health/ready`);
      return answer.status === 503 && answer;
    }, "readiness that knows of it").finally(() => (isSeen = true));
    await Promise.all(clients);
    expect(refusal).toMatchObject({ status: 503, body: { code: "queue_storage_full" } });
    expect(Number(refusal!.headers.get("Retry-After"))).toBeGreaterThan(0);
    expect(refusal!.body.detail).toMatch(
      /maxmemory of 16\.0 MiB.*max_memory_share 0\.85.*nothing was accepted/,
    );
    const info = await redis.admin.info("memory");
    const field = (name: string) => Number(new RegExp(`${name}:(\\d+)`).exec(info)![1]);
    expect(field("used_memory") - field("mem_not_counted_for_evict")).toBeLessThan(0.9 * MAX_MEMORY);

    expect(ready.body.status).toBe("not_ready");
    expect(ready.body.problems.join()).toContain("no submission is accepted: Redis holds");
    const metrics = await (await fetch(`${infermill.url}/metrics`)).text();
    expect(metrics).toMatch(/^infermill_queue_storage_full [01]$/m);
    expect(metrics).toContain(`infermill_redis_memory_bytes{kind="max"} ${MAX_MEMORY}`);

    for (const id of accepted) {
      const url = `${infermill.url}/v1/models/Scripted/predictions/${id}`;
      const ended = await until(async () => {
        const prediction = (await (await fetch(url)).json()) as Prediction;
        return FINAL.has(prediction.status) && prediction;
      }, `the end of ${id}`);
      // Its response holds the picture: more of Redis than its request took.
      expect(ended.status).toBe("succeeded");
    }
    await until(async () => (await fetch(`${infermill.url}/health/ready`)).ok, "ready again");
    const again = await submitPicture(100, 0);
    await again.arrayBuffer();
    expect(again.status).toBe(202);
    expect(infermill.output()).not.toContain("OOM");
  }, 120_000);

  test("an upload that never fits is told so", async () => {
    const answer = await submitPicture(14 * 1024, 0);
    expect(answer.status).toBe(503);
    expect(((await answer.json()) as Json).detail).toMatch(/14\.0 MiB never fit.*raise the maxmemory/);
  });
});
