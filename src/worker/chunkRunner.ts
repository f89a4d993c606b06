/**
 * Runs the chunks of a bulk queue: hands their entries to the pool one by one, each with an outcome of its own, and keeps
 * those in Redis as they come. A chunk that comes again, after the loss of its worker or for entries that are to be tried
 * again, runs only what has no outcome yet.
 */
import { WaitingError, type Job } from "../queue/bullmqPackage.ts";
import type { Logger } from "pino";
import { bulkOutputLink } from "../core/links.ts";
import type { PredictionOutput } from "../core/prediction.ts";
import type { Output } from "../core/request.ts";
import { RetryableError, toInfermillError, type InfermillError } from "../errors.ts";
import {
  failedRow,
  readRow,
  succeededRow,
  type BulkChunkData,
  type BulkEntryData,
} from "../queue/bulkChunks.ts";
import { untilTaken } from "../queue/bullmq.ts";
import { isUploaded, type InputRef, type InputStore } from "../queue/inputs.ts";
import { bytesInRedis, type OutputStore } from "../queue/outputs.ts";
import type { KeepOutcome } from "../queue/scripts.ts";
import { NotStartedError, type EnginePool } from "./enginePool.ts";
import type { TaskResult, TaskRunner } from "./runTask.ts";

/** Rows are kept together that come within this time, up to this size. */
const KEEP_MS = 200;
const KEEP_BYTES = 256 * 1024;

export type ChunkJob = Job<BulkChunkData, number>;

export interface ChunkRunnerOptions {
  modelName: string;
  pool: EnginePool;
  tasks: TaskRunner;
  inputs: InputStore;
  outputs: OutputStore;
  keepRows: (chunk: string, rows: readonly string[]) => Promise<KeepOutcome>;
  /** Those of a chunk that was begun before, and whether it was withdrawn since. */
  readRows: (chunk: string) => Promise<{ rows: string[]; isWithdrawn: boolean }>;
  /** Longest run of an entry in milliseconds. */
  timeoutMs: number;
  /** Is told of every chunk of which something ended while it continues. */
  onRows: (chunk: string) => void;
  /** Is told whenever `held` changes much. */
  onHeld: () => void;
  /** Is told of every entry that failed for good. */
  onFailure: (id: string, error: InfermillError) => void;
  onFault: (error: Error) => void;
  log: Logger;
}

export interface ChunkRunner {
  /**
   * @returns how many entries the chunk has
   * @throws WaitingError, or the InfermillError for which some of its entries are to be tried again
   */
  run(job: ChunkJob, token?: string): Promise<number>;
  /** Chunks that run, and entries of them that have not ended. */
  readonly held: { readonly chunks: number; readonly entries: number };
}

