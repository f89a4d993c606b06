/** `infermill api`: the HTTP api in this process. */
import { startApi, type RunningApi } from "../api/server.ts";
import { loadConfig } from "../config/load.ts";
import { isLoopback } from "../core/loopback.ts";
import { protocols } from "../protocols/protocols.ts";
import { startTracing } from "../tracing/tracing.ts";
import { announceReady, onStopSignal } from "./exit.ts";
import { createLog, printWarning } from "./log.ts";
import { openRedis } from "./redis.ts";
import { ROUTINE_LEVEL } from "./supervisor.ts";

const STOP_LIMIT_MS = 10_000;

export async function runApi(options: { config?: string; strict?: boolean }): Promise<void> {
  const config = await loadConfig({ file: options.config, onWarning: printWarning });
  const log = createLog("api", config.log_level);
  const tracing = await startTracing("api", log);
  const redis = await openRedis(config, log, options);
  let api: RunningApi | undefined;
  const stop = async () => {
    await api?.close(STOP_LIMIT_MS);
    await redis.close();
    await tracing.close();
  };
  onStopSignal(log, stop, () => redis.close());
  try {
    api = await startApi({ config, redisUrl: redis.url, log, protocols });
  } catch (error) {
    await stop();
    throw error;
  }
  if (config.api_keys.length === 0 && !isLoopback(config.host))
    log.warn(`no api_keys are configured: whoever reaches ${api.url} may do everything`);
  log[ROUTINE_LEVEL](`listening on ${[api.url, ...api.urls].join(", ")}`);
  announceReady({ url: api.url, urls: api.urls });
}
