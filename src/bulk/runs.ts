/**
 * The bulk runs as a whole: start, read, list, cancel, remove. What was asked
 * for and what came out are files of the run's folder; Redis holds how each run
 * stands, who works on it, and the queue of those that wait for a coordinator.
 */
import { bulkRunLinks } from "../core/links.ts";
import { openQueue } from "../queue/bullmq.ts";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, QueueKeys } from "../queue/bullmqPackage.ts";
import type { Config } from "../config/schema.ts";
import {
  BulkRunNotFoundError,
  IdempotencyConflictError,
  InfermillError,
  NotResumableError,
  RedisUnavailableError,
  type ErrorSummary,
} from "../errors.ts";
import { connectRedis, execAll, reachRedis, type RedisClient } from "../redis/connections.ts";
import { BULK_QUEUE, createNames, isBulkRunId, type Names } from "../queue/names.ts";
import { createOutputStore, type OutputStore } from "../queue/outputs.ts";
import { toIsoTime } from "../queue/jobs.ts";
import { defineScripts, type Scripts } from "../queue/scripts.ts";
import type { Resumption } from "./limits.ts";
import { sendSpan } from "../queue/spans.ts";
import { inSpan, jobTelemetry } from "../tracing/tracing.ts";
import { round } from "./countedResults.ts";
import { bulkFolder, noSuchRun, openRunFolder, type RunEnd, type RunFolder } from "./runFolder.ts";
import { folderName, type BulkEntry, type BulkSpec } from "./spec.ts";
import { BulkSummaries } from "./summary.ts";
import type { BulkSummary } from "../core/bulkSummary.ts";
import {
  hasEnded,
  type BulkCounts,
  type BulkRun,
  type BulkStatus,
  type SkippedCounts,
} from "../core/bulkRun.ts";

/** How long the owner of a run may be silent before another process may take it over. */
export const OWNER_TTL_MS = 10_000;
/** A run that can't continue is tried again this often, in case that its fault passes. */
const ATTEMPTS = 5;
const RETRY_DELAY_MS = 5000;
/** Coordinators that a run may cost before it ends as failed. */
const MAX_LOSSES = 2;
/** A coordinator that worked on a run for longer was not killed by it. */
const STEADY_MS = 10 * 60_000;
/** How long a run that has just ended may still be its coordinator's. */
const LET_GO_MS = 5000;
const LET_GO_LOOK_MS = 50;

/** The run kills whoever works on it. */
export class PoisonousRunError extends InfermillError {
  override readonly code = "poisonous_run";
  override readonly title = "The bulk run killed its coordinators";
}

/** What the owner of a run reports of it. */
export interface BulkState extends BulkCounts {
  status: "walking" | "running";
  /** What the walk leaves out. */
  skipped: SkippedCounts;
  /** Entries per second over the last seconds; 0 while unknown. */
  rate: number;
}

/** Renewed by its owner, taken by another when the owner was silent for too long. Answers whether to stop. */
const HEARTBEAT = `
local owner, run = KEYS[1], KEYS[2]
local held = redis.call("GET", owner)
if held and held ~= ARGV[1] then return "taken" end
-- Ended or removed by another process while this one was asleep.
if redis.call("EXISTS", run) == 0 or redis.call("HEXISTS", run, "finished") == 1 then return "taken" end
redis.call("SET", owner, ARGV[1], "PX", ARGV[2])
redis.call("HSETNX", run, "started", ARGV[3])
redis.call("HSET", run, unpack(ARGV, 4))
return redis.call("HGET", run, "cancel") and "cancel" or "continue"`;

/** The first end of a run stays. */
const END = `
local run = KEYS[1]
if redis.call("EXISTS", run) == 1 and redis.call("HSETNX", run, "finished", ARGV[1]) == 1 then
  redis.call("HSET", run, unpack(ARGV, 2))
end
return redis.call("HGETALL", run)`;

/**
 * Counts how often work on a run began and was never ended in order, without an entry having ended in between: its
 * coordinator died or hung. One that lived for long was not killed by the run.
 */