export function createChunkRunner(options: ChunkRunnerOptions): ChunkRunner {
  const { modelName, pool, tasks, timeoutMs, readRows, onHeld, onFailure, onFault } = options;
  const held = { chunks: 0, entries: 0 };

  async function runChunk(job: ChunkJob, token?: string): Promise<number> {
    const { entries } = job.data;
    const known = job.attemptsStarted > 1 ? await readRows(job.id!) : undefined;
    if (known?.isWithdrawn) return entries.length;
    const ended = new Set(known?.rows.map((row) => readRow(row).index));
    const left = ended.size > 0 ? entries.filter(({ index }) => !ended.has(index)) : entries;
    held.chunks++;
    held.entries += left.length;
    onHeld();
    try {
      await runEntries(job, left, token);
      return entries.length;
    } finally {
      held.chunks--;
      onHeld();
    }
  }

  async function runEntries(
    job: ChunkJob,
    entries: readonly BulkEntryData[],
    token: string | undefined,
  ): Promise<void> {
    const { run: runId, request: shared } = job.data;
    const { priority, timestamp } = job;
    const isLastTry = job.attemptsMade + 1 >= (job.opts.attempts ?? 1);
    const withdrawal = new AbortController();
    const { signal } = withdrawal;
    const rows = createRows(job.id!, options, () => {
      withdrawal.abort();
      pool.withdraw(signal);
    });
    let again: InfermillError | undefined;
    let isGivenBack = false;

    // Tens of thousands in a second: a promise less for each is worth a callback.
    function runEntry(entry: BulkEntryData): Promise<void> {
      const { index, request: own, inputs } = entry;
      const id = `${runId}-${index}`;
      const request = own ? { ...shared, ...own } : shared;
      return tasks.run({ id, request, priority, timeoutMs, signal }, inputs, timestamp).then(
        (result) => {
          held.entries--;
          if (result.outputs.length === 0) return onSucceeded(entry, result, NO_OUTPUTS);
          return storeOutputs(runId, index, result.outputs)
            .then((stored) => onSucceeded(entry, result, stored))
            .catch((error: unknown) => onFailed(id, entry, error));
        },
        (error: unknown) => {
          held.entries--;
          return onFailed(id, entry, error);
        },
      );
    }

    function onSucceeded({ index, inputs }: BulkEntryData, result: TaskResult, outputs: StoredOutputs) {
      const { response, timings } = result;
      const row = succeededRow(index, { response, outputs: outputs.described, timings });
      pool.addResponseBytes(row.length + outputs.bytes);
      return rows.add(row, inputs);
    }

    function onFailed(id: string, { index, inputs }: BulkEntryData, thrown: unknown) {
      const error = toInfermillError(thrown, (detail, cause) => new RetryableError(detail, cause));
      if (error instanceof NotStartedError) isGivenBack = true;
      else if (error.retryable && !isLastTry) again = error;
      else {
        onFailure(id, error);
        return rows.add(failedRow(index, error.toSummary()), inputs);
      }
      return undefined;
    }

    await Promise.all(entries.map(runEntry));
    await rows.end();
    if (signal.aborted) return;
    if (isGivenBack) {
      await job.moveToWait(token);
      throw new WaitingError();
    }
    if (again) throw again;
  }

  async function storeOutputs(run: string, entry: number, made: readonly Output[]): Promise<StoredOutputs> {
    const index = String(entry);
    const refs = await untilTaken(
      () => options.outputs.write({ model: modelName, bulkRun: run, index }, made),
      onFault,
    );
    const described = refs.map(({ name, media_type, bytes, data }) => ({
      name,
      media_type,
      bytes,
      ...(data !== undefined && { data }),
      url: bulkOutputLink(run, index, name, media_type),
    }));
    return { described, bytes: bytesInRedis(refs) };
  }

  return { run: runChunk, held };
}

interface StoredOutputs {
  described: PredictionOutput[];
  /** What they take of Redis. */
  bytes: number;
}

const NO_OUTPUTS: StoredOutputs = { described: [], bytes: 0 };

/** How entries of a chunk ended: gathered for a moment, then kept in Redis. */
function createRows(
  chunk: string,
  { keepRows, inputs, onRows, onFault, log }: ChunkRunnerOptions,
  onUnwanted: () => void,
) {
  let rows: string[] = [];
  let uploads: InputRef[] = [];
  let bytes = 0;
  let timer: NodeJS.Timeout | undefined;
  /** One after the other. */
  let keeping: Promise<void> = Promise.resolve();

  async function keepGathered(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    if (rows.length === 0) return;
    const [kept, ended] = [rows, uploads];
    rows = [];
    uploads = [];
    bytes = 0;
    if ((await untilTaken(() => keepRows(chunk, kept), onFault)) !== "kept") onUnwanted();
    // Only now, so that an input outlives every worker that may still need it.
    if (ended.length > 0)
      inputs.remove(ended).catch((error: unknown) => log.warn({ err: error, chunk }, "input not removed"));
  }

  const keep = () => (keeping = keeping.then(keepGathered));

  return {
    /** Resolves when there is room for more; undefined where there is. */
    add(row: string, refs: readonly InputRef[]): Promise<void> | undefined {
      rows.push(row);
      for (const ref of refs) if (isUploaded(ref)) uploads.push(ref);
      bytes += row.length;
      if (bytes >= KEEP_BYTES) return keep();
      timer ??= setTimeout(() => {
        keep().then(() => onRows(chunk), onFault);
      }, KEEP_MS);
      return undefined;
    },
    /** Resolves when all are kept. */
    end: keep,
  };
}
