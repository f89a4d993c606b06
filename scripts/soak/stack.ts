/** What the soak runs on: the processes of infermill, started again when they end, and a Redis or a cluster of it. */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../../test/support/freePort.ts";
import { MAIN, SCRIPTED_LOADER, until } from "../../test/support/infermill.ts";
import { startOwnRedis, type OwnRedis } from "../../test/support/ownRedis.ts";
import { SECRET } from "../../test/support/receiver.ts";
import { testRedisEnv } from "../../test/support/redis.ts";
import { startTestCluster } from "../../test/support/redisCluster.ts";
import { fileURLToPath } from "node:url";

const SIZE_LOADER = fileURLToPath(new URL("../../test/loaders/pictureSize.ts", import.meta.url));
/** As systemd or an orchestrator would do it. */
const RESTART_MS = 1000;
const STOP_LIMIT_MS = 60_000;
/** With nothing left to do. */
const SLOW_STOP_SECONDS = 8;
const NAMES = ["api 0", "api 1", "worker 0", "worker 1", "worker 2", "coordinator 0", "coordinator 1"];

export interface Member {
  readonly name: string;
  /** Of its process at this moment. */
  readonly pid: number | undefined;
}

export interface Stack {
  /** Of the apis. */
  readonly urls: readonly string[];
  readonly members: readonly Member[];
  readonly redis: RedisNodes;
  /** Ends that were nobody's fault here. */
  readonly fallen: string[];
  stop(): Promise<void>;
}

