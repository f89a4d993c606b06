/**
 * The engine: a child process of a worker that holds one loader instance on one
 * device. Running a model blocks the event loop and may crash the process, so
 * nothing that must stay responsive lives here.
 */
import { performance } from "node:perf_hooks";
import type { Redis } from "ioredis";
import { BadInputError, InfermillError, LoaderError, toInfermillError } from "../../errors.ts";
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
import { connectRedis } from "../../redis/connections.ts";
import { readInputs, type InputSources, type LocalInputRef } from "../../queue/inputs.ts";
import {
  noTimings,
  toWire,
  type EngineSpec,
  type FromEngine,
  type Member,
  type MemberOutcome,
  type ToEngine,
} from "../protocol.ts";

/** Outcomes that come quicker than this travel together. */
const COALESCE_MS = 5;

type Chunk = Extract<ToEngine, { type: "chunk" }>;

/** A request whose inputs were read. */
interface ReadMember {
  key: number;
  request: RequestDictionary;
  readMs: number;
}

let loader: BaseModelLoader;
let sources: InputSources & { redis?: Redis | undefined };
/** Batches that may be under way: the next one's pictures are decoded while one runs, if the loader can. */
let batchSlots: Semaphore;

process.on("message", (message: ToEngine) => {
  if (message.type === "load") void load(message.spec);
  if (message.type === "chunk") void runChunk(message);
  if (message.type === "close") void close();
});
// An engine never outlives its worker. Signals to the whole process group are the worker's to act on.
process.on("disconnect", () => process.exit(0));
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
process.on("SIGHUP", () => {});

async function load(spec: EngineSpec): Promise<void> {
  try {
    const { default: sharp } = await import("sharp");
    // One libvips thread per picture and no cache: the engines together fill the cores.
    sharp.concurrency(1);
    sharp.cache(false);
    loader = await openLoader(spec);
    batchSlots = new Semaphore(loader.overlaps ? 2 : 1);
    sources = {
      ...spec.inputs,
      ...(spec.inputs.redisUrl && { redis: await connectRedis(spec.inputs.redisUrl, "worker") }),
    };
    send({ type: "ready", description: loader.describe(), batchLimit: loader.batchLimit });
  } catch (error) {
    send({
      type: "load failed",
      error: toWire(toInfermillError(error, (detail, options) => new LoaderError(detail, options))),
    });
    process.disconnect();
  }
}

async function runChunk({ members, isUrgent }: Chunk): Promise<void> {
  underWay += members.length;
  const readable = await readMembers(members);
  for (let start = 0; start < readable.length; start += loader.batchLimit) {
    const batch = readable.slice(start, start + loader.batchLimit);
    await batchSlots.acquire(isUrgent);
    void runBatch(batch).finally(() => batchSlots.release());
  }
}

/** Reads the inputs of a chunk. A prediction whose input can't be read fails here, before a batch is formed. */
async function readMembers(members: Member[]): Promise<ReadMember[]> {
  const startedAt = performance.now();
  let inputs: (Buffer | BadInputError)[];
  try {
    inputs = await readInputs(
      members.flatMap((member) => member.inputs),
      sources,
    );
  } catch (error) {
    const wire = toWire(toInfermillError(error, (detail, options) => new InfermillError(detail, options)));
    report(
      members.map(({ key }) => ({
        key,
        error: { ...wire, retryable: true },
        timings: noTimings(),
        batchSize: 0,
      })),
    );
    return [];
  }
  const readMs = performance.now() - startedAt;
  let next = 0;
  return members.flatMap(({ key, request, inputs: refs }) => {
    const { length } = refs;
    const own = inputs.slice(next, (next += length));
    const failed = own.find((input) => input instanceof BadInputError);
    if (failed) {
      report([{ key, error: toWire(failed), timings: { ...noTimings(), read_ms: readMs }, batchSize: 0 }]);
      return [];
    }
    return {
      key,
      request: length > 0 ? attachRequestInputs(request, namedInputs(refs, own as Buffer[])) : request,
      readMs,
    };
  });
}

function namedInputs(refs: readonly LocalInputRef[], bytes: readonly Buffer[]): Input[] {
  return refs.map(({ name = DEFAULT_INPUT, media_type: mediaType = UNKNOWN_MEDIA_TYPE }, index) => ({
    name,
    mediaType,
    bytes: bytes[index]!,
  }));
}

/** Runs a batch; where the loader throws, its two halves, down to the requests that it throws on alone. */
async function runBatch(batch: ReadMember[]): Promise<void> {
  const trace: BatchTrace = { preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 };
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
      const half = batch.length >> 1;
      await runBatch(batch.slice(0, half));
      return runBatch(batch.slice(half));
    }
    outcomes = [error instanceof Error ? error : new Error(String(error))];
  }
  // A loader that measures nothing itself spent all of its time on inference, as far as anybody knows.
  if (trace.infer_ms === 0)
    trace.infer_ms = performance.now() - startedAt - trace.preprocess_ms - trace.postprocess_ms;
  report(
    batch.map(({ key, readMs }, index) => {
      const outcome = outcomes[index]!;
      const timings = { read_ms: readMs, ...trace };
      if (!(outcome instanceof Error)) {
        const outputs = outputsOf(outcome).map(({ name, mediaType, bytes }) => ({
          name,
          mediaType,
          base64: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64"),
        }));
        return {
          key,
          response: outcome,
          ...(outputs.length > 0 && { outputs }),
          timings,
          batchSize: batch.length,
        };
      }
      const failure = toInfermillError(outcome, (detail, options) => new LoaderError(detail, options));
      return { key, error: toWire(failure), timings, batchSize: batch.length };
    }),
  );
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
  try {
    send({ type: "outcomes", outcomes });
  } catch {
    for (const outcome of outcomes) sendAlone(outcome);
  }
}

/** A loader of one's own may answer what JSON can't hold: a BigInt, a circle. */
function sendAlone(outcome: MemberOutcome): void {
  try {
    send({ type: "outcomes", outcomes: [outcome] });
  } catch (error) {
    const { key, timings, batchSize } = outcome;
    const detail = `the response can't be written as JSON: ${(error as Error).message}`;
    send({
      type: "outcomes",
      outcomes: [{ key, error: toWire(new LoaderError(detail)), timings, batchSize }],
    });
  }
}

function send(message: FromEngine): void {
  // A worker that was killed in this moment is noticed by the disconnect.
  if (process.connected) process.send!(message, undefined, undefined, () => {});
}

async function close(): Promise<void> {
  await loader?.close().catch(() => {});
  sources?.redis?.disconnect();
  process.disconnect();
}

/** Lets `limit` callers go on at a time, the urgent first, else in the order in which they came. */
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
