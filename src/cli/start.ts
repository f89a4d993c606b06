/** `infermill start`: Redis, api, worker and coordinator together, each in a process of its own, looked after by this one. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DEFAULT_FILE, loadConfig } from "../config/load.ts";
import { checkLoaders } from "../loaders/openLoader.ts";
import { printBanner } from "./banner.ts";
import { hasDemoWeights } from "../models/sources.ts";
import { onStopSignal, UsageError } from "./exit.ts";
import { createLog, printWarning } from "./log.ts";
import { openRedis } from "./redis.ts";
import { version } from "../version.ts";
import { supervise } from "./supervisor.ts";

/** How long each process may take for what it is doing when it is asked to stop. */
const STOP_LIMIT_MS = 35_000;

/**
 * Of libuv's pool. A look-up of a name holds one of its threads, and look-ups get half of them: of the usual four, two
 * names whose servers are away would take all, for webhooks and pictures by URL alike.
 */
const THREADS = "64";

const DEMO_CONFIG = fileURLToPath(new URL("../../config/infermill.json", import.meta.url));

export interface StartOptions {
  config?: string;
  strict?: boolean;
  demo?: boolean;
}

export async function start(options: StartOptions): Promise<void> {
  const file = chooseConfig(options);
  const config = await loadConfig({ file, check: checkLoaders, onWarning: printWarning });
  const log = createLog("infermill", config.log_level);
  log.info(`version ${version} starts, with ${config.file}`);
  const redis = await openRedis(config, log, options);
  const script = fileURLToPath(
    new URL(import.meta.url.endsWith(".ts") ? "./main.ts" : "./main.js", import.meta.url),
  );
  // The pool's size is fixed before a process could set it for itself.
  const env = {
    UV_THREADPOOL_SIZE: THREADS,
    ...process.env,
    INFERMILL_CONFIG: config.file,
    REDIS_URL: redis.url,
  };
  const api = supervise("api", script, ["api"], { env, log });
  const worker = supervise("worker", script, ["worker", ...(options.strict ? ["--strict"] : [])], {
    env,
    log,
  });
  const coordinator = supervise("coordinator", script, ["coordinator"], { env, log });
  const stopAll = async () => {
    // First no new predictions, then those that run, then the deliveries of their ends, Redis last.
    await api.stop(STOP_LIMIT_MS);
    await worker.stop(STOP_LIMIT_MS);
    await coordinator.stop(STOP_LIMIT_MS);
    await redis.close();
  };
  onStopSignal(log, stopAll, async () => {
    await Promise.all([api, worker, coordinator].map((each) => each.stop(0)));
    await redis.close();
  });
  try {
    const [{ url, urls }] = await Promise.all([api.ready, worker.ready, coordinator.ready]);
    await printBanner([String(url), ...(urls as string[])], redis, {
      apiKey: config.api_keys[0],
      hasConsole: config.console.enabled,
    });
  } catch (error) {
    await stopAll();
    throw error;
  }
}

/**
 * The configuration to start with; undefined for the usual one.
 * @throws UsageError where there is none, with what to do
 */
function chooseConfig({ config, demo }: StartOptions): string | undefined {
  if (demo) {
    if (config !== undefined) throw new UsageError("--demo and --config exclude each other");
    if (!hasDemoWeights()) throw new UsageError(`--demo needs its weights: ${FETCH_DEMO}`);
    // The package's own folder may be read-only, and the next npm install replaces it.
    process.env["INFERMILL_DATA_DIR"] ||= resolve("data");
    return DEMO_CONFIG;
  }
  if (config !== undefined || process.env["INFERMILL_CONFIG"] || existsSync(DEFAULT_FILE)) return config;
  throw new UsageError(
    [
      `there is no ${DEFAULT_FILE} in this folder, so nothing to serve.`,
      "",
      "  npx infermill init                      writes one with a loader that runs",
      "  npx infermill init --model model.onnx   writes one for a model of yours",
      "  npx infermill start --config FILE       takes one from elsewhere",
      hasDemoWeights()
        ? "  npx infermill start --demo              serves the demo detector, whose weights are here"
        : `  npx infermill start --demo              serves a demo detector, after ${FETCH_DEMO}`,
    ].join("\n"),
  );
}

const FETCH_DEMO = "npm install @vladmandic/human";
