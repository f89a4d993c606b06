/** A redis-server of a test's own, with the settings that the test is about: maxmemory, a master, passwords, a small disk. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { findRedisProgram } from "../../src/redis/findRedisProgram.ts";
import { freePort } from "./freePort.ts";
import { testRedisEnv } from "./redis.ts";
import { until } from "./infermill.ts";

export interface OwnRedis {
  readonly url: string;
  readonly port: number;
  /** As the default user, without a password. */
  readonly admin: Redis;
  readonly process: ChildProcess;
  /** Kills it, where it still runs, and starts it again `ms` later on the same port and data. */
  restart(ms: number): Promise<void>;
  close(): Promise<void>;
}

export async function startOwnRedis(
  settings: Record<string, string> = {},
  { folder: given, command }: { folder?: string; command?: string | undefined } = {},
): Promise<OwnRedis> {
  const program = command ?? (await findRedisProgram({ env: testRedisEnv })).command;
  const folder = given ?? mkdtempSync(join(tmpdir(), "own-redis-"));
  const port = await freePort();
  const all = {
    dir: folder,
    port: String(port),
    save: "",
    appendonly: "yes",
    bind: "127.0.0.1",
    ...settings,
  };
  const start = () => {
    const child = spawn(
      program,
      Object.entries(all).flatMap(([name, value]) => [`--${name}`, ...value.split(" ")]),
      { cwd: folder, stdio: "ignore" },
    );
    return { child, exited: once(child, "exit") };
  };
  let running = start();
  const kill = async () => {
    running.child.kill("SIGKILL");
    await running.exited;
  };
  const admin = new Redis({ port, maxRetriesPerRequest: null, retryStrategy: () => 100 });
  admin.on("error", () => {});
  await until(
    () =>
      admin.ping().then(
        (answer) => answer === "PONG",
        () => false,
      ),
    "redis-server",
    20_000,
  );
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    admin,
    get process() {
      return running.child;
    },
    async restart(ms) {
      await kill();
      await sleep(ms);
      running = start();
    },
    async close() {
      admin.disconnect();
      await kill();
      if (given === undefined) rmSync(folder, { recursive: true, force: true });
    },
  };
}
