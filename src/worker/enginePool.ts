/**
 * The engines of one model and the predictions that wait for them. A lost engine
 * is replaced, and what it held runs again, each prediction alone on an empty
 * engine, so that the one at fault fails by itself and its neighbours succeed.
 */
import { createBackoff, type Backoff } from "../core/backoff.ts";
import type { Logger } from "pino";
import {
  EngineLostError,
  InfermillError,
  LoaderError,
  PredictionExpiredError,
  PredictionTimeoutError,
} from "../errors.ts";
import type { LoaderDescription } from "../core/description.ts";
import type { Output, RequestDictionary, ResponseDictionary } from "../core/request.ts";
import { PRIORITIES, type Timings } from "../core/prediction.ts";
import { IntervalCounter } from "../queue/statistics.ts";
import type { ModelReport } from "../queue/workerReports.ts";
import { isTracing, type Span } from "../tracing/tracing.ts";
import { Batcher } from "./batcher.ts";
import { recordBatches, type TracedMember } from "./batchSpans.ts";
import type { ReachableInput, ReadStoredInputs } from "./storedInputs.ts";
import { EngineProcess } from "./engineProcess.ts";
import { fromWire, type EngineSpec, type MemberOutcome } from "../engines/protocol.ts";

const RESTARTS = { firstMs: 200, maxMs: 30_000, steadyMs: 60_000 };

/** Engines that die so often while they load a model for the first time are given up. */
const MAX_LOAD_CRASHES = 3;

/**
 * For so long after a prediction of more than low priority, predictions of low priority leave the engines' second place
 * free: the next one like it then waits for one batch at most. It costs them the overlap of decoding and running.
 */
const YIELD_MS = 2000;

/** A prediction as the pool runs it. */
export interface EngineTask {
  id: string;
  request: RequestDictionary;
  inputs: readonly ReachableInput[];
  /** The lower the sooner, from 1. */
  priority: number;
  /** Longest run in milliseconds, at most the model's. */
  timeoutMs: number;
  /** Unix time in ms after which it must not start any more. */
  expiresAt?: number | undefined;
  /** Aborted where it is wanted no more; what waits is given back by `withdraw`. */
  signal?: AbortSignal | undefined;
  /** Its span, where it has one. */
  span?: Span | undefined;
}

export interface EngineResult {
  response: ResponseDictionary;
  outputs: readonly Output[];
  timings: MemberOutcome["timings"];
  batchSize: number;
  engine: string;
  /** When it was handed to the engine, Unix time in ms. */
  startedAt: number;
}

/** Thrown for a prediction that no engine had begun when the pool closed, or when it was withdrawn. */
export class NotStartedError extends InfermillError {
  override readonly code = "not_started";
}

interface Held {
  task: EngineTask;
  key: number;
  isAlone: boolean;
  startedAt: number;
  engine: string;
  resolve(result: EngineResult): void;
  reject(error: InfermillError): void;
}

export interface EnginePoolOptions {
  modelName: string;
  specs: EngineSpec[];
  maxBatchSize: number;
  maxQueueDelayMs: number;
  readStored: ReadStoredInputs;
  log: Logger;
}

export class EnginePool {
  readonly #options: EnginePoolOptions;
  readonly #engines: EngineProcess[] = [];
  readonly #batcher: Batcher<Held>;
  /** Held when an engine was lost: each of them runs alone, on an engine that holds nothing else. */
  readonly #suspects: Held[] = [];
  readonly #held = new Map<number, Held>();
  readonly #backoffs: Backoff[];
  readonly #totals = { batches: 0, predictions: 0, succeeded: 0, failed: 0, response_bytes: 0 };
  readonly #timings: Timings = { queue_ms: 0, read_ms: 0, preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 };
  #description: LoaderDescription | null = null;
  #batchLimit: number | null = null;
  #nextKey = 0;
  #interactiveAt = 0;
  #progressAt = Date.now();
  #dueTimer: NodeJS.Timeout | undefined;
  readonly #restartTimers = new Set<NodeJS.Timeout>();
  #isClosing = false;
  #isDispatching = false;
  #loaded!: () => void;
  #loadFailed!: (error: InfermillError) => void;
  /** Resolves when every engine is ready for the first time, rejects when one can't load its model. */
  readonly loaded: Promise<void>;

