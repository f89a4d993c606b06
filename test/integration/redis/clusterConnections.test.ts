/** Connections to a Redis Cluster whose nodes come and go: no reply reaches another's command, and each connection ends. */
import { once } from "node:events";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import type { Cluster, Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connectRedis } from "../../../src/redis/connections.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { startTestCluster, type TestCluster } from "../../support/redisCluster.ts";

const slotOf = createRequire(import.meta.url)("cluster-key-slot") as (key: string) => number;
const COUNT = 60;

/** The inside of ioredis, to bring about what else takes many tries. */
interface Inside {
  slots: Record<number, string[]>;
  connectionPool: { nodes: Record<"all" | "master", Record<string, Redis>> };
}

describe.skipIf(whyNoRedis)("a connection to a cluster", () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await startTestCluster();
  });
  afterAll(() => cluster?.close());

  const connect = async (role: "producer" | "worker") =>
    (await connectRedis({ url: `redis+cluster://${cluster.place}`, tls: undefined }, role)) as Cluster;

  test("gives each command of a pipeline its own reply, while one node is lost and another is being connected", async () => {
    const redis = await connect("producer");
    const { slots, connectionPool } = redis as unknown as Inside;
    const { all, master } = connectionPool.nodes;
    const nodeOf = (tag: string) => slots[slotOf(`{${tag}}`)]![0]!;
    // A tag for each master.
    const tags = new Map(Array.from("abcdefghijklmnop", (letter) => [nodeOf(letter), letter]));
    const [[lostKey, lostTag], [, otherTag], [joiningKey, joiningTag]] = [...tags] as [
      [string, string],
      [string, string],
      [string, string],
    ];
    for (const tag of [lostTag, otherTag, joiningTag])
      for (let index = 0; index < COUNT; index++)
        await redis.hset(`{${tag}}:${index}`, "value", `${tag}${index}`);
    const read = (tag: string) => {
      const pipeline = redis.pipeline();
      for (let index = 0; index < COUNT; index++) pipeline.hmget(`{${tag}}:${index}`, "value");
      return pipeline
        .exec()
        .then((replies) => replies!.map(([error, reply]) => error ?? (reply as [string])[0]));
    };
    const expected = (tag: string) => Array.from({ length: COUNT }, (_, index) => `${tag}${index}`);

    // One of many nodes is chosen by chance for each command: some tries meet both kinds.
    for (let time = 0; time < 5; time++) {
      const [lost, joining] = [all[lostKey]!, all[joiningKey]!];
      delete all[lostKey];
      delete master[lostKey];
      joining.status = "connecting";
      const reading = read(lostTag);
      await sleep(20);
      joining.status = "ready";
      master[lostKey] = all[lostKey] = lost;
      expect(await read(otherTag)).toEqual(expected(otherTag));
      expect(await reading).toEqual(expected(lostTag));
    }
    redis.disconnect();
  });

  test("ends when it is closed while it has no node", async () => {
    const redis = await connect("worker");
    // As BullMQ makes one to wait for jobs.
    const duplicate = redis.duplicate();
    await duplicate.ping();
    const both = [redis, duplicate];
    await Promise.all(both.flatMap((each) => each.nodes("all").map((node) => node.ping())));
    const ended = both.map(async (each) => {
      await once(each, "reconnecting");
      const end = once(each, "end");
      each.disconnect();
      await end;
    });
    for (const { process: server } of cluster.servers) server.kill("SIGKILL");
    await Promise.all(ended);
  });
});
