/**
 * Connections to Redis, or to all nodes of a Redis Cluster. Producers fail at once when Redis is away, so that the
 * api can say 503; workers and subscribers wait for it to come back. Both look
 * for the master anew when theirs has become a replica.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import {
  connect as connectTls,
  createSecureContext,
  type ConnectionOptions,
  type SecureContext,
} from "node:tls";
import { Cluster, Redis, type ChainableCommander, type ClusterOptions, type RedisOptions } from "ioredis";
import { parseRedisUrl, type RedisTarget, type RedisTls } from "../config/redis.ts";
import { RedisRefusedError, RedisUnavailableError } from "../errors.ts";
import { fixCluster } from "./clusterFixes.ts";
import { connectionFaultOf, isReadOnly, isRedirected, noteReadOnly, redisFaultOf } from "./refusals.ts";

/** How long a producer's command may take before the queue counts as unreachable. */
const COMMAND_TIMEOUT_MS = 5000;
const MAX_RECONNECT_DELAY_MS = 1000;
/** A Redis on this machine or next to it answers in milliseconds. */
const SLOW_AFTER_MS = 1000;
/** How often one connection looks for another master while the one that it has refuses writes. */
const READONLY_RECONNECT_MS = 1000;

/** With Sentinels or a cluster: a server or Sentinel that doesn't answer within that is taken for dead. */
const DEAD_AFTER_MS = 3000;
const TLS_PROBE_MS = 1000;
/**
 * With Sentinels or a cluster, a connection on which an answer is overdue is cut, and the master looked for anew: a machine that
 * vanished or froze closes none. Longer than the commands with which BullMQ waits for jobs (10 s).
 */
const SILENCE_LIMIT_MS: Record<ConnectionRole, number> = {
  producer: COMMAND_TIMEOUT_MS + 1000,
  worker: 15_000,
};
/** How often a cluster is asked which node has which slots; MOVED and lost connections are reasons to ask at once. */
const SLOTS_INTERVAL_MS = 5000;
/** Before a command is sent again: to the node that MOVED names, and where a connection broke or keys are being moved. */
const MOVED_DELAY_MS = 10;
const REDIRECTION_DELAY_MS = 100;
/** How often a producer's command is sent again: for about a second, in which a failover may well be over. */
const PRODUCER_REDIRECTIONS = 10;
/** So that there is an answer to wait for where only messages come in. */
const PING_INTERVAL_MS = 5000;
/** Commands in a write, at most. */
const SENT_TOGETHER = 2;

const shared: RedisOptions = {
  lazyConnect: true,
  retryStrategy: (attempt) => Math.min(50 * attempt, MAX_RECONNECT_DELAY_MS),
};

/** A connection to one Redis, or those to the nodes of a cluster: there, keys of one command must lie in one slot. */
export type RedisClient = Redis | Cluster;

/** `producer`: fails at once; `worker`: waits for Redis to come back. */
export type ConnectionRole = "producer" | "worker";

/** Where a Redis is, and how TLS to it is spoken. */
export interface RedisAddress {
  /** As `redis_url` of the configuration. */
  url: string;
  /** `redis_tls` of the configuration. */
  tls: RedisTls | undefined;
}

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
 * @param onWait is told once when Redis doesn't answer within a second
 * @throws RedisUnavailableError when it isn't ready within `timeoutMs`, RedisRefusedError where the login is wrong or TLS
 * can't be agreed on
 */
export async function connectRedis(
  { url, tls }: RedisAddress,
  role: ConnectionRole,
  { timeoutMs = 15_000, onWait }: { timeoutMs?: number; onWait?: (line: string) => void } = {},
): Promise<RedisClient> {
  const target = parseRedisUrl(url);
  const redis = target.isCluster ? openCluster(target, role, tls) : openServer(target, role, tls);
  let lastError: Error | undefined;
  // ioredis reconnects by itself; without a listener it would print every failed try.
  let giveUp = (_reason: "refused") => {};
  const refused = new Promise<"refused">((resolve) => (giveUp = resolve));
  let hasProbed = false;
  const note = (thrown: Error & { command?: unknown; lastNodeError?: Error }) => {
    const seen: Error & { command?: unknown } = thrown.lastNodeError ?? thrown;
    // The arguments of the login: whatever prints the error would print the password.
    delete seen.command;
    lastError = seen;
    // Waiting changes no password and no certificate.
    if (connectionFaultOf(seen)) giveUp("refused");
    if (hasProbed || !target.isTls || !(target.sentinel || target.isCluster)) return;
    hasProbed = true;
    void tlsFaultOf(target, tls).then((fault) => fault && note(fault));
  };
  redis.on("error", note);
  if (target.isCluster) redis.on("node error", note);
  const reason = () => reasonOf(lastError, target);
  const ready = new Promise<void>((resolve) => redis.once("ready", resolve));
  redis.connect().catch(() => {});
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => (timer = setTimeout(resolve, timeoutMs, "late")));
  const notice = setTimeout(
    () =>
      onWait?.(
        `Redis at ${target.shown} doesn't answer yet${reason()}; waiting for it for ${timeoutMs / 1000} s`,
      ),
    SLOW_AFTER_MS,
  );
  const first = await Promise.race([ready, late, refused]);
  clearTimeout(timer);
  clearTimeout(notice);
  if (first === "refused") {
    redis.disconnect();
    throw new RedisRefusedError(
      `Redis at ${target.shown} refuses the connection${reason()}; ${connectionFaultOf(lastError!)}`,
      { cause: lastError },
    );
  }
  if (first === "late") {
    redis.disconnect();
    throw new RedisUnavailableError(
      `Redis at ${target.shown} did not answer within ${timeoutMs / 1000} s${reason()}; start it or set REDIS_URL`,
      { cause: lastError },
    );
  }
  return redis;
}

