/** All of infermill over a Redis Cluster: models in slots of their own, and a master that is killed under load. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import type { Json } from "../../support/api.ts";
import { provideRedis } from "../../../src/redis/provideRedis.ts";
import { createNames } from "../../../src/queue/names.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  upload,
  type TestInfermill,
} from "../../support/infermill.ts";
import { startOwnRedis } from "../../support/ownRedis.ts";
import { SECRET, startReceiver, type Receiver } from "../../support/receiver.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { startTestCluster, type TestCluster } from "../../support/redisCluster.ts";

/** Shorter than a cluster needs to replace a master: what is answered within that was accepted by the last. */
const DEAD_MS = 1000;
const ENTRIES = 500;
const MAX_MEMORY = "256mb";
const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);
const names = createNames("infermill", true);

describe.skipIf(whyNoRedis)("a Redis Cluster of three masters with a replica each", () => {
  let cluster: TestCluster;
  let url: string;
  let infermill: TestInfermill;
  let receiver: Receiver;
  /** Two models on different masters. */
  let models: [string, string];

  beforeAll(async () => {
    receiver = await startReceiver();
    cluster = await startTestCluster({
      maxmemory: MAX_MEMORY,
      // Models of other masters go on while one is replaced.
      "cluster-require-full-coverage": "no",
      user: "app on >app-s3cret ~{infermill* &infermill* +@all -@admin +cluster|slots +cluster|info",
    });
    url = `redis+cluster://app:app-s3cret@${cluster.place}`;
    models = await modelsOnTwoMasters(cluster);
    const model = {
      loader: "ScriptedModelLoader",
      model_loader_file: SCRIPTED_LOADER,
      max_batch_size: 4,
    };
    infermill = await startInfermill(
      {
        inputs: "redis",
        webhooks: { secret: SECRET, allow: ["127.0.0.1"] },
        models: { [models[0]]: model, [models[1]]: model },
      },
      { REDIS_URL: url },
    );
  }, 60_000);
  afterAll(async () => {
    await infermill?.stop();
    await cluster?.close();
    await receiver?.close();
  }, 30_000);

  const get = async (path: string): Promise<Json> => (await fetch(infermill.url + path)).json();
  const hook = () => `?webhook=${encodeURIComponent(receiver.url)}`;

  test("predictions, uploads, webhooks, bulk runs, cancelling and lists of two models are as with one Redis", async () => {
    const [a, b] = models;
    const ended = [await submit(infermill.url, a, { Fid: "a" }, 20, hook())];
    ended.push(await submit(infermill.url, b, { Fid: "b" }, 20, hook()));
    ended.push(await upload(infermill.url, b, Buffer.alloc(20_000, 7), "image/jpeg", hook()));
    expect(ended.map(({ status }) => status)).toEqual(["succeeded", "succeeded", "succeeded"]);

    const long = await submit(infermill.url, a, { Fid: "long", Ms: 3000 }, 0, hook());
    await fetch(infermill.url + long.links.self, { method: "DELETE" });
    expect(await get(long.links.self)).toMatchObject({ status: "cancelled" });
    const run = await startBulkRun(b, 40);
    await until(() => receiver.received.length >= 5, "five webhooks");
    expect(receiver.received.map(({ event }) => `${event.type} ${event.data.id}`).toSorted()).toEqual(
      [
        ...ended.map(({ id }) => `prediction.succeeded ${id}`),
        `prediction.cancelled ${long.id}`,
        `bulk.completed ${run.id}`,
      ].toSorted(),
    );
    expect(await get(`/v1/bulk/${run.id}`)).toMatchObject({ counts: { succeeded: 40, failed: 0 } });

    // The one that was cancelled may still run.
    const { predictions } = await get("/v1/predictions?status=succeeded");
    expect(predictions.map(({ id }: Json) => id).toSorted()).toEqual(ended.map(({ id }) => id).toSorted());
    const page = await get("/v1/webhooks/deliveries?status=delivered&limit=3");
    const rest = await get(`/v1/webhooks/deliveries?status=delivered&cursor=${page.next_cursor}`);
    const deliveries: Json[] = [...page.deliveries, ...rest.deliveries];
    expect(new Set(deliveries.map(({ id }) => id))).toEqual(new Set(receiver.received.map(({ id }) => id)));
    expect(deliveries).toHaveLength(5);
    // Though they lie in three queues.
    const times = deliveries.map(({ finished_at }) => String(finished_at));
    expect(times).toEqual(times.toSorted().toReversed());
    expect(page.counts).toEqual({ pending: 0, delivered: 5, failed: 0 });
    expect((await get(`/v1/webhooks/deliveries?run=${run.id}`)).deliveries).toHaveLength(1);

    const again = deliveries.find(({ prediction }) => prediction?.id === ended[1]!.id)!;
    await fetch(infermill.url + again.links.replay, { method: "POST" });
    await until(() => receiver.received.length === 6, "the delivery that was sent again");
    expect(receiver.received[5]!.id).toBe(again.id);
    expect((await get("/health/ready")).status).toBe("ready");
    expect((await get("/dashboard/api/queues")).queues.map(({ name }: Json) => name)).toEqual(
      expect.arrayContaining(["_webhooks", `${a} _webhooks`, `${b} _webhooks`]),
    );
  }, 60_000);

  test("everything that lies in it says by its name whose slot it is in", async () => {
    const keys = (await Promise.all(cluster.servers.map(({ admin }) => admin.keys("*")))).flat();
    expect(keys.length).toBeGreaterThan(20);
    expect(keys.filter((key) => !/^\{infermill(:[A-Z])?\}:/.test(key))).toEqual([]);
  });

  test("it is refused by a URL that names one of its nodes as a single server, and a single server as a cluster", async () => {
    const provide = (redisUrl: string) => provideRedis({ redisUrl, dataDir: infermill.folder, env: {} });
    const [node] = cluster.servers;
    await expect(provide(node!.url)).rejects.toThrow(`write redis+cluster://${cluster.place.split(",")[0]}`);
    const single = await startOwnRedis();
    try {
      await expect(provide(single.url.replace("redis:", "redis+cluster:"))).rejects.toThrow(
        /cluster support disabled.*name it as redis:\/\/host:port/,
      );
    } finally {
      await single.close();
    }
    await expect(provide(url.replace("s3cret", "wrong"))).rejects.toThrow(
      /WRONGPASS.*user name and password/,
    );
  }, 30_000);

  test("doctor looks at all of its masters, and says no password", async () => {
    const doctor = runInfermill(["doctor", "--json"], { env: { REDIS_URL: url }, cwd: infermill.folder });
    await doctor.exited;
    expect(doctor.output()).toMatch(
      /"found": "version \S+ at redis\+cluster:\/\/127\.0\.0\.1:\d+,\S+ answers/,
    );
    expect(
      doctor.output().match(/"found": "127\.0\.0\.1:\d+: \S+ \S+ of maxmemory \S+ \S+ in use"/g),
    ).toHaveLength(3);
    expect(doctor.output()).not.toMatch(/s3cret/);
  }, 60_000);

  test("a node that is full refuses its own models, and no others", async () => {
    const [a, b] = models;
    const { admin } = await cluster.masterOf(names.slots(a));
    const post = async (model: string) => {
      const answer = await fetch(`${infermill.url}/v1/models/${model}/predictions`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: "{}",
      });
      return `${answer.status} ${((await answer.json()) as { code?: string }).code ?? "accepted"}`;
    };
    const [, used] = /used_memory:(\d+)/.exec(await admin.info("memory"))!;
    await admin.config("SET", "maxmemory", Math.round(1.15 * Number(used)));
    await until(
      async () => (await get("/health/ready")).problems.join().includes(`has the keys of ${a} holds`),
      "a full node",
    );
    expect(await post(a)).toBe("503 queue_storage_full");
    expect(await post(b)).toBe("202 accepted");
    await admin.config("SET", "maxmemory", MAX_MEMORY);
    await until(async () => (await post(a)) === "202 accepted", "room again");
  }, 30_000);

  test("a master is killed under load: its models get 503 until its replica takes over, the others go on, and every accepted prediction and each entry of a bulk run ends once", async () => {
    const [a, b] = models;
    const run = await startBulkRun(a, ENTRIES);
    const accepted = new Map<string, { model: string; Fid: string; at: number }>();
    const refusals: string[] = [];
    let isOn = true;
    let next = 0;
    const clients = [a, b, a, b].map(async (model) => {
      while (isOn) {
        const Fid = `${next++}`;
        const answer = await fetch(`${infermill.url}/v1/models/${model}/predictions${hook()}`, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ Fid, Ms: 10 }),
        });
        const { id, code } = (await answer.json()) as Prediction & { code?: string };
        if (answer.status === 202) accepted.set(id, { model, Fid, at: Date.now() });
        else refusals.push(`${model} ${answer.status} ${code}`);
        await sleep(20);
      }
    });
    await until(() => accepted.size > 60, "some load");

    const master = await cluster.masterOf(names.slots(a));
    const replicated = new Set(accepted.keys());
    await master.admin.set(names.slots(a) + ":last", "1");
    expect(await master.admin.wait(1, 20_000)).toBe(1);
    master.process.kill("SIGKILL");
    const killedAt = Date.now();
    const isAccepted = (model: string, since: number) =>
      [...accepted.values()].some((each) => each.model === model && each.at > since);
    await until(() => isAccepted(a, killedAt + DEAD_MS), "the next master");
    await sleep(500);
    isOn = false;
    await Promise.all(clients);

    expect(new Set(refusals)).toEqual(new Set(refusals.filter((each) => each.startsWith(`${a} 503 redis_`))));
    const lost: string[] = [];
    for (const [id, { model, Fid, at }] of accepted) {
      // What a master acknowledged and had sent to no replica is lost with it.
      const mayBeLost = model === a && !replicated.has(id) && at < killedAt + DEAD_MS;
      const prediction = await until(async () => {
        const answer = await fetch(`${infermill.url}/v1/models/${model}/predictions/${id}`);
        if (answer.status === 404 && mayBeLost) return "lost";
        const read = (await answer.json()) as Prediction;
        return FINAL.has(read.status) && read;
      }, `the end of ${id}`);
      if (prediction === "lost") lost.push(id);
      else expect(prediction).toMatchObject({ status: "succeeded", result: { Fs: [{ Lb: Fid }] } });
    }
    const kept = [...accepted.keys()].filter((id) => !lost.includes(id));
    const toldOf = () => new Set(receiver.received.map(({ event }) => event.data.id));
    // Where the completion event was lost with the master, the delivery looks for itself two minutes after it was added.
    await until(() => [run.id, ...kept].every((id) => toldOf().has(id)), "all webhooks", 150_000);
    const lines = (await (await fetch(`${infermill.url}/v1/bulk/${run.id}/results`)).text())
      .trim()
      .split("\n");
    expect(lines).toHaveLength(ENTRIES);
    expect(new Set(lines.map((line) => JSON.parse(line).custom_id)).size).toBe(ENTRIES);
    expect(infermill.output()).not.toMatch(/s3cret/);
    expect(infermill.output().split("\n").length).toBeLessThan(100);
  }, 240_000);

  test("the slot of a model is moved to another node under load: nothing is refused, and everything accepted ends", async () => {
    const [a] = models;
    const ids: string[] = [];
    let isOn = true;
    const clients = [1, 2, 3].map(async () => {
      while (isOn) {
        const { id } = await submit(infermill.url, a, { Ms: 5 }, 0, hook());
        ids.push(id);
        await sleep(10);
      }
    });
    await until(() => ids.length > 30, "some load");
    await cluster.moveSlotOf(names.slots(a));
    const before = ids.length;
    await until(() => ids.length > before + 30, "load on the other node");
    isOn = false;
    await Promise.all(clients);
    for (const id of ids)
      await until(
        async () => (await get(`/v1/models/${a}/predictions/${id}`)).status === "succeeded",
        `the end of ${id}`,
      );
  }, 60_000);

  test("a master freezes, which closes no connection: it is left all the same", async () => {
    const [, b] = models;
    const frozen = await cluster.masterOf(names.slots(b));
    frozen.process.kill("SIGSTOP");
    try {
      await until(async () => {
        const master = await cluster.masterOf(names.slots(b));
        return master !== undefined && master !== frozen;
      }, "another master");
      // An answer that is waited for: workers follow, and the completion events reach the api.
      await until(
        () =>
          submit(infermill.url, b, { Fid: "after" }, 30).then(
            ({ status }) => status === "succeeded",
            () => false,
          ),
        "a prediction on the next master",
      );
    } finally {
      frozen.process.kill("SIGCONT");
    }
  }, 60_000);

  test("all nodes are killed and start again: workers, coordinators and events are back by themselves", async () => {
    await Promise.all(cluster.servers.map((server) => server.restart(3000)));
    for (const model of models) {
      const ended = await until(
        () => submit(infermill.url, model, { Fid: "after" }, 30, hook()).catch(() => undefined),
        `a prediction of ${model}`,
      );
      expect(ended.status).toBe("succeeded");
      await until(() => receiver.received.some(({ event }) => event.data.id === ended.id), "its webhook");
    }
    const startedAt = Date.now();
    for (let count = 0; count < 5; count++) await submit(infermill.url, models[0], {}, 30);
    // Without the completion events each would take a second.
    expect(Date.now() - startedAt).toBeLessThan(4000);
  }, 60_000);

  async function startBulkRun(model: string, entries: number): Promise<{ id: string }> {
    const answer = await fetch(
      `${infermill.url}/v1/bulk?model=${model}&webhook=${encodeURIComponent(receiver.url)}`,
      {
        method: "POST",
        headers: { "Content-Type": "application/x-ndjson" },
        body: Array.from({ length: entries }, (_, index) =>
          JSON.stringify({ custom_id: `c${index}`, request: { Fid: `c${index}`, Ms: 10 } }),
        ).join("\n"),
      },
    );
    expect(answer.status).toBe(202);
    return (await answer.json()) as { id: string };
  }
});

/** One model beside what belongs to no model, and one on another master. */
async function modelsOnTwoMasters(cluster: TestCluster): Promise<[string, string]> {
  const common = await cluster.masterOf(names.workers);
  const candidates = Array.from({ length: 16 }, (_, index) => String.fromCharCode(65 + index));
  const masters = await Promise.all(candidates.map((name) => cluster.masterOf(names.slots(name))));
  const beside = candidates[masters.indexOf(common)];
  const other = candidates[masters.findIndex((master) => master !== common)];
  return [beside!, other!];
}
