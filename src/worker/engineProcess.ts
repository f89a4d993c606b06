/**
 * The worker's handle of one engine process: starts it, hands it chunks, tells
 * what came back, notices when it hangs or dies. What to do about that is the
 * pool's business.
 */
import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { BadInputError, type InfermillError } from "../errors.ts";
import type { LoaderDescription } from "../core/description.ts";
import type { EngineReport, EngineState } from "../queue/workerReports.ts";
import {
  fromWire,
  noTimings,
  toWire,
  type EngineSpec,
  type FromEngine,
  type Member,
  type MemberOutcome,
  type ToEngine,
} from "../engines/protocol.ts";

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
  /** A member ran longer than its own limit. The engine goes on, and may still tell its outcome. */
  overdue(key: number): void;
  /** The engine was silent for too long over the first of these chunks, and was killed. */
  hung(chunks: number[][]): void;
  /** The process ended with these chunks in flight. */
  lost(chunks: number[][], how: string): void;
  /** The loader could not be loaded; the process is ending. */
  loadFailed(error: InfermillError): void;
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
  readonly #child: ChildProcess;
  readonly #events: EngineEvents;
  readonly #timeoutMs: number;
  #chunks: Chunk[] = [];
  #timers: NodeJS.Timeout[] = [];
  #busySince = 0;
  #isClosing = false;

  /** @param spec whose model's `timeout_ms` is how long the engine may be silent while it has something to run */
  constructor(id: string, spec: EngineSpec, events: EngineEvents, log: Logger) {
    this.id = id;
    this.#timeoutMs = spec.model.timeout_ms;
    this.device = spec.device;
    this.#events = events;
    const isSource = import.meta.url.endsWith(".ts");
    this.#child = fork(
      fileURLToPath(
        new URL(isSource ? "../engines/node/engine.ts" : "../engines/node/engine.js", import.meta.url),
      ),
      {
        // libvips decodes on libuv's threads; two keep one engine busy, more only fight over its core.
        env: { ...process.env, UV_THREADPOOL_SIZE: "2" },
      },
    );
    this.#child.on("message", (message: FromEngine) => this.#receive(message));
    this.#child.on("error", (error) => {
      log.error({ engine: id, err: error }, "engine process failed");
      // What never started tells no exit.
      if (this.pid === null) this.#exited(`could not be started (${error.message})`);
    });
    this.#child.once("exit", (code, signal) =>
      this.#exited(signal ? `was killed by ${signal}` : `exited with code ${code}`),
    );
    this.#send({ type: "load", spec });
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
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
  run(members: Member[], limits: Map<number, number>, priority: number): void {
    if (this.isIdle) this.#busySince = performance.now();
    const isUrgent = !this.isIdle && priority < this.urgentBelow;
    // It overtakes what waits in the engine, and not what runs.
    this.#chunks.splice(isUrgent ? 1 : this.#chunks.length, 0, { limits, priority });
    if (this.#chunks.length === 1) this.#watchTime();
    this.#sendMembers(members, isUrgent);
  }

  /** In halves where a message would be longer than a string may be; what can't be sent alone fails. */
  #sendMembers(members: Member[], isUrgent: boolean): void {
    try {
      this.#send({ type: "chunk", members, isUrgent });
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
    setImmediate(() => this.#settle([{ key, error: toWire(error), timings: noTimings(), batchSize: 0 }]));
  }

  /** Ends the process, in order where it has nothing to do; resolves when it has gone. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#stopTimers();
    if (this.pid === null || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once("exit", resolve));
    // Asked while it loads or runs something, it would answer only afterwards.
    if (this.state === "ready" && this.isIdle) this.#send({ type: "close" });
    else this.#child.kill("SIGKILL");
    const limit = setTimeout(() => this.#child.kill("SIGKILL"), CLOSE_LIMIT_MS);
    await gone;
    clearTimeout(limit);
  }

  report(restarts: number): EngineReport {
    const { id, device, state, pid, error } = this;
    return { id, device, state, pid, restarts, error };
  }

  #receive(message: FromEngine): void {
    if (message.type === "ready") {
      this.state = "ready";
      this.#events.ready(message.description, message.batchLimit);
    } else if (message.type === "load failed") {
      this.state = "failed";
      this.error = message.error.detail;
      this.#events.loadFailed(fromWire(message.error));
    } else {
      this.#settle(message.outcomes);
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
      this.#child.kill("SIGKILL");
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

  #send(message: ToEngine): void {
    // A child that died in this moment is dealt with when its exit is told.
    if (this.#child.connected) this.#child.send(message, () => {});
  }
}
