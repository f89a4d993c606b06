/** The Redis of a command: the one that the configuration names, or the embedded one of its data folder. */
import type { Logger } from "pino";
import type { Config } from "../config/schema.ts";
import { provideRedis, type RedisServer } from "../redis/provideRedis.ts";
import { isSupervised } from "./supervisor.ts";

export async function openRedis(config: Config, log: Logger): Promise<RedisServer> {
  const redis = await provideRedis({
    redisUrl: config.redis_url,
    dataDir: config.data_dir,
    onProgress: (line) => log.info(line),
    // Below `infermill start` the supervisor says it once for all.
    ...(!isSupervised && { log }),
  });
  if (!isSupervised) for (const warning of redis.warnings) log.warn(warning);
  return redis;
}
