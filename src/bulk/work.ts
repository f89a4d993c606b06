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
import { chunkId, failedRow, readRow, type EntryOutcome } from "../queue/bulkChunks.ts";
import type { BulkQueue, BulkQueues, ChunkState } from "../queue/bulkQueue.ts";
import { placeForCopies, startCopies } from "./copies.ts";
import { diskFaultOf } from "../core/diskFaults.ts";
import { listFolder, readEntry, type Entry } from "./entry.ts";
import { startHeartbeat, type Heartbeat } from "./heartbeat.ts";
import { watchLimits, type LimitWatch } from "./limits.ts";
import { MIN_WINDOW, Pace, type Capacity, type Plan } from "./pace.ts";
import { publishResults } from "./publish.ts";
import { openResults, RunTakenOverError, type ResultsFile } from "./resultsFile.ts";
import { readEntries, type EntryCounts } from "./runFolder.ts";
import type { BulkRuns, BulkState } from "./runs.ts";
import type { BulkSpec } from "./spec.ts";
import { usedModel } from "./usedModel.ts";

/** What ends within this time, up to this part of the window, is written down and replaced in the bulk queue together. */
const GATHER_MS = 250;
const GATHER_PART = 1 / 4;
/** How often the whole window is looked at, since completion events can be lost. */
const LOOK_INTERVAL_MS = 2000;
/** Chunks that are sent or read in one go: what they hold is in memory together. */
const MAX_CHUNKS_TOGETHER = 32;
/** Bytes of a chunk's entries as they stand in the manifest. */
const MAX_CHUNK_BYTES = 1024 * 1024;
/** Bytes of entries beyond which no more are read ahead, pictures inside a manifest included: they stay in memory until they end. */
const MAX_OWN_BYTES = 64 * 1024 * 1024;
/** Inputs that came inside a manifest and are stored side by side. */
const PARALLEL_WRITES = 16;
const REDIS_RETRY_MS = 500;
const DISK_RETRY_MS = 5000;
/** How long a cancelled run waits for the predictions that run at this moment. */
const CANCEL_LIMIT_MS = 30_000;
const CANCEL_LOOK_MS = 50;
/** And one that is complete for the chunks of its last entries, whose workers are just ending them. */
const LAST_CHUNKS_MS = 1000;
/** How a worker of 0.1 gives back a chunk, which it takes for one prediction; a newer one has it later. */
const OUTDATED_WORKER = "expired";
const OUTDATED_RETRY_MS = 1000;

export interface WorkOptions {
  config: Config;
  runs: BulkRuns;
  bulkQueues: BulkQueues;
  capacityOf: (model: string) => Promise<Capacity>;
  /** How many runs are worked on here at this moment, by their model and priority: they share its window. */
  sideBySide: Map<string, number>;
  log: Logger;
  /** Aborted to let go of the run, for this process or another to resume. */
  signal: AbortSignal;
  /** Is told how the run stands, about once a second. */
  onHeartbeat?: ((state: BulkState) => void) | undefined;
}

/**
 * @returns how the run ended, `failed` where it reached one of its limits; "released" when `signal` was aborted first
 * @throws RunTakenOverError where another process works on it, or what keeps the run from going on
 */
