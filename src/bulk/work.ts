/**
 * The work on one bulk run: write its entries down, keep a window of them in
 * the model's bulkQueue, append how each one ended. Whoever starts this again after
 * a crash, here or elsewhere, continues where the results end.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Config } from "../config/schema.ts";
import type { CopyCounts } from "../core/bulkSummary.ts";
import { InfermillError, RedisUnavailableError } from "../errors.ts";
import type { BulkQueue, BulkOutcome, BulkQueues } from "../queue/bulkQueue.ts";
import { placeForCopies, startCopies } from "./copies.ts";
import { diskFaultOf } from "../core/diskFaults.ts";
import { entrySubmission, listFolder, resultOf, type InFlight } from "./entry.ts";
import { startHeartbeat, type Heartbeat } from "./heartbeat.ts";
import { publishResults } from "./publish.ts";
import { openResults, RunTakenOverError, type ResultsFile } from "./resultsFile.ts";
import { readEntries, type EntryCounts } from "./runFolder.ts";
import type { BulkRuns, BulkState } from "./runs.ts";
import type { BulkEntry, BulkSpec } from "./spec.ts";
import { usedModel } from "./usedModel.ts";

/** What ends within this time, up to this part of the window, is written down and replaced in the bulk queue together. */
const GATHER_MS = 250;
const GATHER_PART = 1 / 4;
/** How often the whole window is looked at, since completion events can be lost. */
const LOOK_INTERVAL_MS = 2000;
/** The workers hold their capacity, as much again waits for them, and the rest bridges the time between two looks. */
const WINDOW_CAPACITIES = 3;
/** While no worker tells how much it can take. */
const MIN_WINDOW = 64;
const MAX_WINDOW = 4096;
/** Bytes of pictures inside a manifest beyond which no more are read ahead; they stay in memory until their entry ends. */
const MAX_OWN_BYTES = 64 * 1024 * 1024;
/** Inputs that came inside a manifest and are stored side by side. */
const PARALLEL_WRITES = 16;
const REDIS_RETRY_MS = 500;
const DISK_RETRY_MS = 5000;
/** How long a cancelled run waits for the predictions that run at this moment. */
const CANCEL_LIMIT_MS = 30_000;
const CANCEL_LOOK_MS = 50;

export interface WorkOptions {
  config: Config;
  runs: BulkRuns;
  bulkQueues: BulkQueues;
  /** Predictions that the live workers of a model hold to keep their engines busy; 0 without a worker. */
  capacityOf: (model: string) => Promise<number>;
  log: Logger;
  /** Aborted to let go of the run, for this process or another to resume. */
  signal: AbortSignal;
  /** Is told how the run stands, about once a second. */
  onHeartbeat?: ((state: BulkState) => void) | undefined;
}

/**
 * @returns how the run ended, or "released" when `signal` was aborted first
 * @throws RunTakenOverError where another process works on it, or what keeps the run from going on
 */
