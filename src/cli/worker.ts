/** `infermill worker`: a worker in this process. */
import { loadConfig } from "../config/load.ts";
import { didYouMean } from "../closest.ts";
import { checkLoaders, resolveModelPaths } from "../loaders/openLoader.ts";
import { startWorker, type RunningWorker } from "../worker/worker.ts";
import { startTracing } from "../tracing/tracing.ts";
import { announceReady, onStopSignal, UsageError } from "./exit.ts";
import { keepHeapSmall } from "./heap.ts";
import { createLog, printWarning } from "./log.ts";
import { openRedis } from "./redis.ts";
import { ROUTINE_LEVEL } from "./supervisor.ts";

const STOP_LIMIT_MS = 30_000;

export async function runWorker(options: {
  config?: string;
  models?: string;
  strict?: boolean;
}): Promise<void> {
  keepHeapSmall();
  const config = await loadConfig({ file: options.config, check: checkLoaders, onWarning: printWarning });
  const log = createLog("worker", config.log_level);
  const known = Object.keys(config.models);
  const models = options.models?.split(",").map((name) => name.trim()) ?? known;
  const unknown = models.filter((name) => !known.includes(name));
  if (unknown.length > 0)
    throw new UsageError(
      `--models names ${unknown.join(", ")}; configured are: ${known.join(", ")}${didYouMean(unknown[0]!, known)}`,
    );

  const tracing = await startTracing("worker", log);
  const redis = await openRedis(config, log, options);
  let worker: RunningWorker | undefined;
  const stop = async () => {
    await worker?.close(STOP_LIMIT_MS);
    await redis.close();
    await tracing.close();
  };
  onStopSignal(log, stop, () => redis.close());
  try {
    worker = await startWorker({
      config,
      redisUrl: redis.url,
      models,
      resolvePaths: (name) => resolveModelPaths(config, name, (line) => log.info(line)),
      isStrict: options.strict ?? false,
      log,
    });
  } catch (error) {
    await stop();
    throw error;
  }
  const { failed } = worker;
  log[ROUTINE_LEVEL](`serving ${models.filter((name) => !failed.includes(name)).join(", ")}`);
  announceReady();
}