const BEGIN = `
local run, now, steadyMs = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local known = redis.call("HMGET", run, "begun", "begun_at", "begun_done", "updated", "succeeded", "failed", "status")
local done = tostring((tonumber(known[5]) or 0) + (tonumber(known[6]) or 0)) .. (known[7] == "running" and "r" or "")
local begun = tonumber(known[1]) or 0
local lived = (tonumber(known[4]) or 0) - (tonumber(known[2]) or 0)
if known[3] ~= done or lived > steadyMs then begun = 0 end
redis.call("HSET", run, "begun", begun + 1, "begun_at", now, "begun_done", done)
return begun`;

const RELEASE = `if redis.call("GET", KEYS[1]) == ARGV[1] then redis.call("DEL", KEYS[1]) end`;

/** The run that a key stands for: the first that claims it, unless that one is known to be gone. */
const CLAIM = `
local first = redis.call("GET", KEYS[1])
if first and first ~= ARGV[2] then return first end
redis.call("SET", KEYS[1], ARGV[1])
return ARGV[1]`;

type ScriptedRedis = RedisClient & {
  bulkHeartbeat(...keysAndArguments: (string | number)[]): Promise<"taken" | "cancel" | "continue">;
  bulkEnd(...keysAndArguments: (string | number)[]): Promise<string[]>;
  bulkBegin(...keysAndArguments: (string | number)[]): Promise<number>;
  bulkRelease(...keysAndArguments: string[]): Promise<void>;
  bulkClaim(...keysAndArguments: string[]): Promise<string>;
};

/** Is notified of every run that ended, at least once; `run.status` says how. */
export type OnRunEnded = (run: BulkRun, spec: BulkSpec) => Promise<void>;

export class BulkRuns {
  /** BullMQ's queue of the runs, for the dashboard. */
  readonly queue: Queue;
  readonly #config: Config;
  readonly #names: Names;
  readonly #redis: ScriptedRedis;
  readonly #scripts: Scripts;
  readonly #outputs: OutputStore;
  readonly #onEnded: OnRunEnded | undefined;
  readonly #summaries = new BulkSummaries();

