/**
 * One model of a worker: its files, its engine pool, its two consumers. A model that can't be loaded leaves the others
 * alone; it is loaded again when one of its files changes, or on request.
 */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { DEFAULT_MAX_BATCH_SIZE } from "../config/schema.ts";
import { toInfermillError, LoaderError, type InfermillError } from "../errors.ts";
import type { EngineSpec } from "../engines/protocol.ts";
import type { WorkerPoint } from "../queue/statistics.ts";
import type { ModelReport } from "../queue/workerReports.ts";
import { startConsumer, type Consumer, type ConsumerOptions } from "./consumer.ts";
import { EnginePool } from "./enginePool.ts";
import { createStoredInputReader } from "./storedInputs.ts";

export interface ServedModelOptions extends Omit<ConsumerOptions, "pool" | "source"> {
  /** One for each engine, still without the model's files. */
  specs: readonly EngineSpec[];
  /** Fetches and converts the model's files; answers their absolute paths. */
  resolvePaths: () => Promise<string[]>;
}

export class ServedModel {
  readonly name: string;
  readonly #options: ServedModelOptions;
  #pool: EnginePool | undefined;
  #consumers: Consumer[] = [];
  #files: string[] = [];
  /** Of the last load, where it failed; with it the pool is closed, and only its report is left. */
  #failure: { error: InfermillError; report: ModelReport; stamp: string } | undefined;
  #loading: Promise<void> | undefined;
  #isClosing = false;

  constructor(options: ServedModelOptions) {
    this.name = options.modelName;
    this.#options = options;
  }

  /** Why the model isn't served; undefined while it loads, and once it is loaded. */
  get failure(): InfermillError | undefined {
    return this.#failure?.error;
  }

  /** Loads the model and begins to consume its queues; once, however many ask at a time. It never throws: see `failure`. */
  load(): Promise<void> {
    this.#loading ??= this.#tryToLoad().finally(() => (this.#loading = undefined));
    return this.#loading;
  }

  /** Whether one of the files of a model that failed is another than the one that could not be loaded. */
  async hasChanged(): Promise<boolean> {
    if (!this.#failure || this.#loading) return false;
    return this.#failure.stamp !== (await this.#stamp());
  }

  report(): ModelReport {
    return this.#failure?.report ?? this.#pool?.report() ?? emptyReport(this.#options.specs);
  }

  /** What became of its predictions in the intervals that are over, once. */
  takeStatistics(): WorkerPoint[] {
    return this.#pool?.intervals.takeClosed() ?? [];
  }

  /** Fetches as many jobs as the pool has use for. */
  adjust(): void {
    for (const consumer of this.#consumers) consumer.adjust();
  }

  /** Stops fetching, gives back what was not begun, waits up to `limitMs` for what runs. */
  async close(limitMs: number): Promise<void> {
    this.#isClosing = true;
    const closed = this.#consumers.map((consumer) => consumer.close());
    await this.#pool?.close(limitMs);
    await Promise.all(closed);
  }

  async #tryToLoad(): Promise<void> {
    if (this.#isClosing || (this.#pool && !this.#failure)) return;
    const { modelName, model, specs, resolvePaths, log, ...shared } = this.#options;
    // Of the files as they are before they are read: what changes meanwhile is another try.
    let stamp = await this.#stamp();
    try {
      const modelPaths = await resolvePaths();
      this.#files = modelPaths;
      stamp = await this.#stamp();
      this.#pool = new EnginePool({
        modelName,
        specs: specs.map((spec) => ({ ...spec, modelPaths })),
        maxBatchSize: model.max_batch_size ?? DEFAULT_MAX_BATCH_SIZE,
        maxQueueDelayMs: model.max_queue_delay_ms,
        readStored: createStoredInputReader(shared.redis),
        log,
      });
      this.#failure = undefined;
      await this.#pool.loaded;
    } catch (thrown) {
      await this.#fail(thrown, stamp);
      return;
    }
    if (this.#isClosing) return;
    const pool = this.#pool;
    this.#consumers = (["queue", "bulk"] as const).map((source) =>
      startConsumer({ ...shared, modelName, model, log, pool, source }),
    );
  }

  async #fail(thrown: unknown, stamp: string): Promise<void> {
    const error = toInfermillError(thrown, (detail, options) => new LoaderError(detail, options));
    const report = this.#pool?.report() ?? emptyReport(this.#options.specs);
    const engines = report.engines.map((engine) => ({
      ...engine,
      state: "failed" as const,
      pid: null,
      error: engine.error ?? error.message,
    }));
    this.#failure = { error, report: { ...report, engines }, stamp };
    await this.#pool?.close(0);
    this.#pool = undefined;
  }

  /** Changes with every file that the model is made of. */
  async #stamp(): Promise<string> {
    const { model_loader_file: loaderFile } = this.#options.model;
    const baseDir = this.#options.specs[0]?.baseDir ?? "";
    const files = [...this.#files, ...(loaderFile === undefined ? [] : [resolve(baseDir, loaderFile)])];
    const stats = await Promise.all(files.map((file) => stat(file).catch(() => undefined)));
    return stats.map((found) => (found ? `${found.mtimeMs}:${found.size}` : "none")).join(" ");
  }
}

function emptyReport(specs: readonly EngineSpec[]): ModelReport {
  return {
    engines: specs.map(({ modelName, device }, index) => ({
      id: `${modelName}-${index}`,
      device,
      state: "loading",
      pid: null,
      restarts: 0,
      error: null,
    })),
    description: null,
    batch_limit: null,
    capacity: 0,
    held: 0,
    stuck_ms: 0,
    totals: {
      batches: 0,
      predictions: 0,
      succeeded: 0,
      failed: 0,
      response_bytes: 0,
      timings: { queue_ms: 0, read_ms: 0, preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 },
    },
  };
}