/** @param folder for data, configurations and logs */
export async function startStack(folder: string, kind: "single" | "cluster"): Promise<Stack> {
  const redis = await startRedis(kind);
  const ports = [await freePort(), await freePort()];
  const fallen: string[] = [];
  let isStopping = false;
  mkdirSync(join(folder, "logs"));
  const members = NAMES.map((name) => {
    const [command, index] = name.split(" ") as [string, string];
    const config = join(folder, `${index}.json`);
    const port = ports[Number(index)];
    if (port !== undefined) writeFileSync(config, JSON.stringify(configOf(port)));
    return keepRunning(name, [command, "--config", port === undefined ? join(folder, "0.json") : config]);
  });

  function keepRunning(name: string, args: readonly string[]) {
    let child: ChildProcess | undefined;
    const start = () => {
      if (isStopping) return;
      const log = openSync(join(folder, "logs", `${name.replace(" ", "-")}.log`), "a");
      const started = spawn(process.execPath, [MAIN, ...args], {
        env: { ...testRedisEnv, REDIS_URL: redis.url, INFERMILL_CONFIG: "", UV_THREADPOOL_SIZE: "64" },
        stdio: ["ignore", log, log],
      });
      closeSync(log);
      child = started;
      started.once("exit", (code, signal) => {
        if (isStopping) return;
        if (signal !== "SIGKILL") fallen.push(`${name} ended by itself (${signal ?? code})`);
        setTimeout(start, RESTART_MS);
      });
    };
    start();
    return {
      name,
      get pid() {
        return child?.exitCode === null && child.signalCode === null ? child.pid : undefined;
      },
      async stop() {
        if (!child || child.exitCode !== null || child.signalCode !== null) return;
        const gone = new Promise((resolve) => child!.once("exit", resolve));
        child.kill("SIGCONT");
        child.kill("SIGTERM");
        const startedAt = Date.now();
        const limit = setTimeout(() => child!.kill("SIGKILL"), STOP_LIMIT_MS);
        await gone;
        clearTimeout(limit);
        const seconds = Math.round((Date.now() - startedAt) / 1000);
        if (seconds > SLOW_STOP_SECONDS) fallen.push(`${name} took ${seconds} s to stop`);
      },
    };
  }

  const urls = ports.map((port) => `http://127.0.0.1:${port}`);
  const stop = async () => {
    if (isStopping) return;
    isStopping = true;
    await Promise.all(members.map((member) => member.stop()));
    await redis.close();
  };
  try {
    for (const url of urls) {
      await until(
        () =>
          fetch(`${url}/health/ready`).then(
            ({ ok }) => ok,
            () => false,
          ),
        `${url} is ready`,
        120_000,
      );
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { urls, members, redis, fallen, stop };
}

function configOf(port: number): object {
  const loader = { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 1 };
  return {
    port,
    data_dir: "data",
    log_level: "info",
    webhooks: { secret: SECRET, allow: ["127.0.0.1"], retry_delays_ms: Array(30).fill(2000) },
    models: {
      Scripted: { ...loader, max_batch_size: 4, attempts: 5 },
      Size: { loader: "PictureSizeModelLoader", model_loader_file: SIZE_LOADER, instances: 1, attempts: 5 },
    },
  };
}

export interface RedisNodes {
  readonly url: string;
  /** Process ids. */
  pids(): number[];
  /** Cuts all connections of clients. */
  cut(): Promise<void>;
  /** Kills a master; it is started again. @returns what was done; undefined where no replica could take its place */
  kill(): Promise<string | undefined>;
  /** Has a replica take the place of its master, in order. @returns undefined where there is none */
  failOver(): Promise<string | undefined>;
  close(): Promise<void>;
}

/** How long a killed master stays away: a single one as long as its restart takes, one of a cluster until it is replaced. */
const AWAY_MS = { single: 2000, cluster: 8000 };

async function startRedis(kind: "single" | "cluster"): Promise<RedisNodes> {
  const cluster = kind === "cluster" ? await startTestCluster() : undefined;
  const servers: readonly OwnRedis[] = cluster?.servers ?? [await startOwnRedis()];
  /** Those that were started again, by their port. */
  const children = new Map(servers.map(({ port, process: child }) => [port, child]));
  const isRunning = (port: number) => {
    const { exitCode, signalCode } = children.get(port)!;
    return exitCode === null && signalCode === null;
  };
  let isClosing = false;

  async function replication(): Promise<{ server: OwnRedis; info: string }[]> {
    const running = servers.filter(({ port }) => isRunning(port));
    return Promise.all(
      running.map(async (server) => ({ server, info: await server.admin.info("replication") })),
    );
  }

  /** Servers of a cluster that is whole. */
  async function those(pattern: RegExp): Promise<OwnRedis[]> {
    const all = await replication();
    const isWhole = all.length === servers.length && all.every(({ info }) => !/link_status:down/.test(info));
    return isWhole ? all.filter(({ info }) => pattern.test(info)).map(({ server }) => server) : [];
  }

  return {
    url: cluster ? `redis+cluster://${cluster.place}` : servers[0]!.url,
    pids: () => [...children.values()].flatMap(({ pid }) => pid ?? []),
    async cut() {
      for (const { admin, port } of servers) {
        if (!isRunning(port)) continue;
        for (const type of ["normal", "pubsub"]) await admin.call("CLIENT", "KILL", "TYPE", type);
      }
    },
    async kill() {
      const [master] = cluster ? shuffled(await those(/role:master[\s\S]*state=online/)) : servers;
      if (!master || !isRunning(master.port)) return undefined;
      const child = children.get(master.port)!;
      child.kill("SIGKILL");
      setTimeout(() => {
        if (isClosing) return;
        const [program, ...args] = child.spawnargs;
        children.set(master.port, spawn(program!, args, { stdio: "ignore" }));
      }, AWAY_MS[kind]);
      return `Redis ${cluster ? "master " : ""}${master.port}`;
    },
    async failOver() {
      const [replica] = cluster ? shuffled(await those(/role:slave[\s\S]*link_status:up/)) : [];
      if (!replica) return undefined;
      await replica.admin.call("CLUSTER", "FAILOVER");
      return `replica ${replica.port} becomes master`;
    },
    async close() {
      isClosing = true;
      for (const child of children.values()) child.kill("SIGKILL");
      await sleep(200);
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

let turn = 0;

/** Another one first each time. */
function shuffled<T>(list: readonly T[]): T[] {
  const start = list.length === 0 ? 0 : turn++ % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}
