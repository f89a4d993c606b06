/** Keeps one child process of `infermill start` alive: starts it, starts it again when it dies, stops it in order. */
import { createBackoff } from "../core/backoff.ts";
import { fork, type ChildProcess } from "node:child_process";
import type { Logger } from "pino";
import { InfermillError } from "../errors.ts";

const RESTARTS = { firstMs: 200, maxMs: 10_000, steadyMs: 30_000 };
const SUPERVISED = "INFERMILL_SUPERVISED";

/** Whether this process was started by `supervise`; others open a channel to their children, too, such as pm2. */
export const isSupervised = process.env[SUPERVISED] !== undefined && process.send !== undefined;
// Not for the children that this process has.
delete process.env[SUPERVISED];

/** Of log lines about an orderly start and end: below `infermill start` it says so once for all. */
export const ROUTINE_LEVEL = isSupervised ? "debug" : "info";

export interface SupervisedProcess {
  /** What the process told when it was ready for the first time; rejects when it ended before. */
  ready: Promise<Record<string, unknown>>;
  /** SIGTERM, and SIGKILL after `limitMs`. */
  stop(limitMs: number): Promise<void>;
}

export function supervise(
  name: string,
  script: string,
  args: readonly string[],
  options: { env: NodeJS.ProcessEnv; log: Logger },
): SupervisedProcess {
  let child: ChildProcess;
  let restartTimer: NodeJS.Timeout | undefined;
  const backoff = createBackoff(RESTARTS);
  let isStopping = false;
  let wasReady = false;
  let resolveReady: (details: Record<string, unknown>) => void;
  let rejectReady: (error: Error) => void;
  const ready = new Promise<Record<string, unknown>>((resolve, reject) => {
    resolveReady = resolve;
    rejectReady = reject;
  });
  ready.catch(() => {});

  const start = () => {
    const startedAt = Date.now();
    const started = fork(script, args, { env: { ...options.env, [SUPERVISED]: "1" } });
    child = started;
    started.on("message", (message: { type?: string }) => {
      if (message.type !== "ready") return;
      wasReady = true;
      resolveReady({ ...message });
    });
    const exited = (how: string) => {
      if (isStopping) return;
      if (!wasReady) return rejectReady(new InfermillError(`the ${name} ${how} before it was ready`));
      const delay = backoff.next(Date.now() - startedAt);
      options.log.warn(`the ${name} ${how}; starting it again in ${delay} ms`);
      restartTimer = setTimeout(start, delay);
    };
    started.once("exit", (code, signal) =>
      exited(signal ? `was killed by ${signal}` : `exited with code ${code}`),
    );
    started.on("error", (error) => {
      // What never started tells no exit.
      if (started.pid === undefined) exited(`could not be started (${error.message})`);
      else options.log.error({ err: error }, `${name} process failed`);
    });
  };
  start();

  return {
    ready,
    async stop(limitMs) {
      isStopping = true;
      clearTimeout(restartTimer);
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const limit = setTimeout(() => child.kill("SIGKILL"), limitMs);
      await gone;
      clearTimeout(limit);
    },
  };
}