export async function workOnRun(
  spec: BulkSpec,
  options: WorkOptions,
): Promise<"completed" | "cancelled" | "released"> {
  const { config, runs, log } = options;
  const state: BulkState = {
    status: "walking",
    total: 0,
    succeeded: 0,
    failed: 0,
    skipped: { total: 0, by_reason: {} },
    rate: 0,
  };
  const heartbeat = await startHeartbeat(spec.id, options);
  let copies: CopyCounts | undefined;
  try {
    // It may have stopped to wait for the run: its files are another process's then.
    if (heartbeat.order() === "release") return "released";
    await runs.folder(spec.id).writeUsedModel(usedModel(config, spec.model));
    if (await writeEntries(spec, state, options, heartbeat)) {
      const results = await openResults(runs.resultsFile(spec), state.total);
      try {
        Object.assign(state, { status: "running" }, results.counts());
        heartbeat.tell(state);
        const drawing = await copiesOf(spec, options, heartbeat.stop);
        await new RunWork(spec, options, state, results, heartbeat).run();
        // Before the end: a run that is completed has its copies.
        copies = await drawing?.finish();
      } finally {
        await results.close();
      }
    }
    const order = heartbeat.order();
    if (order === "taken") throw new RunTakenOverError(`another process works on ${spec.id}`);
    if (order === "release") return "released";
    const status = order === "cancel" ? "cancelled" : "completed";
    const { total, succeeded, failed, skipped } = state;
    if (status === "completed" && succeeded + failed !== total) {
      throw new InfermillError(
        `${runs.folder(spec.id).entriesFile} should hold ${total} entries, ${succeeded + failed} were found; start the run anew`,
      );
    }
    if (copies) await runs.folder(spec.id).writeCopies(copies);
    // Before the end, too: whoever is notified of it finds them there.
    if (spec.results && status === "completed")
      await publishResults(runs.resultsFile(spec), spec.results, config);
    await persistently(log, () => runs.end(spec.id, status, { total, succeeded, failed, skipped }));
    return status;
  } finally {
    await heartbeat.end();
  }
}

/** The annotated copies that a server's run is to make; those of the command line are drawn by the command. */
async function copiesOf(spec: BulkSpec, { config, runs, log }: WorkOptions, signal: AbortSignal) {
  if (!spec.annotate) return undefined;
  const place = await placeForCopies(spec.annotate, config);
  return startCopies({ spec, resultsFile: runs.resultsFile(spec), place }, { config, log, signal });
}

/** @returns whether all entries stand in the run's folder; not where it was stopped before */
async function writeEntries(
  spec: BulkSpec,
  state: BulkState,
  { config, runs, log }: WorkOptions,
  heartbeat: Heartbeat,
): Promise<boolean> {
  const folder = runs.folder(spec.id);
  let counts = await folder.countEntries();
  if (counts === undefined) {
    heartbeat.tell(state);
    const { stop } = heartbeat;
    const onAway = ({ message }: Error) =>
      log.warn({ run: spec.id, reason: message }, "the object storage can't be reached; what needs it waits");
    const onFound = (found: EntryCounts) => Object.assign(state, found);
    counts = await folder.writeEntries((after) => listFolder(spec, config, stop, { after, onAway }), {
      stop,
      onFound,
    });
  }
  if (counts === undefined) return false;
  Object.assign(state, counts);
  return true;
}

/** Where Redis is away, the run waits for it. */
async function persistently<T>(log: Logger, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof RedisUnavailableError)) throw error;
      log.debug(`bulk: ${error.message}`);
      await sleep(REDIS_RETRY_MS);
    }
  }
}

class RunWork {
  readonly #spec: BulkSpec;
  readonly #options: WorkOptions;
  readonly #state: BulkState;
  readonly #results: ResultsFile;
  readonly #heartbeat: Heartbeat;
  readonly #bulkQueue: BulkQueue;
  readonly #entries: AsyncGenerator<{ index: number; text: string }>;
  readonly #inFlight = new Map<number, InFlight>();
  /** Of those in flight, what is said to have ended. */
  readonly #completed = new Set<number>();
  /** In flight, but not in Redis: to be submitted, again where it was lost. */
  #unsubmitted: number[] = [];
  /** Written down, and to be forgotten by Redis. */
  #written: string[];
  #window = MIN_WINDOW;
  /** Of pictures in flight that came inside the manifest. */
  #ownBytes = 0;
  /** At the beginning: what another coordinator left in the bulk queue may have ended. */
  #lookAt = 0;
  #wake = () => {};

  constructor(
    spec: BulkSpec,
    options: WorkOptions,
    state: BulkState,
    results: ResultsFile,
    heartbeat: Heartbeat,
  ) {
    this.#spec = spec;
    this.#options = options;
    this.#state = state;
    this.#results = results;
    this.#heartbeat = heartbeat;
    this.#bulkQueue = options.bulkQueues.bulkQueue(spec.model);
    this.#entries = readEntries(options.runs.folder(spec.id).entriesFile);
    this.#written = results.last.map((index) => this.#idOf(index));
  }

