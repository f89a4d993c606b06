/**
 * Where Redis comes from: the one that the user named, or else an embedded
 * server for the data folder, run from whatever Redis this machine has or can get.
 */
import { connectRedis } from "./connections.ts";
import { checkRedis } from "./check.ts";
import { startEmbeddedRedis, type RedisLog } from "./embeddedServer.ts";
import { findRedisProgram } from "./findRedisProgram.ts";

/** A Redis to use until `close()`. */
export interface RedisServer {
  /** `redis://…`, `rediss://…` or `unix:///path`, percent-encoded. */
  readonly url: string;
  /** For people: "REDIS_URL", "redis-server 7.0.15 on the PATH (/usr/bin/redis-server)". */
  readonly source: string;
  /** "7.0.15", or "unknown" where the server hides it. */
  readonly version: string;
  /** What a named server's settings mean for durability, a sentence each; empty where all is well. */
  readonly warnings: readonly string[];
  /** Stops an embedded server that no other infermill uses; leaves every other one alone. */
  close(): Promise<void>;
}

export interface ProvideRedisOptions {
  /** Redis that the user named. Default: REDIS_URL, else an embedded server. */
  redisUrl?: string | undefined;
  /** Folder whose subfolder `redis` holds the embedded server's data. */
  dataDir: string;
  /** Is told what takes longer, such as a download. */
  onProgress?: (line: string) => void;
  /** Is told when the embedded server died and runs again. */
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
    return await useNamedRedis(namedUrl, source);
  }
  return await startEmbeddedRedis({
    dataDir,
    findProgram: () => findRedisProgram({ env, ...(onProgress && { onProgress }) }),
    ...(log && { log }),
  });
}

async function useNamedRedis(url: string, source: string): Promise<RedisServer> {
  const connection = await connectRedis(url, "worker");
  try {
    const { version, warnings } = await checkRedis(connection);
    return { url, source, version, warnings, close: async () => {} };
  } finally {
    connection.disconnect();
  }
}
