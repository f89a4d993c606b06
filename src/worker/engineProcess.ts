/**
 * The worker's handle of one engine process: starts it, hands it chunks, tells
 * what came back, notices when it hangs or dies. What to do about that is the
 * pool's business.
 */
import type { Logger } from "pino";
import { BadInputError, RetryableError, type InfermillError } from "../errors.ts";
import type { LoaderDescription } from "../core/description.ts";
import type { EngineReport, EngineState } from "../queue/workerReports.ts";
import { EngineChild } from "../engines/engineChild.ts";
import {
  fromWire,
  MAX_BODY_TOGETHER,
  noTimings,
  toWire,
  type EngineSpec,
  type FromEngine,
  type Member,
  type MemberOutcome,
} from "../engines/protocol.ts";
import type { ReadStoredInputs, StoredMember } from "./storedInputs.ts";

/** Chunks that an engine holds at a time: one that runs and one whose pictures are decoded meanwhile. */
const WINDOW = 2;

/** And one more that is more urgent than both: it runs next. */
const URGENT_WINDOW = WINDOW + 1;

/** How long an engine that is asked to close may take before it is killed. */
const CLOSE_LIMIT_MS = 5000;

/** What is in flight, oldest chunk first. */
interface Chunk {
  /** Its members that have no outcome yet: the longest run of each in milliseconds, by its key. */
  limits: Map<number, number>;
  /** Of its most urgent member. */
  priority: number;
}

export interface EngineEvents {
  ready(description: LoaderDescription, batchLimit: number): void;
  outcomes(outcomes: MemberOutcome[]): void;
  /** A member ran longer than its own limit. The engine continues, and may still tell its outcome. */
  overdue(key: number): void;
  /** The engine was silent for too long over the first of these chunks, and was killed. */
  hung(chunks: number[][]): void;
  /** The process ended with these chunks in flight. */
  lost(chunks: number[][], how: string): void;
  /** The loader could not be loaded; the process is ending. */
  loadFailed(error: InfermillError): void;
  /** The device's memory holds no more at once. */
  batchLimit(limit: number, reason: string): void;
}

export class EngineProcess {
  readonly id: string;
  readonly device: string;
  state: EngineState = "loading";
  error: string | null = null;
  /** Measured, smoothed; 0 while unknown. */
  msPerPrediction = 0;
  /** Runs one suspect of a lost engine and must get nothing beside it. */
  isExclusive = false;
  readonly #child: EngineChild;
  readonly #events: EngineEvents;
  readonly #readStored: ReadStoredInputs;
  readonly #timeoutMs: number;
  #chunks: Chunk[] = [];
  #timers: NodeJS.Timeout[] = [];
  #busySince = 0;
  #isClosing = false;
  #gone: () => void = () => {};

