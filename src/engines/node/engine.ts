/**
 * The engine: a child process of a worker that holds one loader instance on one
 * device. Running a model blocks the event loop and may crash the process, so
 * nothing that must stay responsive lives here.
 */
import { Socket } from "node:net";
import { performance } from "node:perf_hooks";
import {
  BadInputError,
  LoaderError,
  toInfermillError,
  type InfermillError,
  isOutOfMemory,
} from "../../errors.ts";
import type { BaseModelLoader, BatchTrace, Outcome } from "../../loaders/BaseModelLoader.ts";
import {
  DEFAULT_INPUT,
  outputsOf,
  UNKNOWN_MEDIA_TYPE,
  type Input,
  type RequestDictionary,
} from "../../core/request.ts";
import { openLoader } from "../../loaders/openLoader.ts";
import { checkOutcomes } from "../../loaders/outcomes.ts";
import { attachRequestInputs } from "../../imil/requestPictures.ts";
import { encodeFrame, FrameReader } from "../frames.ts";
import {
  decodeToEngine,
  encodeDescription,
  encodeAll,
  encodeOutcomes,
  noTimings,
  PIPE,
  PROTOCOL,
  toWire,
  type EngineSpec,
  type Member,
  type MemberInput,
  type MemberOutcome,
  type ToEngine,
} from "../protocol.ts";
import { readInputs, type InputSources } from "./readInputs.ts";

/** Outcomes that come quicker than this travel together. */
const COALESCE_MS = 5;
const PROGRESS_MS = 100;

type Chunk = Extract<ToEngine, { type: "chunk" }>;

/** A request whose inputs were read. */
interface ReadMember {
  key: number;
  request: RequestDictionary;
  readMs: number;
}

let loader: BaseModelLoader;
let sources: InputSources;
/** Batches that may be under way: the next one's pictures are decoded while one runs, if the loader can. */
let batchSlots: Semaphore;

/** Most requests that run together: the loader's limit, or what memory allowed. */
let batchLimit = 1;

const pipe = new Socket({ fd: PIPE, readable: true, writable: true });
const frames = new FrameReader();
pipe.on("data", (piece: Buffer) => {
  for (const message of frames.push(piece).map(decodeToEngine)) {
    if (message.type === "load") void load(message.spec);
    if (message.type === "chunk") void runChunk(message);
    if (message.type === "close") void close();
  }
});
// A worker that was killed in this moment is noticed by the close.
pipe.on("error", () => {});
// An engine never outlives its worker, and what its loader started doesn't either.
pipe.on("close", () => {
  if (!isClosing) process.kill(-process.pid, "SIGKILL");
});
// It gets none from the terminal; who sends one to all processes means the worker.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
process.on("SIGHUP", () => {});
let isClosing = false;

async function load(spec: EngineSpec): Promise<void> {
  try {
    const { default: sharp } = await import("sharp");
    // One libvips thread per picture and no cache: the engines together fill the cores.
    sharp.concurrency(1);
    sharp.cache(false);
    loader = await openLoader(spec);
    batchSlots = new Semaphore(loader.overlaps ? 2 : 1);
    batchLimit = loader.batchLimit;
    sources = spec.inputs;
    const description = encodeDescription(loader.describe());
    send({ type: "ready", protocol: PROTOCOL, description, batch_limit: batchLimit });
  } catch (error) {
    send({ type: "load_failed", error: toWire(asInfermillError(error)) });
    end();
  }
}

function asInfermillError(error: unknown): InfermillError {
  return toInfermillError(error, (detail, options) => new LoaderError(detail, options));
}

async function runChunk({ members, isUrgent }: Chunk): Promise<void> {
  underWay += members.length;
  const readable = await readMembers(members);
  const limit = batchLimit;
  for (let start = 0; start < readable.length; start += limit) {
    const batch = readable.slice(start, start + limit);
    await batchSlots.acquire(isUrgent);
    void runBatch(batch).finally(() => batchSlots.release());
  }
}

/** Reads the inputs of a chunk. A prediction whose input can't be read fails here, before a batch is formed. */
async function readMembers(members: Member[]): Promise<ReadMember[]> {
  const startedAt = performance.now();
  const inputs = await readInputs(
    members.flatMap((member) => member.inputs),
    sources,
  );
  const readMs = performance.now() - startedAt;
  let next = 0;
  return members.flatMap(({ key, request, inputs: refs }) => {
    const { length } = refs;
    const own = inputs.slice(next, (next += length));
    const failed = own.find((input) => input instanceof BadInputError);
    if (failed) {
      report([{ key, error: toWire(failed), timings: { ...noTimings(), read_ms: readMs }, batch_size: 0 }]);
      return [];
    }
    return {
      key,
      request: length > 0 ? attachRequestInputs(request, namedInputs(refs, own as Buffer[])) : request,
      readMs,
    };
  });
}