  constructor(options: EnginePoolOptions) {
    this.#options = options;
    this.#batcher = new Batcher(options);
    this.#backoffs = options.specs.map(() => createBackoff(RESTARTS));
    this.loaded = new Promise((resolve, reject) => {
      this.#loaded = resolve;
      this.#loadFailed = reject;
    });
    this.loaded.catch(() => {});
    for (const index of options.specs.keys()) this.#start(index);
  }

  get engines(): number {
    return this.#engines.length;
  }

  /** Predictions that keep all engines busy while the next ones are at hand. */
  get capacity(): number {
    const batch = Math.min(this.#options.maxBatchSize, this.#batchLimit ?? Infinity);
    const slowest = Math.max(...this.#engines.map(({ msPerPrediction }) => msPerPrediction));
    return 2 * this.#engines.length * Math.max(batch, this.#batcher.messageSize(Infinity, slowest, 1));
  }

  /**
   * Runs one prediction, in a batch with others where that is possible.
   * @throws InfermillError it failed with; PredictionExpiredError when no engine was free in time, NotStartedError when
   * the pool closed first
   */
  run(task: EngineTask): Promise<EngineResult> {
    return new Promise((resolve, reject) => {
      if (this.#isClosing) return reject(new NotStartedError("the worker is stopping"));
      if (task.signal?.aborted) return reject(new NotStartedError("it is wanted no more"));
      if (this.#held.size === 0) this.#progressAt = Date.now();
      const held: Held = {
        task,
        key: this.#nextKey++,
        isAlone: false,
        startedAt: 0,
        engine: "",
        resolve,
        reject,
      };
      this.#held.set(held.key, held);
      if (task.priority < PRIORITIES.low) this.#interactiveAt = Date.now();
      this.#batcher.add(held, task.priority, task.expiresAt);
      this.#dispatchSoon();
    });
  }

  /** Gives back the predictions with this signal that no engine has begun, with NotStartedError. */
  withdraw(signal: AbortSignal): void {
    const isUnwanted = ({ task }: Held) => task.signal === signal;
    const suspects = this.#suspects.filter(isUnwanted);
    for (const held of suspects) this.#suspects.splice(this.#suspects.indexOf(held), 1);
    for (const held of [...this.#batcher.takeWhere(isUnwanted), ...suspects])
      this.#giveBack(held, new NotStartedError("it is wanted no more"));
  }

  /** What became of predictions, for the statistics of the last minutes. */
  readonly intervals = new IntervalCounter();

  /** Adds to the totals how many bytes of Redis a response took. */
  addResponseBytes(bytes: number): void {
    this.#totals.response_bytes += bytes;
  }

  /** Adds to the totals where the time of a prediction that succeeded went. */
  addTimings(timings: Timings): void {
    const { read_ms, preprocess_ms, infer_ms, postprocess_ms } = timings;
    this.intervals.addRun(read_ms + preprocess_ms + infer_ms + postprocess_ms);
    for (const phase of Object.keys(this.#timings) as (keyof Timings)[])
      this.#timings[phase] += timings[phase];
  }

  report(): ModelReport {
    return {
      engines: this.#engines.map((engine, index) => engine.report(this.#backoffs[index]!.restarts)),
      description: this.#description,
      batch_limit: this.#batchLimit,
      capacity: this.capacity,
      held: this.#held.size,
      stuck_ms: this.#held.size === 0 ? 0 : Date.now() - this.#progressAt,
      totals: { ...this.#totals, batches: Math.round(this.#totals.batches), timings: this.#timings },
    };
  }

  /** Gives back what no engine has begun, waits for the rest, ends the engines. */
  async close(limitMs: number): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#dueTimer);
    for (const timer of this.#restartTimers) clearTimeout(timer);
    for (const held of [...this.#batcher.drain(), ...this.#suspects.splice(0)])
      this.#giveBack(held, new NotStartedError("the worker is stopping"));
    const deadline = Date.now() + limitMs;
    while (this.#held.size > 0 && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 10));
    for (const held of this.#held.values())
      this.#giveBack(held, new NotStartedError("the worker is stopping"));
    await Promise.all(this.#engines.map((engine) => engine.close()));
  }

  #start(index: number): void {
    const startedAt = Date.now();
    let wasReady = false;
    const { modelName, specs, log, readStored } = this.#options;
    const id = `${modelName}-${index}`;
    const engine = new EngineProcess(
      id,
      specs[index]!,
      {
        ready: (description, batchLimit) => {
          wasReady = true;
          this.#description = description;
          this.#limitBatch(batchLimit);
          log.debug({ engine: id, pid: engine.pid }, "engine ready");
          if (this.#engines.every(({ state }) => state === "ready")) this.#loaded();
          this.#dispatch();
        },
        outcomes: (outcomes) => {
          if (isTracing()) recordBatches(modelName, id, this.#tracedOf(outcomes));
          for (const outcome of outcomes) this.#settle(outcome);
          this.#dispatch();
        },
        overdue: (key) => {
          const held = this.#held.get(key);
          if (held) this.#fail(held, ranTooLong(held.task));
        },
        hung: (chunks) => {
          log.warn({ engine: id }, "engine exceeded timeout_ms and was killed");
          this.#recoverHung(chunks.flat());
        },
        lost: (chunks, how) => {
          const delay = this.#backoffs[index]!.next(Date.now() - startedAt);
          log.warn({ engine: id, members: chunks.flat().length, restart_in_ms: delay }, `engine ${how}`);
          for (const key of chunks.flat())
            this.#suspect(
              key,
              (task) => new EngineLostError(`the engine ${how} while it ran ${task.id} alone`),
            );
          if (!wasReady && this.#backoffs[index]!.restarts >= MAX_LOAD_CRASHES) {
            const error = new LoaderError(
              `the engine ${how} while it loaded the model, ${MAX_LOAD_CRASHES} times`,
            );
            this.#loadFailed(error);
          }
          this.#restartLater(index, delay);
          this.#dispatch();
        },
        loadFailed: (error) => {
          log.error({ engine: id, err: error }, `the model can't be loaded: ${error.message}`);
          this.#loadFailed(error);
        },
        batchLimit: (limit, reason) => {
          const setting = `set max_batch_size to ${limit}`;
          log.warn(
            { engine: id },
            `out of memory, batches hold ${limit} from now on (${setting}): ${reason}`,
          );
          this.#limitBatch(limit);
        },
      },
      log,
      readStored,
    );
    this.#engines[index] = engine;
  }

  /** Of all that its engines say the smallest counts: what memory didn't hold once is not tried again. */
  #limitBatch(limit: number): void {
    this.#batchLimit = Math.min(limit, this.#batchLimit ?? Infinity);
    this.#batcher.limitBatchSize(limit);
  }

  #restartLater(index: number, delay: number): void {
    if (this.#isClosing) return;
    const timer = setTimeout(() => {
      this.#restartTimers.delete(timer);
      this.#start(index);
    }, delay);
    this.#restartTimers.add(timer);
  }

  /**
   * Where the engine held a single prediction, that one hung. Else it can be any: the oldest may have finished, and its
   * outcome not have left the engine when the next one hung.
   */
  #recoverHung(keys: number[]): void {
    const only = keys.length === 1 && this.#held.get(keys[0]!);
    if (only) only.isAlone = true;
    for (const key of keys) this.#suspect(key, ranTooLong);
  }

  #suspect(key: number, error: (task: EngineTask) => InfermillError): void {
    const held = this.#held.get(key);
    if (!held) return;
    if (held.isAlone) return this.#fail(held, error(held.task));
    held.isAlone = true;
    this.#suspects.push(held);
  }

  #tracedOf(outcomes: readonly MemberOutcome[]): TracedMember[] {
    return outcomes.flatMap(({ key, timings, batch_size: batchSize }) => {
      const { task, startedAt } = this.#held.get(key) ?? {};
      const span = task?.span;
      return span?.isRecording() && batchSize > 0
        ? [{ span, startedAt: startedAt!, timings, batchSize }]
        : [];
    });
  }

  #settle(outcome: MemberOutcome): void {
    const held = this.#held.get(outcome.key);
    // It ended already: an engine that was given up can still speak once, and one that was too slow.
    if (!held) return;
    if (outcome.error || !outcome.response) {
      return this.#fail(
        held,
        outcome.error ? fromWire(outcome.error) : new LoaderError("the engine sent no response"),
        outcome.batch_size,
      );
    }
    const { timings, batch_size: batchSize, response } = outcome;
    const outputs = outcome.outputs ?? [];
    this.#finish(held, "succeeded", batchSize);
    held.resolve({ response, outputs, timings, batchSize, engine: held.engine, startedAt: held.startedAt });
  }

  #fail(held: Held, error: InfermillError, batchSize = 1): void {
    this.#finish(held, "failed", batchSize);
    held.reject(error);
  }

  /** Of what was not run to its end; it doesn't count. */
  #giveBack(held: Held, error: InfermillError): void {
    this.#held.delete(held.key);
    held.reject(error);
  }

  #finish(held: Held, how: "succeeded" | "failed", batchSize: number): void {
    this.#held.delete(held.key);
    const suspect = this.#suspects.indexOf(held);
    if (suspect >= 0) this.#suspects.splice(suspect, 1);
    this.#progressAt = Date.now();
    this.#totals.predictions++;
    this.#totals[how]++;
    this.intervals.addEnd(how, batchSize);
    // Each member brings its share, so that a whole batch counts as one; what failed before a batch was formed, nothing.
    if (batchSize > 0) this.#totals.batches += 1 / batchSize;
  }

  /** Waits for what arrives in the same turn of the event loop, so that a burst makes one batch. */
  #dispatchSoon(): void {
    if (this.#isDispatching) return;
    this.#isDispatching = true;
    setImmediate(() => {
      this.#isDispatching = false;
      this.#dispatch();
    });
  }

  #dispatch(): void {
    if (this.#isClosing) return;
    clearTimeout(this.#dueTimer);
    for (const held of this.#batcher.takeExpired())
      this.#giveBack(held, new PredictionExpiredError("it waited for longer than its ttl_ms"));
    const ready = this.#engines.filter((engine) => engine.hasRoom).sort((a, b) => a.inFlight - b.inFlight);
    // Twice, so that every engine has its first chunk before one gets a second.
    for (const engine of [...ready, ...ready]) this.#feed(engine);
    for (const engine of this.#engines.toSorted((a, b) => a.inFlight - b.inFlight)) this.#feedUrgent(engine);
    // What is due already waits for an engine, which dispatches when it has room.
    const due = [this.#batcher.msUntilDue(), this.#batcher.msUntilExpiry()].filter((ms) => ms > 0);
    const next = Math.min(...due);
    if (next < Infinity) this.#dueTimer = setTimeout(() => this.#dispatch(), next);
  }

  #feed(engine: EngineProcess): void {
    if (!engine.hasRoom) return;
    if (this.#suspects.length > 0) {
      // An engine that holds something is left to run empty.
      if (!engine.isIdle) return;
      this.#hand(engine, [this.#suspects.shift()!]);
      engine.isExclusive = true;
      return;
    }
    const isYielding = !engine.isIdle && Date.now() - this.#interactiveAt < YIELD_MS;
    const chunk = this.#batcher.take(engine, this.#engines.length, isYielding ? PRIORITIES.low : Infinity);
    if (chunk.length > 0) this.#hand(engine, chunk);
  }

  /** Interactive predictions don't wait until a bulk run leaves them room. */
  #feedUrgent(engine: EngineProcess): void {
    if (this.#suspects.length > 0 || engine.isIdle) return;
    const chunk = this.#batcher.takeUrgent(engine.urgentBelow);
    if (chunk.length > 0) this.#hand(engine, chunk);
  }

  #hand(engine: EngineProcess, chunk: Held[]): void {
    for (const held of chunk) {
      held.startedAt = Date.now();
      held.engine = engine.id;
    }
    const members = chunk.map(({ key, task: { request, inputs } }) => ({ key, request, inputs }));
    const limits = new Map(chunk.map(({ key, task }) => [key, task.timeoutMs]));
    engine.run(members, limits, Math.min(...chunk.map(({ task }) => task.priority)));
  }
}

function ranTooLong({ id, timeoutMs }: EngineTask): PredictionTimeoutError {
  return new PredictionTimeoutError(`${id} ran longer than its timeout_ms of ${timeoutMs}`);
}