  /** Until every entry has its line, or the run is to stop. */
  async run(): Promise<void> {
    const { bulkQueues, log } = this.#options;
    const { stop } = this.#heartbeat;
    const listening = bulkQueues.listen((id) => this.#onCompletion(id));
    const wake = () => this.#wake();
    stop.addEventListener("abort", wake);
    try {
      while (!stop.aborted) {
        try {
          await this.#fillWindow();
          if (this.#inFlight.size === 0) break;
          await this.#waitForEndings();
          await this.#collect();
        } catch (error) {
          const fault = diskFaultOf(error);
          if (!fault && !(error instanceof RedisUnavailableError)) throw error;
          // Nothing is lost: what ended stays in Redis until its line is written.
          if (fault) log.warn({ run: this.#spec.id }, `the bulk run has to wait: ${fault.message}`);
          else log.debug(`bulk: ${(error as Error).message}`);
          this.#lookAt = 0;
          await sleep(fault ? DISK_RETRY_MS : REDIS_RETRY_MS);
        }
      }
      if (this.#heartbeat.order() === "cancel") await this.#withdraw();
      if (this.#written.length > 0) await this.#bulkQueue.remove(this.#written).catch(() => {});
    } finally {
      stop.removeEventListener("abort", wake);
      listening.stop();
      await this.#entries.return(undefined);
    }
  }

  #idOf(index: number): string {
    return `${this.#spec.id}-${index}`;
  }

  #onCompletion(id: string): void {
    if (!id.startsWith(this.#spec.id)) return;
    const index = Number(id.slice(this.#spec.id.length + 1));
    if (!this.#inFlight.has(index)) return;
    this.#completed.add(index);
    this.#wake();
  }

  async #readAhead(): Promise<void> {
    const spec = this.#spec;
    while (this.#inFlight.size < this.#window && this.#ownBytes < MAX_OWN_BYTES) {
      const next = await this.#entries.next();
      if (next.done) break;
      const { index, text } = next.value;
      if (this.#results.isDone(index)) continue;
      const entry = JSON.parse(text) as BulkEntry;
      const inFlight = entrySubmission(this.#idOf(index), entry, spec);
      this.#inFlight.set(index, inFlight);
      this.#ownBytes += bytesOf(inFlight);
      this.#unsubmitted.push(index);
    }
  }

  async #fillWindow(): Promise<void> {
    await this.#readAhead();
    if (this.#unsubmitted.length === 0) return;
    // A second submission of what Redis knows already changes nothing, so a fault on the way needs no care.
    const submissions = this.#unsubmitted.map((index) => this.#inFlight.get(index)!);
    await this.#storeInputs(submissions);
    await this.#bulkQueue.submit(
      submissions.map(({ submission }) => submission),
      this.#spec.priority,
    );
    this.#unsubmitted = [];
  }

  async #storeInputs(submissions: readonly InFlight[]): Promise<void> {
    const { inputs } = this.#options.bulkQueues;
    const own = submissions.filter(({ ownPictures }) => ownPictures.length > 0);
    for (let start = 0; start < own.length; start += PARALLEL_WRITES) {
      await Promise.all(
        own.slice(start, start + PARALLEL_WRITES).map(async ({ submission, ownPictures }) => {
          const refs = [];
          for (const [index, bytes] of ownPictures.entries())
            refs.push((await inputs.write({ model: this.#spec.model, id: submission.id }, index, bytes)).ref);
          submission.inputs = refs;
        }),
      );
    }
  }

  /** Until something ended and what ends right after it, or it is time to look. */
  async #waitForEndings(): Promise<void> {
    await this.#waitUntil(() => this.#completed.size > 0, this.#lookAt - Date.now());
    if (this.#completed.size === 0) return;
    // The end of a run need not wait for more than there is.
    const enough = Math.min(this.#inFlight.size, GATHER_PART * this.#window);
    await this.#waitUntil(() => this.#completed.size >= enough, GATHER_MS);
  }

  /** Waits for completion events, at most `ms` and never beyond `stop`. */
  async #waitUntil(isMet: () => boolean, ms: number): Promise<void> {
    const { stop } = this.#heartbeat;
    if (isMet() || ms <= 0 || stop.aborted) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = () => {
        if (isMet() || stop.aborted) resolve();
      };
      timer = setTimeout(resolve, ms);
    });
    this.#wake = () => {};
    clearTimeout(timer);
  }

  async #collect(): Promise<void> {
    const isLook = Date.now() >= this.#lookAt;
    const indices = isLook ? [...this.#inFlight.keys()] : [...this.#completed];
    this.#completed.clear();
    if (isLook) {
      this.#lookAt = Date.now() + LOOK_INTERVAL_MS;
      await this.#resizeWindow();
    }
    const endings = await this.#bulkQueue.read(indices.map((index) => this.#idOf(index)));
    const ended: [number, BulkOutcome][] = [];
    for (const [at, ending] of endings.entries()) {
      if (ending === "missing") this.#unsubmitted.push(indices[at]!);
      else if (ending !== "under way") ended.push([indices[at]!, ending]);
    }
    await this.#writeDown(ended);
    await this.#bulkQueue.remove(this.#written);
    this.#written = [];
  }

  async #writeDown(ended: readonly [number, BulkOutcome][]): Promise<void> {
    if (ended.length === 0) return;
    this.#heartbeat.assertOwned();
    await this.#results.append(
      ended.map(([index, ending]) => resultOf(index, this.#inFlight.get(index)!, ending)),
    );
    Object.assign(this.#state, this.#results.counts());
    for (const [index] of ended) this.#forget(index);
    this.#written.push(...ended.map(([index]) => this.#idOf(index)));
  }

  #forget(index: number): void {
    const inFlight = this.#inFlight.get(index)!;
    const { submission, ownPictures } = inFlight;
    this.#inFlight.delete(index);
    this.#ownBytes -= bytesOf(inFlight);
    // A look may have found what is notified only now.
    this.#completed.delete(index);
    // The worker has removed them, unless they were stored again for a prediction that had ended.
    if (ownPictures.length > 0) this.#options.bulkQueues.inputs.remove(submission.inputs).catch(() => {});
  }

  async #resizeWindow(): Promise<void> {
    const wanted = WINDOW_CAPACITIES * (await this.#options.capacityOf(this.#spec.model));
    this.#window = Math.min(MAX_WINDOW, Math.max(MIN_WINDOW, wanted));
  }

  /** Takes back what waits, and writes down what was running. */
  async #withdraw(): Promise<void> {
    const { log } = this.#options;
    // What an owner that died has left in the bulk queue is among the next entries.
    this.#window = MAX_WINDOW;
    await this.#readAhead();
    this.#unsubmitted = [];
    const ids = new Map([...this.#inFlight.keys()].map((index) => [this.#idOf(index), index]));
    const withdrawn = await persistently(log, () => this.#bulkQueue.withdraw([...ids.keys()]));
    for (const id of withdrawn) this.#forget(ids.get(id)!);
    const deadline = Date.now() + CANCEL_LIMIT_MS;
    while (this.#inFlight.size > 0 && Date.now() < deadline) {
      this.#lookAt = 0;
      await persistently(log, () => this.#collect());
      for (const index of this.#unsubmitted.splice(0)) if (this.#inFlight.has(index)) this.#forget(index);
      if (this.#inFlight.size > 0) await sleep(CANCEL_LOOK_MS);
    }
  }
}

function bytesOf({ ownPictures }: InFlight): number {
  return ownPictures.reduce((sum, { length }) => sum + length, 0);
}
