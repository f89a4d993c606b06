/**
 * Connections to Redis. Producers fail at once when Redis is away, so that the
 * api can say 503; workers and subscribers wait for it to come back.
 */
import { Redis, type RedisOptions } from "ioredis";
import { RedisRefusedError, RedisUnavailableError } from "../errors.ts";
import { isWrongLogin, redisFaultOf } from "./refusals.ts";

/** How long a producer's command may take before the queue counts as unreachable. */
const COMMAND_TIMEOUT_MS = 5000;
const MAX_RECONNECT_DELAY_MS = 1000;
/** A Redis on this machine or next to it answers in milliseconds. */
const SLOW_AFTER_MS = 1000;

const shared: RedisOptions = {
  lazyConnect: true,
  retryStrategy: (attempt) => Math.min(50 * attempt, MAX_RECONNECT_DELAY_MS),
};

/** `producer`: fails at once; `worker`: waits for Redis to come back. */
export type ConnectionRole = "producer" | "worker";

const roles: Record<ConnectionRole, RedisOptions> = {
  producer: {
    ...shared,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: COMMAND_TIMEOUT_MS,
  },
  worker: { ...shared, maxRetriesPerRequest: null },
};

/**
 * Opens a connection and waits until it is ready.
 * @param url `redis://`, `rediss://` or `unix:///path`
 * @param onWait is told once when Redis doesn't answer within a second
 * @throws RedisUnavailableError when it isn't ready within `timeoutMs`, RedisRefusedError where the login is wrong
 */
export async function connectRedis(
  url: string,
  role: ConnectionRole,
  { timeoutMs = 15_000, onWait }: { timeoutMs?: number; onWait?: (line: string) => void } = {},
): Promise<Redis> {
  const options = roles[role];
  const redis = url.startsWith("unix://")
    ? new Redis({ ...options, path: unixPath(url) })
    : new Redis(url, options);
  let lastError: Error | undefined;
  // ioredis reconnects by itself; without a listener it would print every failed try.
  let giveUp = (_reason: "refused") => {};
  const refused = new Promise<"refused">((resolve) => (giveUp = resolve));
  redis.on("error", (error: Error) => {
    lastError = error;
    // Waiting changes no password.
    if (isWrongLogin(error)) giveUp("refused");
  });
  const ready = new Promise<void>((resolve) => redis.once("ready", resolve));
  redis.connect().catch(() => {});
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => (timer = setTimeout(resolve, timeoutMs, "late")));
  const notice = setTimeout(
    () =>
      onWait?.(
        `Redis at ${withoutPassword(url)} doesn't answer yet${reasonOf(lastError)}; waiting for it for ${timeoutMs / 1000} s`,
      ),
    SLOW_AFTER_MS,
  );
  const first = await Promise.race([ready, late, refused]);
  clearTimeout(timer);
  clearTimeout(notice);
  if (first === "refused") {
    redis.disconnect();
    throw new RedisRefusedError(
      `Redis at ${withoutPassword(url)} refuses the connection${reasonOf(lastError)}; correct user name and password in REDIS_URL or redis_url`,
      { cause: lastError },
    );
  }
  if (first === "late") {
    redis.disconnect();
    throw new RedisUnavailableError(
      `Redis at ${withoutPassword(url)} did not answer within ${timeoutMs / 1000} s${reasonOf(lastError)}; start it or set REDIS_URL`,
      { cause: lastError },
    );
  }
  return redis;
}

function reasonOf(error: Error | undefined): string {
  return error ? ` (${error.message})` : "";
}

/**
 * Runs a producer's commands.
 * @param consequence what the client is told where Redis is away or too slow
 * @throws RedisUnavailableError then, and where Redis refuses them
 */
export async function reachRedis<T>(commands: () => Promise<T>, consequence = "try again"): Promise<T> {
  try {
    return await commands();
  } catch (error) {
    throw redisFaultOf(error, consequence) ?? error;
  }
}

/** Whether Redis was sent the commands but didn't answer: then it may have run them, or run them yet. */
export function mayHaveRun({ cause }: RedisUnavailableError): boolean {
  return (
    cause instanceof Error &&
    /Connection is closed|Command timed out|max retries per request|ECONN|EPIPE/.test(cause.message)
  );
}

function unixPath(url: string): string {
  return decodeURIComponent(new URL(url).pathname);
}

export function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, "//");
}
