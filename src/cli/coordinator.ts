/** `infermill coordinator`: the work that belongs to no single model, in this process: bulk runs and webhook deliveries. */
import { startBulkCoordinator } from "../bulk/coordinator.ts";
import { loadConfig } from "../config/load.ts";
import { startWebhookDelivery } from "../webhooks/delivery.ts";
import { startTracing } from "../tracing/tracing.ts";
import { announceReady, onStopSignal } from "./exit.ts";
import { keepHeapSmall } from "./heap.ts";
import { createLog } from "./log.ts";
import { openRedis } from "./redis.ts";
import { ROUTINE_LEVEL } from "./supervisor.ts";
import { watchEventLoop } from "./watchdog.ts";

const STOP_LIMIT_MS = 20_000;
/** Longer than any work of the event loop takes; the locks of its runs are long over then. */
const BLOCKED_LIMIT_MS = 30_000;

/** What the coordinator runs; `close` gives work in progress up to `limitMs`. */
interface RunningService {
  close(limitMs: number): Promise<void>;
}

export async function runCoordinator(options: { config?: string; strict?: boolean }): Promise<void> {
  keepHeapSmall();
  const config = await loadConfig({ file: options.config });
  const log = createLog("coordinator", config.log_level);
  const tracing = await startTracing("coordinator", log);
  const redis = await openRedis(config, log, options);
  const services: RunningService[] = [];
  const stop = async () => {
    await Promise.all(services.map((service) => service.close(STOP_LIMIT_MS)));
    await redis.close();
    await tracing.close();
  };
  onStopSignal(log, stop, () => redis.close());
  try {
    services.push(await startWebhookDelivery({ config, redisUrl: redis.url, log }));
    services.push(await startBulkCoordinator({ config, redisUrl: redis.url, log }));
  } catch (error) {
    await stop();
    throw error;
  }
  watchEventLoop("coordinator", BLOCKED_LIMIT_MS);
  log[ROUTINE_LEVEL]("working on bulk runs, delivering webhooks");
  announceReady();
}
