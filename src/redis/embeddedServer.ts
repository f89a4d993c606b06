/**
 * The embedded Redis of a data folder: started on a unix socket, restarted when
 * it dies, shared by every infermill process of that folder, stopped by the last.
 *
 * Who uses the server is known to the server itself: each process holds a
 * connection with a name, its seat, which ends with the process however it ends.
 */
import { createBackoff } from "../core/backoff.ts";
import { createHash } from "node:crypto";
import { lstat, mkdir, realpath } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Redis } from "ioredis";
import { RedisUnavailableError } from "../errors.ts";
import { parseInfo } from "./check.ts";
import type { RedisProgram } from "./findRedisProgram.ts";
import type { RedisLog, RedisServer } from "./redisServer.ts";
import {
  isListening,
  launch,
  startFault,
  STOP_TIMEOUT_MS,
  stopProcess,
  waitUntilListening,
  type Place,
  type ServerProcess,
} from "./serverProcess.ts";
import { withFileLock } from "../fileLock.ts";

const SEAT_NAME = "infermill-seat";
/** macOS allows 104 bytes with the closing zero, Linux 108. */
const MAX_SOCKET_PATH_BYTES = 103;
const ANSWER_TIMEOUT_MS = 15_000;
const EXIT_NOTICE_MS = 500;
const RESTARTS = { firstMs: 200, maxMs: 5000, steadyMs: 30_000 };

/** Starts the server of a data folder, or joins the one that runs; keeps it running until `close()`. */
export async function startEmbeddedRedis(options: {
  dataDir: string;
  findProgram: () => Promise<RedisProgram>;
  log?: RedisLog;
}): Promise<RedisServer> {
  const { findProgram, log } = options;
  const place = await preparePlace(options.dataDir);
  const closing = new AbortController();
  let server: ServerProcess | undefined;
  let program: RedisProgram | undefined;

  async function takeSeat(): Promise<Redis> {
    return await withFileLock(place.lockFile, startOrJoin, closing.signal);
  }

  async function startOrJoin(): Promise<Redis> {
    if (await isListening(place.socketPath)) return await openSeat(place, closing.signal);
    program = await findProgram();
    server = await launch(program, place);
    try {
      await waitUntilListening(server, place.socketPath, closing.signal);
      return await openSeat(place, closing.signal);
    } catch (error) {
      // A closed connection is seen before the exit that closed it.
      await Promise.race([server.exited, sleep(EXIT_NOTICE_MS)]);
      const fault = server.hasExited() ? await startFault(server, error) : error;
      await stopProcess(server);
      throw fault;
    }
  }

  let seat = await takeSeat();
  const { version, source } = await describeServer(seat, program);

  async function superviseUntilClosed(): Promise<void> {
    const backoff = createBackoff(RESTARTS);
    for (;;) {
      const seatedAt = Date.now();
      await seatLost(seat, closing.signal);
      if (closing.signal.aborted) return;
      log?.warn("Redis is gone; starting it again");
      let livedMs = Date.now() - seatedAt;
      for (let isBack = false; !isBack; livedMs = 0) {
        try {
          await sleep(backoff.next(livedMs), undefined, { signal: closing.signal });
          seat = await takeSeat();
          isBack = true;
        } catch (error) {
          if (closing.signal.aborted) return;
          log?.warn(`Redis could not be started: ${(error as Error).message}`);
        }
      }
      log?.info("Redis runs again");
    }
  }
  const supervision = superviseUntilClosed();

  async function leave(): Promise<void> {
    if (await isSharedSeat(seat)) {
      await seat.quit();
      log?.info("Redis is left running for another infermill that uses it");
      return;
    }
    const pid = Number(parseInfo(await seat.info("server")).get("process_id"));
    await seat.shutdown().catch(() => {}); // The reply is a closed connection.
    seat.disconnect();
    await stopProcess(server);
    if (!(await hasGone(pid)))
      log?.warn(`Redis (process ${pid}) has not stopped within ${STOP_TIMEOUT_MS / 1000} s`);
  }

  let closed: Promise<void> | undefined;
  async function close(): Promise<void> {
    closing.abort();
    await supervision;
    try {
      await withFileLock(place.lockFile, leave);
    } catch {
      // The server is dead or has not come up yet, so that it couldn't be asked who else uses it.
      await stopProcess(server);
    }
  }

  return { url: unixUrl(place.socketPath), source, version, warnings: [], close: () => (closed ??= close()) };
}