/** The server behind a connection, or the masters of its cluster, as far as they are known. */
export function mastersOf(redis: RedisClient): Redis[] {
  return "nodes" in redis ? redis.nodes("master") : [redis];
}

function openServer(target: RedisTarget, role: ConnectionRole, tls: RedisTls | undefined): Redis {
  const redis = new Redis({
    ...roles[role],
    ...optionsOf(target, role, tls),
    reconnectOnError: createReconnectOnReadOnly(),
  });
  gatherWrites(redis);
  if (target.sentinel) pingRegularly(redis);
  return redis;
}

/** Nodes are found by CLUSTER SLOTS; what one of them no longer has is asked of the one that has it. */
function openCluster(target: RedisTarget, role: ConnectionRole, tls: RedisTls | undefined): Cluster {
  const { hosts, username, password, family, isTls } = target;
  const { commandTimeout, maxRetriesPerRequest } = roles[role];
  const options: ClusterOptions = {
    lazyConnect: true,
    enableOfflineQueue: role === "worker",
    clusterRetryStrategy: shared.retryStrategy,
    maxRedirections: role === "worker" ? Infinity : PRODUCER_REDIRECTIONS,
    retryDelayOnMoved: MOVED_DELAY_MS,
    retryDelayOnFailover: REDIRECTION_DELAY_MS,
    retryDelayOnTryAgain: REDIRECTION_DELAY_MS,
    // A refusal like others: said, and waited for, by who sent the command.
    retryDelayOnClusterDown: 0,
    slotsRefreshInterval: SLOTS_INTERVAL_MS,
    slotsRefreshTimeout: DEAD_AFTER_MS,
    // Resolved at each new connection, as everywhere; a certificate is compared with the name.
    dnsLookup: (host, done) => done(null, host),
    redisOptions: {
      username,
      password,
      family,
      maxRetriesPerRequest,
      ...(commandTimeout !== undefined && { commandTimeout }),
      connectTimeout: DEAD_AFTER_MS,
      socketTimeout: SILENCE_LIMIT_MS[role],
      ...(isTls && { tls: tlsOptions(undefined, tls) }),
    },
  };
  return fixCluster(new Cluster([...hosts], options).on("+node", gatherWrites));
}

function optionsOf(target: RedisTarget, role: ConnectionRole, tls: RedisTls | undefined): RedisOptions {
  const { hosts, socketPath, sentinel, username, password, db, family } = target;
  const [first] = hosts;
  const options: RedisOptions = { username, password, db, family };
  if (socketPath !== undefined) return { ...options, path: socketPath };
  const secure = target.isTls ? tlsOptions(sentinel ? undefined : first?.host, tls) : undefined;
  if (!sentinel) return { ...options, ...first, ...(secure && { tls: secure }) };
  return {
    ...options,
    sentinels: [...hosts],
    name: sentinel.master,
    ...(sentinel.username !== undefined && { sentinelUsername: sentinel.username }),
    ...(sentinel.password !== undefined && { sentinelPassword: sentinel.password }),
    ...(secure && { tls: secure, sentinelTLS: secure, enableTLSForSentinelMode: true }),
    sentinelCommandTimeout: DEAD_AFTER_MS,
    connectTimeout: DEAD_AFTER_MS,
    socketTimeout: SILENCE_LIMIT_MS[role],
  };
}

/** Reads the files for each connection anew, as certificates are replaced while infermill runs. */
function tlsOptions(
  host: string | undefined,
  { ca, cert, key, servername }: RedisTls = {},
): ConnectionOptions {
  const name = servername ?? (host !== undefined && isIP(host) === 0 ? host : undefined);
  let usable: SecureContext | undefined;
  return {
    ...(name !== undefined && { servername: name }),
    get secureContext() {
      try {
        const read = (path: string | undefined) => (path === undefined ? undefined : readFileSync(path));
        usable = createSecureContext({ ca: read(ca), cert: read(cert), key: read(key) });
      } catch (error) {
        // In the middle of being replaced: those of the connection before. A fault here would end the client for good.
        if (usable === undefined) throw error;
      }
      return usable;
    },
  };
}

