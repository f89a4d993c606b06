/** `infermill api`: the HTTP api in this process. */
import { startApi } from "../api/server.ts";
import { loadConfig } from "../config/load.ts";
import { provideRedis } from "../redis/provideRedis.ts";
import { announceReady, onStopSignal } from "./exit.ts";
import { createLog } from "./log.ts";

const STOP_LIMIT_MS = 10_000;

export async function runApi(options: { config?: string }): Promise<void> {
  const config = await loadConfig({ file: options.config });
  const log = createLog("api", config.log_level);
  const redis = await provideRedis({
    redisUrl: config.redis_url,
    dataDir: config.data_dir,
    onProgress: (line) => log.info(line),
    log,
  });
  const api = await startApi({ config, redisUrl: redis.url, log });
  onStopSignal(async () => {
    await api.close(STOP_LIMIT_MS);
    await redis.close();
  });
  log.info(`listening on ${api.url}`);
  announceReady({ url: api.url });
}
