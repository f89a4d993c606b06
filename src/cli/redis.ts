/** The Redis of a command: the one that the configuration names, or the embedded one of its data folder. */
import type { Logger } from "pino";
import { InfermillError } from "../errors.ts";
import type { Config } from "../config/schema.ts";
import { provideRedis, type RedisServer } from "../redis/provideRedis.ts";
import { isSupervised } from "./supervisor.ts";

/** The settings of Redis don't keep what was accepted, and `--strict` was asked for. */
class UnsafeRedisError extends InfermillError {
  override readonly code = "unsafe_redis";
  override readonly title = "Redis may lose what was accepted";
}

/**
 * @param options.strict whether a Redis that may lose what was accepted is refused
 * @throws RedisUnavailableError, UnsafeRedisError
 */
export async function openRedis(
  config: Config,
  log: Logger,
  { strict = false }: { strict?: boolean | undefined } = {},
): Promise<RedisServer> {
  const redis = await provideRedis({
    redisUrl: config.redis_url,
    redisTls: config.redis_tls,
    dataDir: config.data_dir,
    onProgress: (line) => log.info(line),
    // Below `infermill start` the supervisor says it once for all.
    ...(!isSupervised && { log }),
  });
  if (strict && redis.warnings.length > 0) {
    await redis.close();
    throw new UnsafeRedisError(`${redis.warnings.join("\n  ")}\n  (--strict: warnings end the start)`);
  }
  if (!isSupervised) for (const warning of redis.warnings) log.warn(warning);
  return redis;
}
