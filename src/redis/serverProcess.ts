/**
 * The server as a process: its settings, its log, its start and its end. Who
 * uses it and when it is started again is decided elsewhere.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { RedisUnavailableError } from "../errors.ts";
import type { RedisProgram } from "./findRedisProgram.ts";

const START_TIMEOUT_MS = 20_000;
const LOG_TAIL_BYTES = 4096;
/** How long a server may take to write what it has and to exit. */
export const STOP_TIMEOUT_MS = 10_000;

/** Where the server of a data folder keeps its things. */
export interface Place {
  folder: string;
  socketPath: string;
  lockFile: string;
  logFile: string;
}

/** A server process that this process started. */
export interface ServerProcess {
  process: ChildProcess;
  exited: Promise<void>;
  hasExited(): boolean;
  /** What it wrote since it was started, the last lines. */
  readLogTail(): Promise<string>;
}

/** Starts the program on a folder; returns before it listens. */
export async function launch(
  program: RedisProgram,
  { folder, socketPath, logFile }: Place,
): Promise<ServerProcess> {
  const settings = {
    dir: folder,
    port: "0",
    unixsocket: socketPath,
    unixsocketperm: "700",
    appendonly: "yes",
    appendfsync: "everysec",
    save: "",
    "maxmemory-policy": "noeviction",
    "protected-mode": "yes",
    daemonize: "no",
    supervised: "no",
    logfile: "",
  };
  const log = await open(logFile, "a+", 0o600);
  const { size: logStart } = await log.stat();
  let hasExited = false;
  try {
    const child = spawn(
      program.command,
      Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
      // In a process group of its own: Ctrl-C must not stop Redis before infermill has stopped in order.
      { cwd: folder, detached: true, stdio: ["ignore", log.fd, log.fd] },
    );
    const exited = new Promise<void>((resolve) => {
      const end = () => {
        hasExited = true;
        resolve();
      };
      child.once("exit", end).once("error", end);
    });
    child.unref();
    return {
      process: child,
      exited,
      hasExited: () => hasExited,
      readLogTail: () => readLogTail(logFile, logStart),
    };
  } finally {
    await log.close();
  }
}

async function readLogTail(logFile: string, start: number): Promise<string> {
  const log = await open(logFile, "r");
  try {
    const { size } = await log.stat();
    const from = Math.max(start, size - LOG_TAIL_BYTES);
    const { buffer, bytesRead } = await log.read(Buffer.alloc(size - from), 0, size - from, from);
    return buffer.toString("utf8", 0, bytesRead).trim().split("\n").slice(-12).join("\n");
  } finally {
    await log.close();
  }
}

/** @throws RedisUnavailableError with the end of the log when it exits or takes too long. */
export async function waitUntilListening(
  server: ServerProcess,
  socketPath: string,
  signal: AbortSignal,
): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!(await isListening(socketPath))) {
    if (server.hasExited() || Date.now() > deadline) throw await startFault(server);
    await sleep(5, undefined, { signal });
  }
}

/** The error of a server that did not come up, with the end of its log. */
export async function startFault(server: ServerProcess, cause?: unknown): Promise<RedisUnavailableError> {
  const what = server.hasExited()
    ? "exited at its start"
    : `did not listen within ${START_TIMEOUT_MS / 1000} s`;
  return new RedisUnavailableError(
    `The embedded Redis ${what}; the end of its log:\n${await server.readLogTail()}`,
    { cause },
  );
}

/** Whether a process accepts connections there. */
export async function isListening(socketPath: string): Promise<boolean> {
  const socket = connect(socketPath);
  try {
    await once(socket, "connect");
    return true;
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (["ENOENT", "ECONNREFUSED"].includes(code)) return false;
    throw error;
  } finally {
    socket.destroy();
  }
}

/** SIGTERM, at which Redis writes everything to disk; SIGKILL when that takes too long. */
export async function stopProcess(server: ServerProcess | undefined): Promise<void> {
  if (!server || server.hasExited()) return;
  server.process.kill("SIGTERM");
  const tooLate = setTimeout(() => server.process.kill("SIGKILL"), STOP_TIMEOUT_MS);
  await server.exited;
  clearTimeout(tooLate);
}
