/** A Redis Cluster of three masters with a replica each, all processes of a test's own. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { freePort } from "./freePort.ts";
import { until } from "./infermill.ts";
import { startOwnRedis, type OwnRedis } from "./ownRedis.ts";

const MASTERS = 3;
const SLOTS = 16_384;
/** A master that was silent for so long counts as dead; its replica takes its place about a second later. */
const NODE_TIMEOUT_MS = 1500;

const ANSWER_MS = 500;

export interface TestCluster {
  /** host:port of three of its nodes: what stands behind // and a login. */
  readonly place: string;
  readonly servers: readonly OwnRedis[];
  /** The master that has the slot of a key, as most nodes see it now. */
  masterOf(key: string): Promise<OwnRedis>;
  /** Moves the slot of a key, with all that is in it, to another master. */
  moveSlotOf(key: string): Promise<void>;
  close(): Promise<void>;
}

/** @param settings of every server */
export async function startTestCluster(settings: Record<string, string> = {}): Promise<TestCluster> {
  const busPorts = await Promise.all(Array.from({ length: 2 * MASTERS }, freePort));
  const servers = await Promise.all(
    busPorts.map((busPort) =>
      startOwnRedis({
        "cluster-enabled": "yes",
        "cluster-node-timeout": String(NODE_TIMEOUT_MS),
        "cluster-port": String(busPort),
        "repl-diskless-sync-delay": "0",
        ...settings,
      }),
    ),
  );
  const [first] = servers;
  for (const [index, { port }] of servers.entries())
    if (index > 0) await first!.admin.call("CLUSTER", "MEET", "127.0.0.1", port, busPorts[index]!);
  await untilAll(
    servers,
    async (admin) => (await nodesOf(admin)).length === servers.length,
    "nodes that met",
  );
  const ids = await Promise.all(servers.map(({ admin }) => admin.cluster("MYID")));
  for (const [index, { admin }] of servers.entries()) {
    const [from, to] = [index, index + 1].map((part) => Math.floor((part * SLOTS) / MASTERS)) as [
      number,
      number,
    ];
    if (index < MASTERS) await admin.call("CLUSTER", "ADDSLOTSRANGE", from, to - 1);
    else await admin.cluster("REPLICATE", ids[index - MASTERS]!);
  }
  await untilAll(
    servers,
    async (admin) =>
      (await admin.cluster("INFO")).includes("cluster_state:ok") &&
      (await nodesOf(admin)).filter((line) => line.includes("slave")).length === servers.length - MASTERS,
    "a cluster with replicas",
  );
  await untilAll(
    servers.slice(MASTERS),
    async (admin) => (await admin.info("replication")).includes("master_link_status:up"),
    "replicas that follow",
  );
  const runningMasters = async () => {
    const running = servers.filter(isRunning);
    const roles = await Promise.all(running.map(async ({ admin }) => (await admin.role())[0]));
    return running.filter((_, index) => roles[index] === "master");
  };
  const masterOf = async (key: string) => {
    // One that is frozen doesn't answer.
    const ports = await Promise.all(
      servers
        .filter(isRunning)
        .map(({ admin }) => Promise.race([portOfSlot(admin, key), sleep(ANSWER_MS, undefined)])),
    );
    const port = ports.find((each, index) => each !== undefined && ports.indexOf(each) !== index);
    return servers.find((server) => server.port === port)!;
  };
  return {
    place: servers
      .slice(0, MASTERS)
      .map(({ port }) => `127.0.0.1:${port}`)
      .join(","),
    servers,
    masterOf,
    async moveSlotOf(key) {
      const masters = await runningMasters();
      const from = await masterOf(key);
      const to = masters.find((master) => master !== from)!;
      const [fromId, toId] = await Promise.all([from, to].map(({ admin }) => admin.cluster("MYID")));
      const slot = await from.admin.cluster("KEYSLOT", key);
      await to.admin.cluster("SETSLOT", slot, "IMPORTING", fromId!);
      await from.admin.cluster("SETSLOT", slot, "MIGRATING", toId!);
      for (;;) {
        const keys = await from.admin.cluster("GETKEYSINSLOT", slot, 50);
        if (keys.length === 0) break;
        await from.admin.call("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", ...keys);
      }
      for (const { admin } of [to, from, ...masters]) await admin.cluster("SETSLOT", slot, "NODE", toId!);
    },
    async close() {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

function isRunning({ process }: OwnRedis): boolean {
  return process.exitCode === null && process.signalCode === null;
}

async function nodesOf(admin: Redis): Promise<string[]> {
  return ((await admin.cluster("NODES")) as string).trim().split("\n");
}

async function portOfSlot(admin: Redis, key: string): Promise<number | undefined> {
  const slot = await admin.cluster("KEYSLOT", key);
  const ranges = await admin.cluster("SLOTS");
  return ranges.find(([from, to]) => from <= slot && slot <= to)?.[2]?.[1];
}

async function untilAll(
  servers: readonly OwnRedis[],
  holds: (admin: Redis) => Promise<boolean>,
  what: string,
): Promise<void> {
  await until(async () => (await Promise.all(servers.map(({ admin }) => holds(admin)))).every(Boolean), what);
}
