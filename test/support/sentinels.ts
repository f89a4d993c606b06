/** Redis with replicas and three Sentinels that watch them, all processes of a test's own. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { findRedisProgram } from "../../src/redis/findRedisProgram.ts";
import { until } from "./infermill.ts";
import { freePort } from "./freePort.ts";
import { startOwnRedis, type OwnRedis } from "./ownRedis.ts";
import { testRedisEnv } from "./redis.ts";

const MASTER = "mymaster";

export interface WatchedRedis {
  /** host:port of the Sentinels, comma-separated, and the name of the master: what stands behind // and a login. */
  readonly place: string;
  readonly sentinelPorts: readonly number[];
  readonly servers: readonly OwnRedis[];
  /** The master, as most Sentinels see it now. */
  master(): Promise<OwnRedis>;
  close(): Promise<void>;
}

/**
 * @param settings of every server
 * @param password of the Sentinels
 */
export async function startWatchedRedis(
  settings: Record<string, string>,
  { replicas, password }: { replicas: number; password: string },
): Promise<WatchedRedis> {
  const first = await startOwnRedis(settings);
  const servers = [first];
  for (let count = 0; count < replicas; count++)
    servers.push(await startOwnRedis({ ...settings, replicaof: `127.0.0.1 ${first.port}` }));
  await until(
    async () => ((await first.admin.info("replication")).match(/state=online/g) ?? []).length === replicas,
    "replicas that follow",
  );
  const sentinels = await Promise.all([1, 2, 3].map(() => startSentinel(first.port, password)));
  const say = async (command: string, ...args: string[]) =>
    Promise.all(
      sentinels.map(async ({ port }) => {
        const client = new Redis({ port, password, retryStrategy: () => null });
        client.on("error", () => {});
        try {
          return await client.call("SENTINEL", command, ...args);
        } catch {
          return undefined;
        } finally {
          client.disconnect();
        }
      }),
    );
  await until(
    async () =>
      (await say("CKQUORUM", MASTER)).every((answer) => String(answer).startsWith("OK 3 usable")) &&
      (await say("REPLICAS", MASTER)).every((found) => (found as unknown[]).length === replicas),
    "Sentinels that know each other and the replicas",
  );
  return {
    place: `${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",")}/${MASTER}`,
    sentinelPorts: sentinels.map(({ port }) => port),
    servers,
    async master() {
      const ports = (await say("GET-MASTER-ADDR-BY-NAME", MASTER)).map((answer) =>
        Number((answer as string[] | undefined)?.[1]),
      );
      const port = ports.find((each, index) => ports.indexOf(each) !== index);
      return servers.find((server) => server.port === port)!;
    },
    async close() {
      for (const each of [...sentinels, ...servers]) await each.close();
    },
  };
}

/** @param settings lines for its file, such as those of TLS; its port is for connections without it */
export async function startSentinel(masterPort: number, password: string, settings: string[] = []) {
  const program = await findRedisProgram({ env: testRedisEnv });
  const folder = mkdtempSync(join(tmpdir(), "sentinel-"));
  const port = await freePort();
  const file = join(folder, "sentinel.conf");
  writeFileSync(
    file,
    [
      `port ${port}`,
      "bind 127.0.0.1",
      `dir ${folder}`,
      `requirepass ${password}`,
      `sentinel sentinel-pass ${password}`,
      ...settings,
      `sentinel monitor ${MASTER} 127.0.0.1 ${masterPort} 2`,
      `sentinel down-after-milliseconds ${MASTER} 2000`,
      `sentinel failover-timeout ${MASTER} 10000`,
      "",
    ].join("\n"),
  );
  const child = spawn(program.command, [file, "--sentinel"], { cwd: folder, stdio: "ignore" });
  const exited = once(child, "exit");
  return {
    port,
    async close() {
      child.kill("SIGKILL");
      await exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