/** Why the first Sentinel or node and this client don't agree on TLS: ioredis keeps that to itself. */
async function tlsFaultOf({ hosts: [first] }: RedisTarget, tls?: RedisTls): Promise<Error | undefined> {
  const socket = connectTls({ ...first, ...tlsOptions(undefined, tls) });
  try {
    // That a certificate is missing is said by the server only after the client counts as connected.
    await Promise.race([once(socket, "close"), sleep(TLS_PROBE_MS)]);
    return undefined;
  } catch (error) {
    return error as Error;
  } finally {
    socket.destroy();
  }
}

/**
 * A master that became a replica is left: by Sentinel, or by the name that its operator gives to the new one. Not at each
 * command: while there is no other, answers with the reason are better than none.
 */
function createReconnectOnReadOnly(): (error: Error) => boolean {
  let triedAt = 0;
  return (error) => {
    if (!isReadOnly(error)) return false;
    noteReadOnly();
    if (Date.now() - triedAt < READONLY_RECONNECT_MS) return false;
    triedAt = Date.now();
    return true;
  };
}

/**
 * Sends the commands of one turn of the event loop a few at a time. Under load, the system call for each of them would be
 * the largest part of what a worker costs; all of them together would leave Redis and the workers idle until an api has
 * read each of its connections, and the api idle until they have answered all.
 */
function gatherWrites(redis: Redis): void {
  redis.on("connect", () => {
    const { stream } = redis;
    const write = stream.write.bind(stream) as (...chunk: unknown[]) => boolean;
    let gathered = 0;
    stream.write = (...chunk: unknown[]) => {
      if (stream.writableCorked === 0) {
        gathered = 0;
        stream.cork();
        setImmediate(() => stream.uncork());
      }
      const hasRoom = write(...chunk);
      if (++gathered % SENT_TOGETHER === 0) {
        stream.uncork();
        stream.cork();
      }
      return hasRoom;
    };
  });
}

function pingRegularly(redis: Redis): void {
  const timer = setInterval(() => {
    if (redis.status === "ready") redis.ping().catch(() => {});
  }, PING_INTERVAL_MS).unref();
  redis.once("end", () => clearInterval(timer));
}

function reasonOf(error: Error | undefined, { sentinel, isCluster, isTls }: RedisTarget): string {
  // To ioredis, Sentinels that answer so are unreachable.
  if (sentinel && error?.message.includes("No such master"))
    return ` (its Sentinels watch no master that is called ${sentinel.master})`;
  // Nodes that don't answer are errors; the answers of these say that some slots have no node.
  if (isCluster && !error) return " (its nodes answer that the cluster is down; CLUSTER INFO tells more)";
  // A Redis waits for the end of the line that it takes the client's greeting for.
  if (isTls && (!error || /ETIMEDOUT|^timeout$/.test(error.message)))
    return " (no answer; it may not speak TLS on this port, use redis:// or its tls-port then)";
  return error ? ` (${error.message})` : "";
}

/**
 * Sends a pipeline or transaction.
 * @returns what Redis replied to each of its commands
 * @throws the first error among the replies
 */
export async function execAll(commands: Pick<ChainableCommander, "exec">): Promise<unknown[]> {
  const replies = (await commands.exec()) ?? [];
  return replies.map(([error, reply]) => {
    if (error) throw error;
    return reply;
  });
}

/**
 * Sends a transaction of scripts, and once more where a server doesn't know them all: ioredis takes a script for known as
 * soon as it was sent on a connection, though a transaction that is refused as a whole (OOM, NOREPLICAS, TRYAGAIN) runs
 * none of it. To run what ran before again must be harmless.
 */
export async function execScripts(
  redis: RedisClient,
  build: () => Promise<ChainableCommander>,
): Promise<unknown[]> {
  try {
    return await execAll(await build());
  } catch (error) {
    if (!(error instanceof Error && error.message.startsWith("NOSCRIPT"))) throw error;
    await loadScripts(redis);
    return execAll(await build());
  }
}

const loading = new WeakMap<RedisClient, Promise<void>>();

/** Sends all scripts of a connection to its server, or to the masters of its cluster; once, however many ask for it. */
function loadScripts(redis: RedisClient): Promise<void> {
  const underWay = loading.get(redis);
  if (underWay) return underWay;
  const scripts = Object.values<{ lua: string }>(redis.scriptsSet);
  const loads = mastersOf(redis).map((master) =>
    Promise.all(scripts.map(({ lua }) => master.script("LOAD", lua))),
  );
  // One that is away has none of the keys, or says so when it is asked for them.
  const done = Promise.allSettled(loads)
    .then(() => {})
    .finally(() => loading.delete(redis));
  loading.set(redis, done);
  return done;
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
    (isRedirected(cause) ||
      /Connection is closed|connection close$|Command timed out|max retries per request|ECONN|EPIPE/.test(
        cause.message,
      ))
  );
}

/** A `redis_url` as it may be logged. */
export function withoutPassword(url: string): string {
  return parseRedisUrl(url).shown;
}
