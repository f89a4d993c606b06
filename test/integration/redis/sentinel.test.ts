/** A master that is killed, and one that freezes, with Sentinels that make a replica the next one. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import { connectRedis } from "../../../src/redis/connections.ts";
import { provideRedis } from "../../../src/redis/provideRedis.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { SECRET, startReceiver, type Receiver } from "../../support/receiver.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { startWatchedRedis, type WatchedRedis } from "../../support/sentinels.ts";

/** Shorter than Sentinels need to find the next master: what is answered within that was accepted by the last. */
const DEAD_MS = 1000;
const ENTRIES = 1500;
const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);
const SENTINEL_SECRET = "sentinel-s3cret";
const LOGIN = "app:app-s3cret";

describe.skipIf(whyNoRedis)("Redis with two replicas and three Sentinels", () => {
  let redis: WatchedRedis;
  let url: string;
  let infermill: TestInfermill;
  let receiver: Receiver;

  beforeAll(async () => {
    receiver = await startReceiver();
    redis = await startWatchedRedis(
      {
        user: "app on >app-s3cret ~* &* +@all",
        "min-replicas-to-write": "1",
        "min-replicas-max-lag": "5",
        "repl-diskless-sync-delay": "0",
      },
      { replicas: 2, password: SENTINEL_SECRET },
    );
    url = `redis+sentinel://${LOGIN}@${redis.place}?sentinel_password=${SENTINEL_SECRET}`;
    infermill = await startInfermill(
      {
        webhooks: { secret: SECRET, allow: ["127.0.0.1"] },
        models: {
          Scripted: {
            loader: "ScriptedModelLoader",
            model_loader_file: SCRIPTED_LOADER,
            instances: 2,
            max_batch_size: 4,
          },
        },
      },
      { REDIS_URL: url },
    );
  }, 120_000);
  afterAll(async () => {
    await infermill?.stop();
    await redis?.close();
    await receiver?.close();
  }, 60_000);

  test("the master is killed under load: 503 meanwhile, and every accepted prediction and each entry of a bulk run ends once", async () => {
    const predictions = `${infermill.url}/v1/models/Scripted/predictions`;
    const bulk = await fetch(
      `${infermill.url}/v1/bulk?model=Scripted&webhook=${encodeURIComponent(receiver.url)}`,
      {
        method: "POST",
        headers: { "Content-Type": "application/x-ndjson" },
        body: Array.from({ length: ENTRIES }, (_, index) =>
          JSON.stringify({ custom_id: `c${index}`, request: { Fid: `c${index}`, Ms: 20 } }),
        ).join("\n"),
      },
    );
    const run = (await bulk.json()) as { id: string };
    const accepted = new Map<string, { Fid: string; at: number }>();
    const refusals = new Set<string>();
    let isOn = true;
    let next = 0;
    const clients = Array.from({ length: 6 }, async () => {
      while (isOn) {
        const Fid = `${next++}`;
        const answer = await fetch(predictions, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ Fid, Ms: 20 }),
        });
        const { id, code } = (await answer.json()) as Prediction & { code?: string };
        if (answer.status === 202) accepted.set(id, { Fid, at: Date.now() });
        else refusals.add(`${answer.status} ${code}`);
        await sleep(20);
      }
    });
    await until(() => accepted.size > 100, "some load");

    const master = await redis.master();
    const replicated = new Set(accepted.keys());
    await master.admin.set("last", "1");
    expect(await master.admin.wait(2, 20_000)).toBe(2);
    master.process.kill("SIGKILL");
    const killedAt = Date.now();
    await until(() => [...accepted.values()].some(({ at }) => at > killedAt + DEAD_MS), "the next master");
    const before = accepted.size;
    await until(() => accepted.size > before + 100, "load after the failover");
    isOn = false;
    await Promise.all(clients);

    expect([...refusals].filter((kind) => !/^503 redis_(unavailable|refused)$/.test(kind))).toEqual([]);
    for (const [id, { Fid, at }] of accepted) {
      // What Redis acknowledged and had sent to no replica is lost with it.
      const mayBeLost = !replicated.has(id) && at < killedAt + DEAD_MS;
      const ended = await until(async () => {
        const answer = await fetch(`${predictions}/${id}`);
        if (answer.status === 404 && mayBeLost) return "lost";
        const prediction = (await answer.json()) as Prediction;
        return FINAL.has(prediction.status) && prediction;
      }, `the end of ${id}`);
      if (ended === "lost") continue;
      expect(ended).toMatchObject({ status: "succeeded", error: null });
      expect(ended.result!.Fs[0]!.Lb).toBe(Fid);
    }
    const [completed] = await until(
      () => receiver.received.length > 0 && receiver.received,
      "the end of the bulk run",
    );
    expect(completed!.event).toMatchObject({ data: { id: run.id, counts: { succeeded: ENTRIES } } });
    const lines = (await (await fetch(`${infermill.url}/v1/bulk/${run.id}/results`)).text()).trim();
    expect(new Set(lines.split("\n").map((line) => JSON.parse(line).custom_id)).size).toBe(ENTRIES);
    expect(lines.split("\n")).toHaveLength(ENTRIES);
    expect(infermill.output()).not.toMatch(/s3cret/);
    expect(infermill.output().split("\n").length).toBeLessThan(100);
  }, 180_000);

  test("commands follow too, and their output has no password in it", async () => {
    const doctor = runInfermill(["doctor", "--json"], { env: { REDIS_URL: url }, cwd: infermill.folder });
    await doctor.exited;
    expect(doctor.output()).toMatch(
      /"found": "version \S+ at redis\+sentinel:\/\/127\.0\.0\.1:\d+,\S+\/mymaster answers/,
    );
    expect(doctor.output()).not.toMatch(/s3cret/);
  }, 60_000);

  test("the next master freezes, which closes no connection: it is left all the same", async () => {
    const frozen = await redis.master();
    // One replica is left to become the master, and none to follow it.
    for (const { admin, process } of redis.servers)
      if (!process.killed) await admin.config("SET", "min-replicas-to-write", "0");
    await until(
      async () => (await frozen.admin.info("replication")).includes("state=online"),
      "a replica of the new master",
    );
    frozen.process.kill("SIGSTOP");
    try {
      await until(async () => (await redis.master()) !== frozen, "another master");
      // An answer that is waited for: workers follow, and the completion events reach the api.
      await until(
        () =>
          submit(infermill.url, "Scripted", { Fid: "after" }, 30).then(
            ({ status }) => status === "succeeded",
            () => false,
          ),
        "a prediction on the new master",
        60_000,
      );
    } finally {
      frozen.process.kill("SIGCONT");
    }
  }, 180_000);

  test("a wrong password of the Sentinels, a master that they don't know and a Sentinel named as a Redis are told", async () => {
    const connect = (changed: string) =>
      connectRedis({ url: changed, tls: undefined }, "worker", { timeoutMs: 3000 });
    await expect(connect(url.replace(SENTINEL_SECRET, "wrong"))).rejects.toThrow(
      /WRONGPASS.*sentinel_username and sentinel_password/,
    );
    await expect(connect(url.replace("/mymaster", "/other"))).rejects.toThrow(
      /its Sentinels watch no master that is called other/,
    );
    await expect(
      provideRedis({
        redisUrl: `redis://:${SENTINEL_SECRET}@127.0.0.1:${redis.sentinelPorts[0]}`,
        dataDir: infermill.folder,
        env: {},
      }),
    ).rejects.toThrow(/names a Sentinel.*write redis\+sentinel:\/\/host:port\/mymaster/);
  });
});