  /**
   * @param spec whose model's `timeout_ms` is how long the engine may be silent while it has something to run
   * @param readStored reads inputs that an engine can't reach
   */
  constructor(id: string, spec: EngineSpec, events: EngineEvents, log: Logger, readStored: ReadStoredInputs) {
    this.id = id;
    this.#timeoutMs = spec.model.timeout_ms;
    this.device = spec.device;
    this.#events = events;
    this.#readStored = readStored;
    this.#child = new EngineChild(spec, {
      message: (message) => this.#receive(message),
      line: (line, stream) => log.info({ engine: id, stream }, line),
      exited: (how) => this.#exited(how),
    });
  }

  get pid(): number | null {
    return this.#child.pid;
  }

  get isIdle(): boolean {
    return this.#chunks.length === 0;
  }

  get hasRoom(): boolean {
    return this.state === "ready" && !this.isExclusive && this.#chunks.length < WINDOW;
  }

  get inFlight(): number {
    return this.#chunks.length;
  }

  /** What is more urgent than this need not wait for room; 0 where nothing is. */
  get urgentBelow(): number {
    if (this.state !== "ready" || this.isExclusive || this.#chunks.length >= URGENT_WINDOW) return 0;
    return Math.min(...this.#chunks.map(({ priority }) => priority));
  }

  /** @param limits the longest run of each member in milliseconds, by its key */
  run(members: StoredMember[], limits: Map<number, number>, priority: number): void {
    if (this.isIdle) this.#busySince = performance.now();
    const isUrgent = !this.isIdle && priority < this.urgentBelow;
    // It overtakes what waits in the engine, and not what runs.
    this.#chunks.splice(isUrgent ? 1 : this.#chunks.length, 0, { limits, priority });
    if (this.#chunks.length === 1) this.#watchTime();
    const readable = this.#readStored(members);
    // In this turn of the event loop where nothing has to be read.
    if (Array.isArray(readable)) return this.#sendMembers(readable, isUrgent);
    readable.then(
      (read) => {
        const failed = read.flatMap((each) => ("error" in each ? [each] : []));
        if (failed.length > 0) this.#settle(failed);
        this.#sendMembers(read.filter((each) => !("error" in each)) as Member[], isUrgent);
      },
      (error: Error) => this.#giveUp(members, error),
    );
  }

  /** In halves where a frame would be too long; what can't be sent alone fails. */
  #sendMembers(members: Member[], isUrgent: boolean): void {
    if (members.length === 0) return;
    try {
      if (members.length > 1 && bytesOf(members) > MAX_BODY_TOGETHER) throw new RangeError("too long");
      this.#child.sendChunk(members, isUrgent);
    } catch (error) {
      const half = members.length >> 1;
      if (half === 0) return this.#refuse(members[0]!.key, error as Error);
      this.#sendMembers(members.slice(0, half), isUrgent);
      this.#sendMembers(members.slice(half), isUrgent);
    }
  }

  #refuse(key: number, cause: Error): void {
    const error = new BadInputError(`the request can't be sent to an engine: ${cause.message}`, { cause });
    // Not while the pool is in the middle of handing it out.
    setImmediate(() => this.#settle([{ key, error: toWire(error), timings: noTimings(), batch_size: 0 }]));
  }

  /** The stored inputs can't be read now: another try may. */
  #giveUp(members: readonly StoredMember[], cause: Error): void {
    const error = new RetryableError(`the inputs can't be read: ${cause.message}`, { cause });
    this.#settle(
      members.map(({ key }) => ({ key, error: toWire(error), timings: noTimings(), batch_size: 0 })),
    );
  }

  /** Ends the process, in order where it has nothing to do; resolves when it has gone. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#stopTimers();
    if (this.pid === null || this.#child.isGone) return;
    const gone = new Promise<void>((resolve) => (this.#gone = resolve));
    // Asked while it loads or runs something, it would answer only afterwards.
    if (this.state === "ready" && this.isIdle) this.#child.sendClose();
    else this.#child.kill();
    const limit = setTimeout(() => this.#child.kill(), CLOSE_LIMIT_MS);
    await gone;
    clearTimeout(limit);
  }

  report(restarts: number): EngineReport {
    const { id, device, state, pid, error } = this;
    return { id, device, state, pid, restarts, error };
  }

  #receive(message: FromEngine): void {
    if (message.type === "outcomes") {
      this.#settle(message.outcomes);
    } else if (message.type === "progress") {
      this.#watchTime();
    } else if (message.type === "batch_limit") {
      this.#events.batchLimit(message.batchLimit, message.reason);
    } else if (message.type === "ready") {
      this.state = "ready";
      this.#events.ready(message.description, message.batchLimit);
    } else {
      this.state = "failed";
      this.error = message.error.detail;
      this.#events.loadFailed(fromWire(message.error));
    }
  }

  #settle(outcomes: MemberOutcome[]): void {
    for (const { key } of outcomes) for (const { limits } of this.#chunks) if (limits.delete(key)) break;
    this.#chunks = this.#chunks.filter(({ limits }) => limits.size > 0);
    const now = performance.now();
    const ms = (now - this.#busySince) / outcomes.length;
    this.msPerPrediction = this.msPerPrediction === 0 ? ms : this.msPerPrediction * 0.8 + ms * 0.2;
    this.#busySince = now;
    if (this.isIdle) this.isExclusive = false;
    this.#watchTime();
    this.#events.outcomes(outcomes);
  }

  /** A chunk's time counts from when it is the engine's oldest, and anew from every sign of progress. */
  #watchTime(): void {
    this.#stopTimers();
    const oldest = this.#chunks[0];
    if (!oldest) return;
    const silence = setTimeout(() => {
      const chunks = this.#forgetChunks();
      this.#child.kill();
      this.#events.hung(chunks);
    }, this.#timeoutMs);
    const own = [...oldest.limits].filter(([, ms]) => ms < this.#timeoutMs);
    this.#timers = [silence, ...own.map(([key, ms]) => setTimeout(() => this.#events.overdue(key), ms))];
  }

  #stopTimers(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
  }

  #exited(how: string): void {
    this.#gone();
    if (this.state !== "failed") this.state = "restarting";
    const chunks = this.#forgetChunks();
    if (!this.#isClosing) this.#events.lost(chunks, how);
  }

  #forgetChunks(): number[][] {
    this.#stopTimers();
    const chunks = this.#chunks.map(({ limits }) => [...limits.keys()]);
    this.#chunks = [];
    this.isExclusive = false;
    if (this.state === "ready") this.state = "restarting";
    return chunks;
  }
}

function bytesOf(members: readonly Member[]): number {
  return members
    .flatMap(({ inputs }) => inputs)
    .reduce((sum, input) => sum + ("bytes" in input ? input.bytes.length : 0), 0);
}
