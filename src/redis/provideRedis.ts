/**
 * Where Redis comes from: the one that the user named, or else an embedded
 * server for the data folder, run from whatever Redis this machine has or can get.
 */
import type { RedisTls } from "../config/redis.ts";
import { connectRedis, withoutPassword, type RedisAddress, type RedisClient } from "./connections.ts";
import { checkRedis } from "./check.ts";
import { startEmbeddedRedis } from "./embeddedServer.ts";
import { findRedisProgram } from "./findRedisProgram.ts";
import type { RedisLog, RedisServer } from "./redisServer.ts";

export type { RedisServer } from "./redisServer.ts";

export interface ProvideRedisOptions {
  /** Redis that the user named. Default: REDIS_URL, else an embedded server. */
  redisUrl?: string | undefined;
  /** How TLS to it is spoken. */
  redisTls?: RedisTls | undefined;
  /** Folder whose subfolder `redis` holds the embedded server's data. */
  dataDir: string;
  /** Is told what takes longer, such as a download. */
  onProgress?: (line: string) => void;
  /** Is told when the server is away, and when it is back. */
  log?: RedisLog;
  /** Default: `process.env`. */
  env?: NodeJS.ProcessEnv;
}

/**
 * Finds or starts a Redis and waits until it answers.
 * @throws RedisUnavailableError that says what was tried and what to do.
 */
export async function provideRedis(options: ProvideRedisOptions): Promise<RedisServer> {
  const { dataDir, onProgress, log, env = process.env } = options;
  const namedUrl = options.redisUrl ?? (env.REDIS_URL || undefined);
  if (namedUrl !== undefined) {
    const source = namedUrl === env.REDIS_URL ? "REDIS_URL" : "redis_url in the configuration";
    return await useNamedRedis({ url: namedUrl, tls: options.redisTls }, source, log);
  }
  return await startEmbeddedRedis({
    dataDir,
    findProgram: () => findRedisProgram({ env, ...(onProgress && { onProgress }) }),
    ...(log && { log }),
  });
}

async function useNamedRedis(address: RedisAddress, source: string, log?: RedisLog): Promise<RedisServer> {
  const { url } = address;
  const connection = await connectRedis(address, "worker", { onWait: (line) => log?.warn(line) });
  try {
    const { version, warnings } = await checkRedis(connection);
    const place = `Redis at ${withoutPassword(url)}`;
    if (log) logAbsence(connection, place, log);
    return { url, source, version, warnings, close: async () => connection.disconnect() };
  } catch (error) {
    connection.disconnect();
    throw error;
  }
}

/** Everything waits for Redis to come back, each part by itself; this is the one place that says so. */
function logAbsence(connection: RedisClient, place: string, log: RedisLog): void {
  let isAway = false;
  connection.on("close", () => {
    // ioredis says "end" for a connection that was closed on purpose.
    if (isAway || connection.status === "end") return;
    isAway = true;
    log.warn(`${place} can't be reached; waiting for it to come back`);
  });
  connection.on("ready", () => {
    if (isAway) log.info(`${place} is reached again`);
    isAway = false;
  });
}