async function preparePlace(dataDir: string): Promise<Place> {
  try {
    await mkdir(dataDir, { recursive: true });
    await mkdir(join(dataDir, "redis"), { recursive: true, mode: 0o700 });
  } catch (error) {
    const { message } = error as Error;
    throw new RedisUnavailableError(
      `The data folder can't be written (${message}); name another one with data_dir or INFERMILL_DATA_DIR`,
      { cause: error },
    );
  }
  const folder = await realpath(join(dataDir, "redis"));
  return {
    folder,
    socketPath: await chooseSocketPath(folder),
    lockFile: join(folder, "start.lock"),
    logFile: join(folder, "redis.log"),
  };
}

/** In the data folder, or where that path is too long for a socket, in a private folder for temporary files. */
async function chooseSocketPath(folder: string): Promise<string> {
  const here = join(folder, "redis.sock");
  if (Buffer.byteLength(here) <= MAX_SOCKET_PATH_BYTES) return here;
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 16);
  const elsewhere = join(tmpdir(), `infermill-${hash}`);
  await mkdir(elsewhere, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  const { mode, uid } = await lstat(elsewhere);
  // Anyone may create names in the folder for temporary files, also this one.
  if ((mode & 0o170777) !== 0o040700 || uid !== process.getuid?.()) {
    throw new RedisUnavailableError(
      `${elsewhere} must be a folder that only you may enter (owner ${process.getuid?.()}, mode 700), got owner ${uid}, mode ${(mode & 0o7777).toString(8)}; remove it, or choose a shorter data_dir`,
    );
  }
  return join(elsewhere, "redis.sock");
}

function unixUrl(socketPath: string): string {
  return pathToFileURL(socketPath).href.replace(/^file:/, "unix:");
}

/** Connects, and waits until the server has read its data from disk, however long that takes. */
async function openSeat(place: Place, signal: AbortSignal): Promise<Redis> {
  const seat = new Redis({
    path: place.socketPath,
    lazyConnect: true,
    enableReadyCheck: false,
    retryStrategy: () => null,
    commandTimeout: ANSWER_TIMEOUT_MS,
  });
  seat.on("error", () => {});
  try {
    await seat.connect();
    await waitUntilLoaded(seat, signal);
    await refuseForeignServer(seat, place);
    await seat.client("SETNAME", SEAT_NAME);
    return seat;
  } catch (error) {
    seat.disconnect();
    if (signal.aborted || error instanceof RedisUnavailableError) throw error;
    throw new RedisUnavailableError(
      `Something listens on ${place.socketPath} but doesn't answer as Redis does (${(error as Error).message}); stop it and start again`,
      { cause: error },
    );
  }
}

async function waitUntilLoaded(seat: Redis, signal: AbortSignal): Promise<void> {
  for (;;) {
    const answer = await seat.ping().catch((error: Error) => error);
    if (!(answer instanceof Error)) return;
    if (!answer.message.startsWith("LOADING")) throw answer;
    await sleep(50, undefined, { signal });
  }
}

async function refuseForeignServer(seat: Redis, { folder, socketPath }: Place): Promise<void> {
  // A pair, whether the reply comes as a list or as a map.
  const dir = String(Object.values(Object(await seat.config("GET", "dir"))).at(-1));
  if (dir === folder) return;
  throw new RedisUnavailableError(
    `The Redis on ${socketPath} should keep its data in ${folder}, but keeps it in ${dir}; stop it and start again`,
  );
}

async function describeServer(
  seat: Redis,
  program: RedisProgram | undefined,
): Promise<{ version: string; source: string }> {
  if (program) return program;
  const info = parseInfo(await seat.info("server"));
  const name = info.has("valkey_version") ? "valkey-server" : "redis-server";
  const version = info.get("valkey_version") ?? info.get("redis_version") ?? "unknown";
  return {
    version,
    source: `${name} ${version} that runs for this data folder already (process ${info.get("process_id")})`,
  };
}

async function isSharedSeat(seat: Redis): Promise<boolean> {
  const clients = String(await seat.client("LIST"));
  return clients.split("\n").filter((client) => client.includes(` name=${SEAT_NAME} `)).length > 1;
}

async function seatLost(seat: Redis, signal: AbortSignal): Promise<void> {
  if (seat.status === "end" || signal.aborted) return;
  await new Promise<void>((resolve) => {
    seat.once("end", resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

async function hasGone(pid: number): Promise<boolean> {
  for (const deadline = Date.now() + STOP_TIMEOUT_MS; Date.now() < deadline; await sleep(10)) {
    try {
      process.kill(pid, 0);
    } catch {
      return true;
    }
  }
  return false;
}
