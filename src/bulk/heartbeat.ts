/** The sign of life of whoever works on a bulk run: claims it, reports how it stands, reads what is ordered for it. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { RedisUnavailableError } from "../errors.ts";
import { RunTakenOverError } from "./resultsFile.ts";
import { OWNER_TTL_MS, type BulkRuns, type BulkState } from "./runs.ts";

const HEARTBEAT_MS = 1000;
/** Longer than the owner of a run that died is waited for. */
const CLAIM_LIMIT_MS = 15_000;
/** The rate is that of so many heartbeats. */
const RATE_BEATS = 15;

/**
 * `release`: this process stops; `cancel`: the run was cancelled; `give up`: it reached one of its limits; `taken`:
 * another process owns it.
 */
export type Order = "continue" | "cancel" | "give up" | "taken" | "release";

export interface Heartbeat {
  order(): Order;
  /** Aborted when the order is another than to continue, and at the end: whatever follows the run stops with it. */
  readonly stop: AbortSignal;
  /**
   * To be called before anything is written down.
   * @throws RunTakenOverError where another process owns the run
   * @throws RedisUnavailableError where another one may own it, since no heartbeat was answered for too long
   */
  assertOwned(): void;
  /** The run is to stop as for a cancellation, by itself. */
  giveUp(): void;
  /** From now on the beats tell how the run stands; `state` is read at every beat, and given its rate. */
  tell(state: BulkState): void;
  /** Lets go of the run. */
  end(): Promise<void>;
}

interface HeartbeatOptions {
  runs: BulkRuns;
  log: Logger;
  signal: AbortSignal;
  onHeartbeat?: ((state: BulkState) => void) | undefined;
}

/**
 * Until `tell` the run keeps the counts that it had before.
 * @throws RunTakenOverError where another process keeps the run
 */
export async function startHeartbeat(
  id: string,
  { runs, log, signal, onHeartbeat }: HeartbeatOptions,
): Promise<Heartbeat> {
  const stop = new AbortController();
  const ended = new AbortController();
  // Of this claim, not of the process: an earlier one in this process may still be at work.
  const token = randomUUID();
  let ownedUntil = 0;
  let order: Order = "continue";
  const applyOrder = (given: Order) => {
    if (given === "continue" || (order !== "continue" && given !== "taken")) return;
    order = given;
    stop.abort();
  };
  const release = () => applyOrder("release");

  let state: BulkState | undefined;
  const samples: { at: number; done: number }[] = [];
  const measure = () => {
    // What a resumed run had done before is nobody's rate.
    if (state?.status !== "running") return;
    samples.push({ at: performance.now(), done: state.succeeded + state.failed });
    if (samples.length > RATE_BEATS) samples.shift();
    const [first, last] = [samples[0]!, samples.at(-1)!];
    const seconds = (last.at - first.at) / 1000;
    state.rate = seconds > 0 ? (last.done - first.done) / seconds : 0;
  };

  /** Undefined where Redis is away. */
  async function beatOnce(): Promise<"taken" | "cancel" | "continue" | undefined> {
    const sentAt = Date.now();
    const answer = await runs.heartbeat(id, token, state).catch(ignoreOutage);
    if (answer === "cancel" || answer === "continue") ownedUntil = sentAt + OWNER_TTL_MS;
    return answer;
  }

  async function claim(): Promise<void> {
    const deadline = Date.now() + CLAIM_LIMIT_MS;
    while (!signal.aborted) {
      const answer = await beatOnce();
      if (answer === "taken" && Date.now() > deadline)
        throw new RunTakenOverError(`another process works on ${id}; end it first, or wait until it is done`);
      if (answer !== undefined && answer !== "taken") return applyOrder(answer);
      await sleep(HEARTBEAT_MS, undefined, { signal }).catch(() => {});
    }
  }

  function ignoreOutage(error: unknown): undefined {
    if (!(error instanceof RedisUnavailableError)) throw error;
    log.debug(`bulk: ${error.message}`);
  }

  async function beat(): Promise<void> {
    while (!ended.signal.aborted) {
      await sleep(HEARTBEAT_MS, undefined, { signal: ended.signal }).catch(() => {});
      measure();
      const answer = await beatOnce();
      if (answer) applyOrder(answer);
      if (state) onHeartbeat?.(state);
    }
  }

  await claim();
  if (signal.aborted) release();
  signal.addEventListener("abort", release);
  const beating = beat();
  beating.catch((error: unknown) => log.error({ err: error }, "a bulk run's heartbeat failed"));
  return {
    order: () => order,
    stop: stop.signal,
    giveUp: () => applyOrder("give up"),
    assertOwned() {
      if (order === "taken") throw new RunTakenOverError(`another process works on ${id}`);
      if (Date.now() > ownedUntil)
        throw new RedisUnavailableError(`no heartbeat of ${id} was answered for ${OWNER_TTL_MS / 1000} s`);
    },
    tell(given) {
      state = given;
      measure();
    },
    async end() {
      signal.removeEventListener("abort", release);
      ended.abort();
      stop.abort();
      await beating;
      await runs.release(id, token).catch(() => {});
    },
  };
}
