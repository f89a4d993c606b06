/** Where Redis comes from, and that the embedded one keeps its data through every kind of end. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import type { Redis } from "ioredis";
import { afterEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { RedisUnavailableError } from "../../../src/errors.ts";
import { connectRedis } from "../../../src/redis/connections.ts";
import { checkRedis, parseInfo } from "../../../src/redis/check.ts";
import { findRedisProgram } from "../../../src/redis/findRedisProgram.ts";
import { SERVER_NAMES } from "../../../src/redis/programs.ts";
import { provideRedis, type RedisServer } from "../../../src/redis/provideRedis.ts";
import { withFileLock } from "../../../src/fileLock.ts";
import { isOnPath, startTestRedis, testRedisEnv, whyNoRedis } from "../../support/redis.ts";

const DOWNLOAD_TIMEOUT_MS = 180_000;

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp();
});

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "infermill-test-"));
  cleanUps.push(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function provide(dataDir: string, env: NodeJS.ProcessEnv = testRedisEnv): Promise<RedisServer> {
  const server = await provideRedis({ dataDir, env });
  cleanUps.push(() => server.close());
  return server;
}

async function connect(server: RedisServer): Promise<Redis> {
  const redis = (await connectRedis({ url: server.url, tls: undefined }, "worker")) as Redis;
  cleanUps.push(() => redis.disconnect());
  return redis;
}

async function processId(redis: Redis): Promise<number> {
  return Number(parseInfo(await redis.info("server")).get("process_id"));
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** A folder with a program of this name, to be put on the PATH. */
async function makeProgram(name: string, script: string): Promise<string> {
  const folder = await makeFolder();
  await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`);
  await chmod(join(folder, name), 0o755);
  return folder;
}

/** Another infermill on the same data folder, as a process of its own. */
async function startOtherProcess(dataDir: string): Promise<{ source: string; kill: () => Promise<void> }> {
  const script = `
    import { provideRedis } from ${JSON.stringify(new URL("../../../src/redis/provideRedis.ts", import.meta.url).href)};
    const server = await provideRedis({ dataDir: ${JSON.stringify(dataDir)} });
    console.log(server.source);`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", script], {
    env: testRedisEnv,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  cleanUps.push(kill);
  const [source] = await once(child.stdout, "data");
  return { source: String(source).trim(), kill };
}

/** A server that answers INFO with this. */
function redisWith(info: string): Redis {
  return { info: async () => info.replaceAll("\n", "\r\n") } as unknown as Redis;
}

describe("where Redis comes from", () => {
  test.skipIf(whyNoRedis)("REDIS_URL is used as it is and left running", async () => {
    const running = await startTestRedis();
    cleanUps.push(() => running.close());

    const server = await provideRedis({
      dataDir: "/nonexistent",
      env: { ...testRedisEnv, REDIS_URL: running.url },
    });
    await server.close();

    expect(server).toMatchObject({ url: running.url, source: "REDIS_URL", version: running.version });
    expect(await (await connect(running)).ping()).toBe("PONG");
  });

  test.skipIf(whyNoRedis)("a redis-server on the PATH comes before the distribution's packages", async () => {
    const { command, version } = await findRedisProgram({ env: testRedisEnv });
    const folder = await makeProgram("redis-server", `exec '${command}' "$@"`);

    const server = await provide(await makeFolder(), { PATH: folder, XDG_CACHE_HOME: "/nonexistent" });

    expect(server.source).toBe(`redis-server ${version} on the PATH (${folder}/redis-server)`);
    expect(await (await connect(server)).ping()).toBe("PONG");
  });

  const hasApt = isOnPath("apt-get");

  test.skipIf(!hasApt)(
    "the distribution's packages are unpacked without root, once, also by two processes at a time",
    { timeout: DOWNLOAD_TIMEOUT_MS },
    async () => {
      const env = await withoutRedisOnPath({ ...testRedisEnv, XDG_CACHE_HOME: await makeFolder() });
      const progress: string[] = [];
      const onProgress = (line: string) => void progress.push(line);

      const found = await Promise.all([
        findRedisProgram({ env, onProgress }),
        findRedisProgram({ env, onProgress }),
      ]);
      const downloads = progress.length;
      const again = await findRedisProgram({ env, onProgress });

      expect(found[0]).toEqual(found[1]);
      expect(found[0].source).toMatch(
        /^(redis|valkey)-server \d+\.\d+\.\d+ from the packages of .+, unpacked in \/.+/,
      );
      expect(again).toEqual(found[0]);
      expect(progress.length, "a server in the cache needs no download").toBe(downloads);
      expect(
        await readdir(join(env.XDG_CACHE_HOME!, "infermill/redis")),
        "nothing is left beside it",
      ).toHaveLength(1);
      const server = await provide(await makeFolder(), env);
      expect(await (await connect(server)).ping()).toBe("PONG");
    },
  );

  test.skipIf(!hasApt)(
    "the server is unpacked whole where redis-tools is installed without redis-server",
    { timeout: DOWNLOAD_TIMEOUT_MS },
    async () => {
      const dpkgQuery = (await promisify(execFile)("which", ["dpkg-query"])).stdout.trim();
      const folder = await makeProgram(
        "dpkg-query",
        `'${dpkgQuery}' "$@"; printf 'ii redis-tools\\nii valkey-tools\\n'`,
      );
      const { PATH, ...env } = await withoutRedisOnPath({
        ...testRedisEnv,
        XDG_CACHE_HOME: await makeFolder(),
      });

      const program = await findRedisProgram({ env: { ...env, PATH: [folder, PATH].join(delimiter) } });

      expect(program.source).toMatch(/from the packages of/);
    },
  );

  test.skipIf(!hasApt)(
    "a machine without package lists gets them in a folder of infermill's own",
    { timeout: DOWNLOAD_TIMEOUT_MS },
    async () => {
      const lists = await makeFolder();
      const configuration = join(await makeFolder(), "apt.conf");
      await writeFile(configuration, `Dir::State::Lists "${lists}";\n`);
      const cache = await makeFolder();
      const env = await withoutRedisOnPath({
        ...testRedisEnv,
        XDG_CACHE_HOME: cache,
        APT_CONFIG: configuration,
      });
      const progress: string[] = [];

      const { source } = await findRedisProgram({ env, onProgress: (line) => progress.push(line) });

      expect(progress[0]).toMatch(/^Fetching the distribution's package lists/);
      expect(source).toContain(`unpacked in ${cache}`);
      expect((await readdir(lists)).filter((name) => name.includes("Packages"))).toEqual([]);
    },
  );

  test("where there is none, the error says what was tried and how to install one", async () => {
    const env = { PATH: "", XDG_CACHE_HOME: await makeFolder() };
    const error: unknown = await provideRedis({ dataDir: await makeFolder(), env }).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(RedisUnavailableError);
    const { message } = error as RedisUnavailableError;
    const parts = [
      "neither redis-server nor valkey-server is on the PATH",
      "apt-get is not on the PATH",
      "sudo apt-get install redis-server",
      "sudo dnf install",
      "brew install redis",
      "docker run",
      "REDIS_URL",
    ];
    for (const part of parts) expect(message).toContain(part);
  });

  test("a redis-server that is too old is passed over, and the error says so", async () => {
    const folder = await makeProgram("redis-server", 'echo "Redis server v=6.0.16 sha=00000000:0 bits=64"');
    const env = { PATH: folder, XDG_CACHE_HOME: await makeFolder() };
    await expect(findRedisProgram({ env })).rejects.toThrow(
      `${folder}/redis-server is version 6.0.16, expected 6.2.0 or newer`,
    );
  });
});

describe.skipIf(whyNoRedis)("the embedded server", { timeout: 30_000 }, () => {
  test("listens on a unix socket alone, that only its user may open, and keeps what it accepts", async () => {
    const redis = await connect(await provide(await makeFolder()));
    const setting = async (name: string) => Object.values(Object(await redis.config("GET", name))).at(-1);
    expect(await setting("port")).toBe("0");
    expect(await setting("unixsocketperm")).toBe("700");
    expect(await setting("appendonly")).toBe("yes");
    expect(await setting("appendfsync")).toBe("everysec");
    expect(await setting("maxmemory-policy")).toBe("noeviction");
    expect((await checkRedis(redis)).warnings).toEqual([]);
  });

  test("starts in less than 300 ms once it is in the cache", async () => {
    await findRedisProgram({ env: testRedisEnv });
    const times: number[] = [];
    for (let round = 0; round < 3; round++) {
      const start = performance.now();
      const server = await startTestRedis();
      times.push(performance.now() - start);
      await server.close();
    }
    expect(Math.min(...times)).toBeLessThan(300);
  });

  test("what was written is there after close and start, and close leaves no process", async () => {
    const dataDir = await makeFolder();
    const first = await provide(dataDir);
    const redis = await connect(first);
    const pid = await processId(redis);
    await redis.set("key", "value");
    await first.close();
    expect(isRunning(pid)).toBe(false);

    const second = await connect(await provide(dataDir));
    expect(await second.get("key")).toBe("value");
  });

  test("a server that is killed is started again by itself, with its data", async () => {
    const lines: string[] = [];
    const log = {
      info: (line: string) => void lines.push(line),
      warn: (line: string) => void lines.push(line),
    };
    const server = await provideRedis({ dataDir: await makeFolder(), env: testRedisEnv, log });
    cleanUps.push(() => server.close());
    const redis = await connect(server);
    for (const round of ["1", "2"]) {
      await redis.set("round", round);
      const pid = await processId(redis);
      process.kill(pid, "SIGKILL");
      await vi.waitFor(async () => expect(await processId(redis)).not.toBe(pid), {
        timeout: 10_000,
        interval: 50,
      });
      expect(await redis.get("round")).toBe(round);
      // The server may answer a moment before its starter has noticed.
      const oneRound = ["Redis is gone; starting it again", "Redis runs again"];
      const expected = Array.from({ length: Number(round) }, () => oneRound).flat();
      await vi.waitFor(() => expect(lines).toEqual(expected), { timeout: 10_000 });
    }
  });

  test("close while the server is being restarted leaves no process", async () => {
    const dataDir = await makeFolder();
    const server = await provide(dataDir);
    const redis = await connect(server);
    process.kill(await processId(redis), "SIGKILL");
    redis.disconnect();
    await server.close();
    expect(await countServers(dataDir)).toBe(0);
  });

  test("the server of an infermill that was killed is used, and stopped at close", async () => {
    const dataDir = await makeFolder();
    const other = await startOtherProcess(dataDir);
    await other.kill();

    const server = await provide(dataDir);
    const pid = await processId(await connect(server));
    expect(server.source).toMatch(new RegExp(`that runs for this data folder already \\(process ${pid}\\)$`));
    await server.close();
    expect(isRunning(pid)).toBe(false);
  });

  test("two infermills of one data folder share a server, whoever leaves first", async () => {
    const dataDir = await makeFolder();
    const servers = await Promise.all([provide(dataDir), provide(dataDir), provide(dataDir)]);
    const redis = await connect(servers[0]);
    const pid = await processId(redis);
    expect(await countServers(dataDir)).toBe(1);

    await servers[0].close();
    expect(await processId(redis)).toBe(pid);
    await Promise.all([servers[1].close(), servers[2].close()]);
    expect(isRunning(pid)).toBe(false);
  });

  test("a data folder with a long path, spaces and umlauts gets its socket in a private folder elsewhere", async () => {
    const dataDir = join(await makeFolder(), "Größe 100 % #1 ".repeat(6), "data".repeat(20));
    await mkdir(dataDir, { recursive: true });
    const server = await provide(dataDir);
    const redis = await connect(server);
    await redis.set("key", "value");
    expect(
      existsSync(join(dataDir, "redis/appendonlydir")) || existsSync(join(dataDir, "redis/appendonly.aof")),
    ).toBe(true);
    const socketFolder = dirname(new URL(server.url).pathname);
    expect(dirname(socketFolder)).toBe(tmpdir());
    onTestFinished(() => rm(socketFolder, { recursive: true }));
  });

  test("a short data folder with spaces has its socket within, and the URL leads there", async () => {
    const dataDir = join(await makeFolder(), "my data #1 %20");
    const server = await provide(dataDir);
    expect(decodeURIComponent(new URL(server.url).pathname)).toBe(join(dataDir, "redis/redis.sock"));
    expect(await (await connect(server)).ping()).toBe("PONG");
  });

  test("a server that exits at its start shows the end of its log", async () => {
    const dataDir = await makeFolder();
    const first = await provide(dataDir);
    await (await connect(first)).set("key", "value");
    await first.close();
    await damageAppendOnlyFile(join(dataDir, "redis"));
    await expect(provide(dataDir)).rejects.toThrow(
      /exited at its start; the end of its log:[^]*append only file/i,
    );
    expect(await countServers(dataDir)).toBe(0);
  });

  test("a data folder that can't be made is named in the error", async () => {
    const file = join(await makeFolder(), "file");
    await writeFile(file, "");
    await expect(provide(join(file, "data"))).rejects.toThrow(
      /data folder can't be written .*INFERMILL_DATA_DIR/,
    );
  });
});

describe("the check of a Redis", () => {
  test("a version that BullMQ can't use is refused, with what to do", async () => {
    await expect(checkRedis(redisWith("redis_version:6.0.16\n"))).rejects.toThrow(
      "Redis is version 6.0.16, expected 6.2.0 or newer; upgrade it",
    );
  });

  test("versions are compared by number: 10.0.0 is newer than 6.2.0", async () => {
    const info = "redis_version:10.0.0\nmaxmemory_policy:noeviction\naof_enabled:1\n";
    expect(await checkRedis(redisWith(info))).toEqual({ version: "10.0.0", warnings: [] });
  });

  test.skipIf(whyNoRedis)(
    "eviction and a missing append-only file are warned of, with what they mean",
    async () => {
      const redis = await connect(await provide(await makeFolder()));
      await redis.config("SET", "maxmemory-policy", "allkeys-lru");
      await redis.config("SET", "appendonly", "no");
      const { warnings } = await checkRedis(redis);
      expect(warnings).toHaveLength(2);
      expect(warnings[0]).toMatch(
        /maxmemory-policy allkeys-lru, expected noeviction: .* may evict queued predictions/,
      );
      expect(warnings[1]).toMatch(/appendonly no: .* predictions accepted since its last snapshot are lost/);
    },
  );

  test.skipIf(whyNoRedis)("a user who may not run INFO or CONFIG gets a note, not an error", async () => {
    const redis = await connect(await provide(await makeFolder()));
    await redis.acl("SETUSER", "default", "-config", "-info");
    const { version, warnings } = await checkRedis(redis);
    expect(version).toBe("unknown");
    expect(warnings).toEqual([expect.stringContaining("forbids INFO")]);
    await redis.acl("SETUSER", "default", "+@all").catch(() => {});
  });
});

describe("the start lock", () => {
  test("lets one task run at a time", async () => {
    const file = join(await makeFolder(), "lock");
    let running = 0;
    let most = 0;
    const task = async () => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 20));
      running--;
    };
    await Promise.all(Array.from({ length: 5 }, () => withFileLock(file, task)));
    expect(most).toBe(1);
    expect(existsSync(file)).toBe(false);
  });

  test("one that a killed process left behind expires", async () => {
    const file = join(await makeFolder(), "lock");
    await writeFile(file, "");
    const longAgo = new Date(Date.now() - 60_000);
    await utimes(file, longAgo, longAgo);
    expect(await withFileLock(file, async () => "done")).toBe("done");
  });
});

function holdsRedis(folder: string): boolean {
  return SERVER_NAMES.some((name) => existsSync(join(folder, name)));
}

/** The PATH with all of its programs but the Redis servers: apt runs many others, such as gpgv. */
async function withoutRedisOnPath(env: NodeJS.ProcessEnv): Promise<NodeJS.ProcessEnv> {
  const folders = (env.PATH ?? "").split(delimiter).filter(Boolean);
  const path: string[] = [];
  for (const folder of folders)
    path.push(holdsRedis(folder) ? await linkProgramsBut(SERVER_NAMES, folder) : folder);
  return { ...env, PATH: path.join(delimiter) };
}

async function linkProgramsBut(left: readonly string[], folder: string): Promise<string> {
  const links = await makeFolder();
  const names = (await readdir(folder)).filter((name) => !left.includes(name));
  await Promise.all(names.map((name) => symlink(join(folder, name), join(links, name))));
  return links;
}

/** Servers whose command line or title names this data folder. */
async function countServers(dataDir: string): Promise<number> {
  const commands = existsSync("/proc/self/cmdline") ? await readProcCommands() : await readPsCommands();
  return commands.filter((line) => /(redis|valkey)-server/.test(line) && line.includes(dataDir)).length;
}

async function readProcCommands(): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  return await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
}

async function readPsCommands(): Promise<string[]> {
  const { stdout } = await promisify(execFile)("ps", ["-axo", "args="]);
  return stdout.split("\n");
}

async function damageAppendOnlyFile(folder: string): Promise<void> {
  const names = await readdir(folder, { recursive: true });
  const file =
    names.find((name) => name.endsWith(".incr.aof")) ?? names.find((name) => name.endsWith(".aof"));
  const path = join(folder, file!);
  await writeFile(path, `nonsense\r\n${await readFile(path, "utf8")}`);
}