export async function workOnRun(
  spec: BulkSpec,
  options: WorkOptions,
): Promise<"completed" | "cancelled" | "failed" | "released"> {
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
  let exceeded: InfermillError | undefined;
  let limits: LimitWatch | undefined;
  try {
    // It may have stopped to wait for the run: its files are another process's then.
    if (heartbeat.order() === "release") return "released";
    await runs.folder(spec.id).writeUsedModel(usedModel(config, spec.model));
    const resumption = await persistently(log, () => runs.readResumption(spec.id));
    limits = watchLimits(spec.limits ?? {}, resumption, (error) => {
      exceeded = error;
      heartbeat.giveUp();
    });
    if (await writeEntries(spec, state, options, heartbeat)) {
      const results = await openResults(runs.resultsFile(spec), state.total);
      try {
        Object.assign(state, { status: "running" }, results.counts());
        limits.check(state.failed);
        heartbeat.tell(state);
        const drawing = await copiesOf(spec, options, heartbeat.stop);
        await new RunWork(spec, options, state, results, heartbeat, limits).run();
        // Before the end: a run that is completed has its copies.
        copies = await drawing?.finish();
      } finally {
        await results.close();
      }
    }
    // What is left of the work is no entry's.
    limits.stop();
    const order = heartbeat.order();
    if (order === "taken") throw new RunTakenOverError(`another process works on ${spec.id}`);
    if (order === "release") return "released";
    const status = order === "cancel" ? "cancelled" : exceeded ? "failed" : "completed";
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
    const counts = { total, succeeded, failed, skipped };
    await persistently(log, () => runs.end(spec.id, status, counts, exceeded?.toSummary()));
    return status;
  } finally {
    limits?.stop();
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

/** A chunk in the bulk queue. */
interface Sent {
  /** Its entries that have no line yet, by index. */
  left: Map<number, Entry>;
  /** Rows of it that are written down. */
  seen: number;
}

/** What a look at a chunk found. */
interface Found {
  id: string;
  sent: Sent;
  seen: number;
  ended: { entry: Entry; outcome: EntryOutcome }[];
  /** To be sent again, since nobody ran them. */
  again: Entry[];
  isOver: boolean;
}

class RunWork {
  readonly #spec: BulkSpec;
  readonly #options: WorkOptions;
  readonly #state: BulkState;
  readonly #results: ResultsFile;
  readonly #heartbeat: Heartbeat;
  readonly #limits: LimitWatch;
  readonly #bulkQueue: BulkQueue;
  readonly #entries: AsyncGenerator<{ index: number; text: string }>;
  readonly #pace = new Pace();
  readonly #share: string;
  #plan: Plan = { chunk: 1, window: MIN_WINDOW };
  /** Read and not in Redis: to be submitted, again where it was lost. */
  #unsubmitted: Entry[] = [];
  /** When those are submitted; later where it would be in vain. */
  #submitAt = 0;
  readonly #sent = new Map<string, Sent>();
  /** Entries that an earlier owner has sent and that were not read yet: the id of the chunk of each. */
  readonly #foreign = new Map<number, string>();
  /** Chunks of which something is said to have ended. */
  readonly #completed = new Set<string>();
  /** Chunks that are written down, and to be forgotten by Redis. */
  #written: string[] = [];
  #isAllRead = false;
  /** Read, and without a line. */
  #inFlight = 0;
  /** Of what is in flight. */
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
    limits: LimitWatch,
  ) {
    this.#limits = limits;
    this.#spec = spec;
    this.#options = options;
    this.#state = state;
    this.#results = results;
    this.#heartbeat = heartbeat;
    this.#share = `${spec.model} ${spec.priority}`;
    this.#bulkQueue = options.bulkQueues.bulkQueue(spec.model);
    this.#entries = readEntries(options.runs.folder(spec.id).entriesFile);
  }

  /** Until every entry has its line, or the run is to stop. */
  async run(): Promise<void> {
    const { bulkQueues, log } = this.#options;
    const { stop } = this.#heartbeat;
    const listening = bulkQueues.listen((id) => this.#onCompletion(id));
    const wake = () => this.#wake();
    stop.addEventListener("abort", wake);
    this.#enterShare(1);
    try {
      await persistently(log, () => this.#adopt());
      await this.#makePlan();
      while (!stop.aborted) {
        try {
          await this.#fillWindow();
          if (this.#inFlight === 0) break;
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
      if (["cancel", "give up"].includes(this.#heartbeat.order())) await this.#withdraw();
      else if (this.#inFlight === 0) await this.#collectUntil(Date.now() + LAST_CHUNKS_MS);
      if (this.#written.length > 0) await this.#bulkQueue.remove(this.#written).catch(() => {});
    } finally {
      this.#enterShare(-1);
      stop.removeEventListener("abort", wake);
      listening.stop();
      await this.#entries.return(undefined);
    }
  }

  /** Takes over what an earlier owner of the run has left in the bulk queue. */
  async #adopt(): Promise<void> {
    const useless: string[] = [];
    for (const { id, indices } of await this.#bulkQueue.find(this.#spec.id)) {
      const left = indices.filter((index) => !this.#results.isDone(index) && !this.#foreign.has(index));
      if (left.length === 0) useless.push(id);
      else this.#sent.set(id, { left: new Map(), seen: 0 });
      for (const index of left) this.#foreign.set(index, id);
    }
    // Written down already, or sent by 0.1.
    await this.#bulkQueue.withdraw(useless);
    this.#written.push(...useless);
  }

  #onCompletion(id: string): void {
    if (!this.#sent.has(id)) return;
    this.#completed.add(id);
    this.#wake();
  }

  async #readAhead(): Promise<void> {
    const mayReadOn = () => this.#inFlight < this.#plan.window && this.#hasRoom();
    while (!this.#isAllRead && (mayReadOn() || this.#foreign.size > 0)) {
      const next = await this.#entries.next();
      if (next.done) {
        this.#isAllRead = true;
        break;
      }
      const { index, text } = next.value;
      if (this.#results.isDone(index)) continue;
      const entry = readEntry(index, text, this.#spec);
      this.#inFlight++;
      this.#ownBytes += entry.bytes;
      const sentAs = this.#foreign.get(index);
      this.#foreign.delete(index);
      if (sentAs === undefined) this.#unsubmitted.push(entry);
      else this.#sent.get(sentAs)!.left.set(index, entry);
    }
  }

  async #fillWindow(): Promise<void> {
    await this.#readAhead();
    if (Date.now() < this.#submitAt) return;
    for (;;) {
      const chunks = this.#takeChunks();
      if (chunks.length === 0) return;
      const entries = chunks.flat();
      await this.#storeInputs(entries);
      this.#unsubmitted.splice(0, entries.length);
      // Before they are sent: where nobody knows whether Redis took them, a look finds out.
      for (const chunk of chunks) {
        const left = new Map(chunk.map((entry) => [entry.index, entry]));
        this.#sent.set(chunkId(this.#spec.id, chunk), { left, seen: 0 });
      }
      await this.#bulkQueue.submit(
        this.#spec,
        chunks.map((chunk) => chunk.map(({ index, request, inputs }) => ({ index, request, inputs }))),
      );
    }
  }

  /** Of those that are to be submitted the next chunks, as many as go in one step. */
  #takeChunks(): Entry[][] {
    const all = this.#unsubmitted;
    // What makes no whole chunk waits for the next entries, where such will come.
    const isMoreToCome = this.#sent.size > 0 && !this.#isAllRead && this.#hasRoom();
    const chunks: Entry[][] = [];
    for (let start = 0; start < all.length && chunks.length < MAX_CHUNKS_TOGETHER;) {
      const end = endOfChunk(all, start, this.#plan.chunk);
      if (end === all.length && end - start < this.#plan.chunk && isMoreToCome) break;
      chunks.push(all.slice(start, end));
      start = end;
    }
    return chunks;
  }

  async #storeInputs(entries: readonly Entry[]): Promise<void> {
    const { inputs } = this.#options.bulkQueues;
    const own = entries.filter(({ ownPictures }) => ownPictures.length > 0);
    for (let start = 0; start < own.length; start += PARALLEL_WRITES) {
      await Promise.all(
        own.slice(start, start + PARALLEL_WRITES).map(async (entry) => {
          const refs = [];
          const owner = { model: this.#spec.model, id: `${this.#spec.id}-${entry.index}` };
          for (const [number, bytes] of entry.ownPictures.entries())
            refs.push((await inputs.write(owner, number, bytes)).ref);
          entry.inputs = refs;
        }),
      );
    }
  }

  /** Until something ended and what ends right after it, or it is time to look. */
  async #waitForEndings(): Promise<void> {
    await this.#waitUntil(() => this.#completed.size > 0, this.#lookAt - Date.now());
    if (this.#completed.size === 0) return;
    // The end of a run need not wait for more than there is.
    const enough = Math.min(this.#sent.size, (GATHER_PART * this.#plan.window) / this.#plan.chunk);
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
    const ids = isLook ? [...this.#sent.keys()] : [...this.#completed];
    this.#completed.clear();
    if (isLook) this.#lookAt = Date.now() + LOOK_INTERVAL_MS;
    for (let start = 0; start < ids.length; start += MAX_CHUNKS_TOGETHER)
      await this.#collectChunks(ids.slice(start, start + MAX_CHUNKS_TOGETHER));
    await this.#makePlan();
    await this.#bulkQueue.remove(this.#written);
    this.#written = [];
  }

  /** Runs that have the window in common, this one included. */
  #sharing(): number {
    return this.#options.sideBySide.get(this.#share) ?? 1;
  }

  #enterShare(by: 1 | -1): void {
    const { sideBySide } = this.#options;
    const count = (sideBySide.get(this.#share) ?? 0) + by;
    if (count > 0) sideBySide.set(this.#share, count);
    else sideBySide.delete(this.#share);
  }

  /** Whether more may be held in memory. */
  #hasRoom(): boolean {
    return this.#ownBytes < MAX_OWN_BYTES / this.#sharing();
  }

  async #makePlan(): Promise<void> {
    const capacity = await this.#options.capacityOf(this.#spec.model);
    this.#plan = this.#pace.plan(capacity, this.#sharing());
  }

  async #collectChunks(ids: readonly string[]): Promise<void> {
    const chunks = ids.flatMap((id) => {
      const sent = this.#sent.get(id);
      return sent ? [{ id, sent, seen: sent.seen }] : [];
    });
    const states = await this.#bulkQueue.read(chunks);
    const found = chunks.map(({ id, sent }, at) => this.#endingsOf(id, sent, states[at]!));
    await this.#writeDown(found.flatMap(({ ended }) => ended));
    for (const { id, sent, seen, ended, again, isOver } of found) {
      sent.seen = seen;
      for (const { entry } of ended) {
        sent.left.delete(entry.index);
        this.#forget(entry);
      }
      if (!isOver) continue;
      this.#sent.delete(id);
      this.#unsubmitted.push(...again);
      this.#written.push(id);
    }
  }

  #endingsOf(id: string, sent: Sent, { state, rows, error, finished_at }: ChunkState): Found {
    const open = new Map(sent.left);
    const ended: Found["ended"] = [];
    for (const row of rows) {
      const outcome = readRow(row);
      const entry = open.get(outcome.index);
      // Two workers may have run it, where one had lost it.
      if (!entry) continue;
      open.delete(outcome.index);
      ended.push({ entry, outcome });
    }
    const isOver = state !== "under way";
    const again: Entry[] = [];
    for (const entry of isOver ? open.values() : []) {
      if (state === "failed" && error!.code !== OUTDATED_WORKER)
        ended.push({ entry, outcome: readRow(failedRow(entry.index, error!, finished_at)) });
      else again.push(entry);
    }
    if (again.length > 0 && error?.code === OUTDATED_WORKER) this.#submitAt = Date.now() + OUTDATED_RETRY_MS;
    return { id, sent, seen: sent.seen + rows.length, ended, again, isOver };
  }

  async #writeDown(ended: Found["ended"]): Promise<void> {
    if (ended.length === 0) return;
    this.#heartbeat.assertOwned();
    const outcomes = ended.map(({ entry, outcome: { index, status, rest } }) => ({
      index,
      status,
      rest: entry.label + rest,
    }));
    await this.#results.append(outcomes);
    Object.assign(this.#state, this.#results.counts());
    this.#limits.check(this.#state.failed);
    this.#pace.noteEnded(
      outcomes.length,
      outcomes.reduce((sum, { rest }) => sum + rest.length, 0),
    );
  }

  #forget(entry: Entry): void {
    this.#inFlight--;
    this.#ownBytes -= entry.bytes;
    // The worker has removed them, unless they were stored again for an entry that had ended.
    if (entry.ownPictures.length > 0) this.#options.bulkQueues.inputs.remove(entry.inputs).catch(() => {});
  }

  #forgetUnsubmitted(): void {
    for (const entry of this.#unsubmitted.splice(0)) this.#forget(entry);
  }

  /** Takes back what waits, and writes down what was running. */
  async #withdraw(): Promise<void> {
    const { log } = this.#options;
    if (this.#foreign.size > 0) await this.#readAhead();
    this.#forgetUnsubmitted();
    const withdrawn = await persistently(log, () => this.#bulkQueue.withdraw([...this.#sent.keys()]));
    for (const id of withdrawn) {
      for (const entry of this.#sent.get(id)!.left.values()) this.#forget(entry);
      this.#sent.delete(id);
    }
    await this.#collectUntil(Date.now() + CANCEL_LIMIT_MS);
  }

  /** Writes down what is still in the bulk queue; what nobody ran is not sent again. */
  async #collectUntil(deadline: number): Promise<void> {
    while (this.#sent.size > 0 && Date.now() < deadline) {
      this.#lookAt = 0;
      await persistently(this.#options.log, () => this.#collect());
      this.#forgetUnsubmitted();
      if (this.#sent.size > 0) await sleep(CANCEL_LOOK_MS);
    }
  }
}

/** Of a chunk that begins there: as many as it may have, fewer where they are large. */
function endOfChunk(entries: readonly Entry[], start: number, size: number): number {
  let [end, bytes] = [start + 1, entries[start]!.bytes];
  while (end < Math.min(entries.length, start + size) && bytes + entries[end]!.bytes <= MAX_CHUNK_BYTES)
    bytes += entries[end++]!.bytes;
  return end;
}