  /** Use `openBulkRuns`. */
  constructor(config: Config, redis: RedisClient, onEnded: OnRunEnded | undefined) {
    this.#config = config;
    this.#names = createNames(config.redis_prefix, redis.isCluster);
    redis.defineCommand("bulkHeartbeat", { numberOfKeys: 2, lua: HEARTBEAT });
    redis.defineCommand("bulkEnd", { numberOfKeys: 1, lua: END });
    redis.defineCommand("bulkBegin", { numberOfKeys: 1, lua: BEGIN });
    redis.defineCommand("bulkRelease", { numberOfKeys: 1, lua: RELEASE });
    redis.defineCommand("bulkClaim", { numberOfKeys: 1, lua: CLAIM });
    this.#redis = redis as ScriptedRedis;
    this.#scripts = defineScripts(redis);
    this.#outputs = createOutputStore(config, this.#names, redis);
    this.#onEnded = onEnded;
    this.queue = openQueue(BULK_QUEUE, redis, this.#names.queuePrefix(undefined));
  }

  folder(id: string): RunFolder {
    return openRunFolder(this.#config, id);
  }

  resultsFile(spec: BulkSpec): string {
    return spec.results_file ?? join(this.folder(spec.id).path, "results.ndjson");
  }

  /**
   * Writes the run down and enqueues it for a coordinator; under an `idempotency_key` that was used before, nothing new.
   * @param entries of a manifest; a folder is walked by whoever works on the run
   * @param fingerprint of what is asked for, called once the entries were read
   * @returns the run, which is an earlier one where its key stands for that
   * @throws IdempotencyConflictError where the earlier one was asked for something else, and what `entries` throws
   */
  async start(
    spec: BulkSpec,
    entries: AsyncIterable<BulkEntry> | undefined,
    fingerprint: () => string,
  ): Promise<BulkRun> {
    const asked = await this.#create(spec, entries, fingerprint);
    const key = spec.idempotency_key;
    if (key !== undefined) {
      const first = await this.#claim(key, spec.id);
      if (first.id !== spec.id) {
        await this.remove(spec.id);
        return this.#startAgain(first, asked);
      }
    }
    await this.enqueue(spec);
    return this.read(spec.id);
  }

  /** The run that a key stands for, from now on this one where there was none or it is gone. */
  async #claim(key: string, id: string): Promise<{ id: string; fingerprint: string }> {
    let gone = "";
    for (;;) {
      const first = await reachRedis(() => this.#redis.bulkClaim(this.#names.bulkIdempotency(key), id, gone));
      const fingerprint = await reachRedis(() => this.#redis.hget(this.#names.bulkRun(first), "fingerprint"));
      if (fingerprint !== null) return { id: first, fingerprint };
      if (first === gone || first === id) throw noSuchRun(first);
      gone = first;
    }
  }

  async #startAgain(first: { id: string; fingerprint: string }, asked: string): Promise<BulkRun> {
    if (first.fingerprint !== asked)
      throw new IdempotencyConflictError(
        `the bulk run ${first.id} was started by another request; use a new key, or send the same request again`,
      );
    // It may have got no further than here.
    const { run, spec } = await this.#find(first.id);
    if (run.status === "queued") await this.enqueue(spec);
    return run;
  }

  async #create(
    spec: BulkSpec,
    entries: AsyncIterable<BulkEntry> | undefined,
    fingerprint: () => string,
  ): Promise<string> {
    const folder = this.folder(spec.id);
    try {
      await folder.writeSpec(spec);
      const total = (entries && (await folder.writeEntries(() => entries))?.total) ?? 0;
      const asked = spec.idempotency_key === undefined ? "" : fingerprint();
      await this.register(spec, total, asked);
      return asked;
    } catch (error) {
      await folder.remove();
      throw error;
    }
  }

  /** Makes the run known in Redis, where it isn't yet. */
  async register(spec: BulkSpec, total: number, fingerprint = ""): Promise<void> {
    const counts = { total, succeeded: 0, failed: 0, rate: 0 };
    const fields = {
      spec: JSON.stringify(spec),
      status: "queued",
      ...counts,
      ...(fingerprint && { fingerprint }),
    };
    await reachRedis(async () => {
      if (await this.#redis.exists(this.#names.bulkRun(spec.id))) return;
      await this.#redis
        .multi()
        .hset(this.#names.bulkRun(spec.id), fields)
        .zadd(this.#names.bulkRuns, spec.created, spec.id)
        .exec();
    });
  }

  async enqueue({ id, model, source }: BulkSpec): Promise<void> {
    const add = () =>
      this.queue.add(
        model,
        { id, model, source },
        {
          ...jobTelemetry(),
          jobId: id,
          attempts: ATTEMPTS,
          backoff: { type: "exponential", delay: RETRY_DELAY_MS },
          removeOnComplete: { age: this.#config.bulk_ttl_seconds },
          removeOnFail: { age: this.#config.bulk_ttl_seconds },
        },
      );
    await inSpan(`send ${BULK_QUEUE}`, sendSpan(BULK_QUEUE, id), () => reachRedis(add));
  }

  /**
   * Enqueues the runs that were written down, or reopened, by a process that died before it could enqueue them; one whose
   * key stands for another by now was asked for again, and is removed.
   * @returns what it has enqueued
   */
  async enqueueForgotten(): Promise<string[]> {
    const enqueued: string[] = [];
    for (const spec of await this.#findUnenqueued()) {
      const { id, idempotency_key: key } = spec;
      if (key !== undefined && (await this.#claim(key, id)).id !== id) {
        await this.remove(id);
        continue;
      }
      await this.enqueue(spec);
      enqueued.push(id);
    }
    return enqueued;
  }

  /** Runs of the service; those of the command line are worked on there. */
  async #findUnenqueued(): Promise<BulkSpec[]> {
    const ids = await reachRedis(() => this.#redis.zrange(this.#names.bulkRuns, 0, "-1"));
    const pipeline = this.#redis.pipeline();
    for (const id of ids) pipeline.hget(this.#names.bulkRun(id), "status").exists(this.queue.toKey(id));
    const replies = await reachRedis(() => execAll(pipeline));
    const found = ids.filter((_, at) => replies[2 * at] === "queued" && replies[2 * at + 1] === 0);
    const specs = await Promise.all(found.map((id) => this.readSpec(id)));
    return specs.filter((spec) => spec.results_file === undefined);
  }

  /** @throws BulkRunNotFoundError */
  async read(id: string): Promise<BulkRun> {
    return (await this.#find(id)).run;
  }

  /** @throws BulkRunNotFoundError */
  async summarize(id: string): Promise<BulkSummary> {
    const { run, seconds, spec } = await this.#find(id);
    const files = { spec, folder: this.folder(id), resultsFile: this.resultsFile(spec) };
    return this.#summaries.read(run, seconds, files);
  }

  /** @throws BulkRunNotFoundError */
  async readSpec(id: string): Promise<BulkSpec> {
    return (await this.#find(id)).spec;
  }

  /** The newest first; those that ended with another Redis are found by their folders. */
  async list(limit: number): Promise<BulkRun[]> {
    const folders = (await readdir(bulkFolder(this.#config)).catch(() => [])).filter(isBulkRunId);
    return reachRedis(async () => {
      const known = await this.#redis.zrevrange(this.#names.bulkRuns, 0, limit - 1);
      // Ids begin with the time.
      const ids = [...new Set([...known, ...folders])].toSorted().toReversed().slice(0, limit);
      const pipeline = this.#redis.pipeline();
      for (const id of ids) pipeline.hgetall(this.#names.bulkRun(id));
      const replies = (await pipeline.exec()) ?? [];
      const runs = await Promise.all(
        replies.map(async ([, reply], at) => {
          const fields = reply as Record<string, string>;
          return fields["spec"] ? describeRun(fields) : (await this.folder(ids[at]!).readEnd())?.run;
        }),
      );
      return runs.filter((run) => run !== undefined);
    });
  }

  /**
   * Asks the coordinator to stop a run, or ends it here where none works on it. What is done stays.
   * @returns the run where it was ended here
   */
  async cancel(id: string): Promise<BulkRun | undefined> {
    const spec = await this.readSpec(id);
    await reachRedis(() => this.#redis.hset(this.#names.bulkRun(id), "cancel", 1));
    if (!(await this.#isFree(id))) return undefined;
    await this.#clearBulkQueue(spec);
    const run = await this.#markEnded(id, { status: "cancelled" });
    // Its job goes only once the webhook of the end is queued: otherwise a coordinator takes it, and sends it.
    try {
      await this.#onEnded?.(run, spec);
      await reachRedis(() => this.queue.remove(id));
    } catch (error) {
      if (!(error instanceof RedisUnavailableError)) throw error;
    }
    return run;
  }

  /** Which of these runs are to be cancelled. */
  async findCancelled(ids: readonly string[]): Promise<string[]> {
    const pipeline = this.#redis.pipeline();
    for (const id of ids) pipeline.hexists(this.#names.bulkRun(id), "cancel");
    const marks = await reachRedis(() => execAll(pipeline));
    return ids.filter((_, at) => marks[at] === 1);
  }

  /** Whether nobody works on a run. */
  async #isFree(id: string): Promise<boolean> {
    const held = [this.#names.bulkOwner(id), this.queue.toKey(`${id}:lock`)];
    return (await reachRedis(() => this.#redis.exists(held))) === 0;
  }

  /** Takes out of the bulk queue what an owner that died has left there. */
  async #clearBulkQueue({ id, model }: BulkSpec): Promise<void> {
    const keys = new QueueKeys(this.#names.bulkQueuePrefix(model));
    await reachRedis(() => this.#scripts.clearRun((type) => keys.toKey(model, type), id));
  }

  /** Removes an ended run, its files and all. */
  async remove(id: string): Promise<void> {
    await this.folder(id).remove();
    await this.#outputs.removeBulkRun(id);
    const spec = await this.readSpec(id).catch(ignoreMissing);
    if (spec) await this.#clearBulkQueue(spec);
    const key = spec?.idempotency_key;
    if (key !== undefined)
      await reachRedis(() => this.#redis.bulkRelease(this.#names.bulkIdempotency(key), id));
    await reachRedis(async () => {
      await this.#redis
        .multi()
        .del(this.#names.bulkRun(id), this.#names.bulkOwner(id))
        .zrem(this.#names.bulkRuns, id)
        .exec();
      await (await this.queue.getJob(id))?.remove().catch(() => {});
    });
  }

  /** Removes the runs that ended longer ago than `bulk_ttl_seconds`; answers how many. */
  async sweep({ except }: { except?: string } = {}): Promise<number> {
    const before = Date.now() - this.#config.bulk_ttl_seconds * 1000;
    let removed = 0;
    const ids = await reachRedis(() => this.#redis.zrangebyscore(this.#names.bulkRuns, "-inf", before));
    for (const id of ids.filter((each) => each !== except)) {
      const fields = await reachRedis(() => this.#redis.hgetall(this.#names.bulkRun(id)));
      // A run of the command line that was interrupted has no end; its last sign of life counts.
      const lastSign = Number(fields["finished"] ?? fields["updated"] ?? 0);
      const isQueued = fields["finished"] === undefined && (await this.queue.getJob(id)) !== undefined;
      if (isQueued || lastSign > before) continue;
      await this.remove(id);
      removed++;
    }
    return removed + (await this.#sweepFolders(before));
  }

  /** Folders of runs that Redis has lost. */
  async #sweepFolders(before: number): Promise<number> {
    const parent = bulkFolder(this.#config);
    let removed = 0;
    for (const id of (await readdir(parent).catch(() => [])).filter(isBulkRunId)) {
      const { mtimeMs } = await stat(join(parent, id)).catch(() => ({ mtimeMs: Infinity }));
      if (mtimeMs > before || (await reachRedis(() => this.#redis.exists(this.#names.bulkRun(id))))) continue;
      await this.folder(id).remove();
      removed++;
    }
    return removed;
  }

  /**
   * Claims a run: of several tokens only the first is told to continue, until it was silent for OWNER_TTL_MS. Tells how
   * the run stands, where that is known.
   */
  async heartbeat(id: string, token: string, state?: BulkState): Promise<"taken" | "cancel" | "continue"> {
    const now = Date.now();
    const fields = { updated: now, ...(state && fieldsOf(state)) };
    return reachRedis(() =>
      this.#redis.bulkHeartbeat(
        this.#names.bulkOwner(id),
        this.#names.bulkRun(id),
        token,
        OWNER_TTL_MS,
        now,
        ...Object.entries(fields).flat(),
      ),
    );
  }

  /** Whether the last coordinator that worked on a run was lost. */
  async isSuspect(id: string): Promise<boolean> {
    return reachRedis(async () => (await this.#redis.hexists(this.#names.bulkRun(id), "begun")) === 1);
  }

  /**
   * Notes that a coordinator begins to work on a run, until `endWork`.
   * @throws PoisonousRunError where it was the end of MAX_LOSSES of them
   */
  async beginWork(id: string): Promise<void> {
    const losses = await reachRedis(() =>
      this.#redis.bulkBegin(this.#names.bulkRun(id), Date.now(), STEADY_MS),
    );
    if (losses >= MAX_LOSSES)
      throw new PoisonousRunError(
        `${losses} coordinators died or hung while they worked on it, and none of its entries ended meanwhile; look at its folder, glob and manifest, then resume it or start it anew`,
      );
  }

  /** The coordinator lets go of the run in order. */
  async endWork(id: string): Promise<void> {
    await reachRedis(() => this.#redis.hdel(this.#names.bulkRun(id), "begun", "begun_at", "begun_done"));
  }

  /** Lets go of a run. */
  async release(id: string, token: string): Promise<void> {
    await reachRedis(() => this.#redis.bulkRelease(this.#names.bulkOwner(id), token));
  }

  /** Ends a run; what it ended as first stays. Who listens is told, again where it is ended again after a crash. */
  async end(
    id: string,
    status: "completed" | "cancelled" | "failed",
    counts?: BulkCounts & { skipped: SkippedCounts },
    error?: ErrorSummary,
  ): Promise<void> {
    const fields = {
      status,
      ...(counts && fieldsOf(counts)),
      ...(error && { error: JSON.stringify(error) }),
    };
    const run = await this.#markEnded(id, fields);
    await this.#onEnded?.(run, await this.readSpec(id));
  }

  async #markEnded(id: string, fields: Record<string, string | number>): Promise<BulkRun> {
    const known = await reachRedis(() =>
      this.#redis.bulkEnd(this.#names.bulkRun(id), Date.now(), ...Object.entries(fields).flat()),
    );
    if (known.length === 0) throw noSuchRun(id);
    const pairs = known.flatMap((key, index) => (index % 2 === 0 ? [[key, known[index + 1]!]] : []));
    const ended = Object.fromEntries(pairs) as Record<string, string>;
    const run = describeRun(ended);
    // For who finds the folder without this Redis; the end itself does not depend on it.
    await this.folder(id)
      .writeEnd({ run, seconds: secondsWorked(ended) })
      .catch(() => {});
    return run;
  }

  /** What of a run's limits is over since it was resumed. */
  async readResumption(id: string): Promise<Resumption> {
    const [resumed, failed] = await reachRedis(() =>
      this.#redis.hmget(this.#names.bulkRun(id), "resumed", "failed_before"),
    );
    return { isResumed: resumed === "1", failedBefore: Number(failed ?? 0) };
  }

  /** Makes an ended run one that continues; the time for which nobody worked on it is none of its own. */
  async reopen(id: string): Promise<void> {
    const run = this.#names.bulkRun(id);
    await this.folder(id).removeEnd();
    await reachRedis(async () => {
      const [finished, updated, failed] = await this.#redis.hmget(run, "finished", "updated", "failed");
      // One that was only interrupted continues as it was.
      const resumed = finished ? { resumed: 1, failed_before: failed ?? 0 } : {};
      const lastSign = Number(finished ?? updated ?? 0);
      await this.#redis
        .multi()
        .hdel(run, "finished", "cancel", "error")
        .hset(run, { status: "queued", ...resumed })
        .hincrby(run, "idle", lastSign > 0 ? Math.max(0, Date.now() - lastSign) : 0)
        .exec();
    });
  }

  /**
   * Puts a run that failed or was cancelled into the queue again; it continues behind the lines that it has.
   * @throws BulkRunNotFoundError
   * @throws NotResumableError where it continues by itself, is complete, or is the command line's
   */
  async resume(id: string): Promise<void> {
    const spec = await this.readSpec(id);
    if (spec.results_file !== undefined)
      throw new NotResumableError(
        `${id} was started on the command line; resume it there: infermill bulk --resume ${id}`,
      );
    const { status } = await this.read(id);
    if (status === "completed") throw new NotResumableError(`${id} is complete: every entry has its line`);
    const job = await reachRedis(() => this.queue.getJob(id));
    // Without a job it was left behind in the middle of this.
    if (!hasEnded(status) && job) throw new NotResumableError(`${id} has not ended: it is ${status}`);
    await this.#removeEndedJob(id);
    await this.register(spec, 0);
    await this.reopen(id);
    await this.enqueue(spec);
  }

  async #removeEndedJob(id: string): Promise<void> {
    const deadline = Date.now() + LET_GO_MS;
    for (;;) {
      const job = await reachRedis(() => this.queue.getJob(id));
      if (!job) return;
      try {
        return await job.remove();
      } catch (error) {
        if (Date.now() > deadline)
          throw new NotResumableError(`${id} is still held by its coordinator; try again`, { cause: error });
        await sleep(LET_GO_LOOK_MS);
      }
    }
  }

  async close(): Promise<void> {
    await this.queue.close();
    this.#redis.disconnect();
  }

  /** By Redis, or where that does not know it by the end that stands in its folder. */
  async #find(id: string): Promise<RunEnd & { spec: BulkSpec }> {
    const fields = await reachRedis(() => this.#redis.hgetall(this.#names.bulkRun(id)));
    if (fields["spec"]) {
      const spec = JSON.parse(fields["spec"]) as BulkSpec;
      return { spec, run: describeRun(fields), seconds: secondsWorked(fields) };
    }
    const folder = this.folder(id);
    const end = await folder.readEnd();
    if (!end) throw noSuchRun(id);
    return { ...end, spec: await folder.readSpec() };
  }
}

/** @param onEnded called by the process that ends a run */
export async function openBulkRuns(
  config: Config,
  redisUrl: string,
  onEnded?: OnRunEnded,
): Promise<BulkRuns> {
  return new BulkRuns(
    config,
    await connectRedis({ url: redisUrl, tls: config.redis_tls }, "producer"),
    onEnded,
  );
}

/** As Redis holds them. */
function fieldsOf({
  skipped,
  rate,
  ...rest
}: Partial<BulkState> & { skipped: SkippedCounts }): Record<string, string | number> {
  return { ...rest, skipped: JSON.stringify(skipped), ...(rate !== undefined && { rate: rate.toFixed(2) }) };
}

function ignoreMissing(error: unknown): undefined {
  if (!(error instanceof BulkRunNotFoundError)) throw error;
}

/** From the beginning of a run to its end or last sign of life, without the time in between for which it was at rest. */
function secondsWorked(fields: Record<string, string | undefined>): number | null {
  const [started, finished, updated, idle] = ["started", "finished", "updated", "idle"].map((key) =>
    Number(fields[key] ?? 0),
  ) as [number, number, number, number];
  return started ? Math.max(0, (finished || updated) - started - idle) / 1000 : null;
}

function describeRun(fields: Record<string, string | undefined>): BulkRun {
  const spec = JSON.parse(fields["spec"]!) as BulkSpec;
  const status = fields["status"] as BulkStatus;
  const [total, succeeded, failed] = ["total", "succeeded", "failed"].map((key) =>
    Number(fields[key] ?? 0),
  ) as [number, number, number];
  const done = succeeded + failed;
  const isOver = hasEnded(status);
  const started = Number(fields["started"] ?? 0);
  const finished = Number(fields["finished"] ?? 0);
  const seconds = secondsWorked(fields) ?? 0;
  const rate = isOver ? (seconds > 0 ? done / seconds : 0) : Number(fields["rate"] ?? 0);
  return {
    id: spec.id,
    model: spec.model,
    status,
    folder: folderName(spec),
    glob: (spec.source.kind === "folder" && spec.source.glob) || null,
    priority: spec.priority,
    max_failures: spec.limits?.max_failures ?? null,
    deadline: fields["resumed"] ? null : toIsoTime(spec.limits?.deadline),
    metadata: spec.metadata ?? {},
    counts: { total, done, succeeded, failed },
    skipped: fields["skipped"]
      ? (JSON.parse(fields["skipped"]) as SkippedCounts)
      : { total: 0, by_reason: {} },
    progress: status === "queued" || status === "walking" ? null : total === 0 ? 1 : round(done / total, 4),
    images_per_second: rate > 0 ? round(rate, 1) : null,
    eta_seconds: status === "running" && rate > 0 ? Math.ceil((total - done) / rate) : null,
    created_at: new Date(spec.created).toISOString(),
    started_at: toIsoTime(started),
    finished_at: toIsoTime(finished),
    error: fields["error"] ? (JSON.parse(fields["error"]) as ErrorSummary) : null,
    links: bulkRunLinks(spec.id),
  };
}