function namedInputs(refs: readonly MemberInput[], bytes: readonly Buffer[]): Input[] {
  return refs.map(({ name = DEFAULT_INPUT, media_type: mediaType = UNKNOWN_MEDIA_TYPE }, index) => ({
    name,
    mediaType,
    bytes: bytes[index]!,
  }));
}

/** Runs a batch; where the loader throws, its two halves, down to the requests that it throws on alone. */
async function runBatch(batch: ReadMember[]): Promise<void> {
  if (batch.length > batchLimit) return runParts(batch, batchLimit);
  const trace: BatchTrace = { preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0, progress: tellProgress };
  const startedAt = performance.now();
  let outcomes: Outcome[];
  try {
    outcomes = checkOutcomes(
      await loader.predictRequests(
        batch.map(({ request }) => request),
        trace,
      ),
      batch.length,
    );
  } catch (error) {
    if (batch.length > 1) {
      if (isOutOfMemory(error)) lowerBatchLimit(batch.length, error as Error);
      return runParts(batch, batch.length >> 1);
    }
    outcomes = [error instanceof Error ? error : new Error(String(error))];
  }
  const { preprocess_ms, infer_ms, postprocess_ms } = trace;
  const spent = performance.now() - startedAt - preprocess_ms - postprocess_ms;
  // A loader that measures nothing itself spent all of its time on inference, as far as anybody knows.
  const inferMs = infer_ms || Math.max(0, spent);
  report(
    batch.map(({ key, readMs }, index): MemberOutcome => {
      const outcome = outcomes[index]!;
      const timings = { read_ms: readMs, preprocess_ms, infer_ms: inferMs, postprocess_ms };
      const batch_size = batch.length;
      if (outcome instanceof Error)
        return { key, error: toWire(asInfermillError(outcome)), timings, batch_size };
      const outputs = outputsOf(outcome);
      if (outputs.length > 0) return { key, response: outcome, outputs, timings, batch_size };
      return { key, response: outcome, timings, batch_size };
    }),
  );
}

async function runParts(batch: ReadMember[], size: number): Promise<void> {
  for (let start = 0; start < batch.length; start += size) await runBatch(batch.slice(start, start + size));
}

function lowerBatchLimit(tried: number, error: Error): void {
  batchLimit = Math.max(1, tried >> 1);
  const reason = `${tried} at once: ${error.message}`.slice(0, 500);
  send({ type: "batch_limit", batch_limit: batchLimit, reason });
}

let progressAt = 0;

function tellProgress(): void {
  const now = performance.now();
  if (now - progressAt < PROGRESS_MS) return;
  progressAt = now;
  send({ type: "progress" });
}

let unsent: MemberOutcome[] = [];
let lastSentAt = 0;
let sendTimer: NodeJS.Timeout | undefined;
/** Predictions that were received and not reported yet. */
let underWay = 0;

function report(outcomes: MemberOutcome[]): void {
  unsent.push(...outcomes);
  underWay -= outcomes.length;
  if (underWay === 0 || performance.now() - lastSentAt >= COALESCE_MS) return sendOutcomes();
  sendTimer ??= setTimeout(sendOutcomes, COALESCE_MS);
}

function sendOutcomes(): void {
  clearTimeout(sendTimer);
  sendTimer = undefined;
  lastSentAt = performance.now();
  const outcomes = unsent;
  unsent = [];
  for (const frame of encodeOutcomes(encodeAll(outcomes))) write(frame);
}

function send(message: object): void {
  write(encodeFrame(JSON.stringify(message)));
}

function write(parts: readonly Uint8Array[]): void {
  if (parts.length === 1) return void pipe.write(parts[0]!);
  pipe.cork();
  for (const part of parts) pipe.write(part);
  pipe.uncork();
}

async function close(): Promise<void> {
  await loader?.close().catch(() => {});
  end();
}

/** The process ends when the last byte is out and nothing else keeps it. */
function end(): void {
  isClosing = true;
  pipe.end();
  pipe.unref();
}

/** Lets `limit` callers continue at a time, the urgent first, else in the order in which they came. */
class Semaphore {
  #free: number;
  readonly #urgent: (() => void)[] = [];
  readonly #others: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async acquire(isUrgent: boolean): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => (isUrgent ? this.#urgent : this.#others).push(resolve));
  }

  release(): void {
    const next = this.#urgent.shift() ?? this.#others.shift();
    if (next) next();
    else this.#free++;
  }
}
