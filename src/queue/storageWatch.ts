/**
 * How full Redis is, or each node of a cluster. Submissions stop while there is still room for what was accepted to be taken, finished and freed:
 * below a share of maxmemory, with the responses counted in that are still to come. Looked at from time to time; what
 * this process has written since is added, so that a burst between two looks can't fill what is left.
 */
import { QueueKeys } from "./bullmqPackage.ts";
import type { Config } from "../config/schema.ts";
import { formatMebibytes } from "../core/byteSize.ts";
import { QueueStorageFullError } from "../errors.ts";
import { parseInfo } from "../redis/check.ts";
import { execAll, type RedisClient } from "../redis/connections.ts";
import type { Names } from "./names.ts";
import { defineScripts } from "./scripts.ts";
import { readWorkerReports } from "./workerReports.ts";

const LOOK_MS = 1000;
/** Nearly full, it is looked at more often. */
const LOOK_CLOSELY_MS = 250;
const CLOSE = 0.7;
/** Without a maxmemory there is nothing to run out of that Redis would tell. */
const LOOK_UNLIMITED_MS = 10_000;
/** Redis gets memory in steps (jemalloc's size classes) of up to a quarter of what it holds. */
const ALLOCATION = 1.25;
/** Of the queue of a model, with two lists and two sets of what is under way. */
const COUNTS_OF_MODEL = 4;
/** What Redis needs for a job beside its data, roughly. */
const JOB_BYTES = 1024;

/** Of a cluster, that of the node that has the least room. */
export interface StorageState {
  /** Bytes that count against `max`, as of the last look. */
  used: number;
  /** Its maxmemory in bytes; 0 where it has none, or doesn't tell. */
  max: number;
  /** Bytes that submissions may fill; 0 where there is no limit. */
  limit: number;
  /** Bytes that the responses of accepted predictions will need, estimated. */
  expected: number;
  /** Why submissions are refused at this moment. */
  problem: string | undefined;
}

/** The model whose keys are meant; undefined for those that belong to no model. */
type Owner = string | undefined;

export interface StorageWatch {
  read(): StorageState;
  /** Whether bytes are worth counting; without a maxmemory they aren't. */
  isLimited(owner: Owner): boolean;
  /**
   * Counts bytes that are about to be written.
   * @throws QueueStorageFullError where they don't fit below the limit
   */
  claim(owner: Owner, bytes: number): void;
  /**
   * Counts predictions that are about to be accepted, with the responses that they will have.
   * @param jobs how many jobs they travel in
   * @throws QueueStorageFullError
   */
  claimPredictions(model: string, count: number, jobs?: number): void;
  close(): void;
}

/** A Redis, or a node of a cluster, as it was seen last. */
interface Node {
  used: number;
  max: number;
  /** Of those whose keys it has. */
  accounts: Account[];
}

interface Account {
  owner: Owner;
  node: Node;
  /** Bytes that the responses of what is under way will need, estimated. */
  expected: number;
  /** Bytes claimed since the last look was sent off. */
  claimed: number;
  /** The largest that was refused and still doesn't fit: until it does, Redis counts as full. */
  refused: number;
}

export async function watchStorage(config: Config, names: Names, redis: RedisClient): Promise<StorageWatch> {
  const { max_memory_share: share } = config;
  const models = Object.keys(config.models);
  const scripts = defineScripts(redis);
  const unseen: Node = { used: 0, max: 0, accounts: [] };
  const accounts = new Map<Owner, Account>(
    [undefined, ...models].map((owner) => [
      owner,
      { owner, node: unseen, expected: 0, claimed: 0, refused: 0 },
    ]),
  );
  /** Those of a group are looked at in one step. */
  const groups: readonly (readonly Owner[])[] = redis.isCluster
    ? [...accounts.keys()].map((owner) => [owner])
    : [[...accounts.keys()]];
  /** Of all that this process claimed: a response is taken to be as large as a request until workers report theirs. */
  const requests = { count: 0, bytes: 0 };
  let responseBytes: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;

  const requestBytes = () => (requests.count > 0 ? requests.bytes / requests.count : 0);
  const expectedEach = () => (responseBytes ?? requestBytes()) * ALLOCATION;
  const limitOf = ({ max }: Node) => Math.floor(max * share);
  const sumOf = (node: Node, what: "expected" | "claimed") =>
    node.accounts.reduce((sum, account) => sum + account[what], 0);
  const filled = (node: Node) => node.used + sumOf(node, "claimed") + sumOf(node, "expected");
  const listNodes = () => [...new Set([...accounts.values()].map(({ node }) => node))];

  async function look(): Promise<void> {
    const before = new Map([...accounts.values()].map((account) => [account, account.claimed]));
    try {
      const looks = await Promise.allSettled(groups.map(lookAt));
      const sights = looks.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
      const isLimited = sights.some(({ max }) => max > 0);
      // Their node may be away, and others not.
      const means = isLimited ? await readResponseBytes().catch(() => undefined) : undefined;
      const nodes = new Map<string, Node>();
      for (const { runId, used, max, underWay } of sights) {
        const node = nodes.get(runId) ?? { used, max, accounts: [] };
        nodes.set(runId, node);
        for (const [owner, count] of underWay) {
          const account = accounts.get(owner)!;
          account.node = node;
          account.claimed -= before.get(account)!;
          account.expected = count * (means?.get(owner) ?? expectedEach());
          node.accounts.push(account);
        }
      }
      for (const account of accounts.values())
        if (problemWith(account, account.refused) === undefined) account.refused = 0;
    } catch {
      // Away, or forbidden: what was known last stays.
    }
    if (isClosed) return;
    const limited = listNodes().filter(({ max }) => max > 0);
    const isClose = limited.some((node) => filled(node) > CLOSE * limitOf(node));
    const delay = limited.length === 0 ? LOOK_UNLIMITED_MS : isClose ? LOOK_CLOSELY_MS : LOOK_MS;
    timer = setTimeout(() => void look(), delay).unref();
  }

  /** The Redis that has the keys of some owners, and how much is under way for each. */
  async function lookAt(owners: readonly Owner[]) {
    // In a cluster, keys take a pipeline to the node that has them.
    const pipeline = redis.pipeline().info("server").info("memory");
    for (const owner of owners) {
      if (owner === undefined) {
        pipeline.exists(names.workers);
        continue;
      }
      const keyOf = (type: string) => new QueueKeys(names.queuePrefix(owner)).toKey(owner, type);
      for (const type of ["wait", "active"]) pipeline.llen(keyOf(type));
      for (const type of ["prioritized", "delayed"]) pipeline.zcard(keyOf(type));
    }
    const [[server, memory, ...counts], bulkCounts] = await Promise.all([
      execAll(pipeline) as Promise<[string, string, ...number[]]>,
      Promise.all(owners.map(countBulkEntries)),
    ]);
    const info = parseInfo(memory);
    const underWay = new Map<Owner, number>();
    for (const [index, owner] of owners.entries()) {
      const own = counts.splice(0, owner === undefined ? 1 : COUNTS_OF_MODEL);
      underWay.set(
        owner,
        owner === undefined ? 0 : own.reduce((sum, count) => sum + count, bulkCounts[index]!),
      );
    }
    return {
      runId: parseInfo(server).get("run_id") ?? "",
      used: Number(info.get("used_memory") ?? 0) - Number(info.get("mem_not_counted_for_evict") ?? 0),
      max: Number(info.get("maxmemory") ?? 0),
      underWay,
    };
  }

  async function countBulkEntries(model: Owner): Promise<number> {
    if (model === undefined) return 0;
    const keys = new QueueKeys(names.bulkQueuePrefix(model));
    const types = ["wait", "active", "prioritized", "delayed"];
    const counts = await scripts.countEntries((type) => keys.toKey(model, type), types);
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** How large the responses of each model are, as far as workers know. */
  async function readResponseBytes(): Promise<Map<Owner, number>> {
    const totals = new Map(models.map((model) => [model, { succeeded: 0, bytes: 0 }]));
    const all = { succeeded: 0, bytes: 0 };
    for (const { models: served } of await readWorkerReports(redis, names)) {
      for (const [model, { totals: reported }] of Object.entries(served)) {
        const total = totals.get(model);
        if (!total) continue;
        for (const each of [total, all]) {
          each.succeeded += reported.succeeded;
          each.bytes += reported.response_bytes ?? 0;
        }
      }
    }
    responseBytes = all.succeeded > 0 ? all.bytes / all.succeeded : undefined;
    const known = [...totals].filter(([, { succeeded }]) => succeeded > 0);
    return new Map(known.map(([model, { succeeded, bytes }]) => [model, (bytes / succeeded) * ALLOCATION]));
  }

  function problemWith({ node }: Account, bytes: number): string | undefined {
    const limit = limitOf(node);
    if (node.max === 0 || filled(node) + bytes * ALLOCATION <= limit) return undefined;
    return (
      `${nameOf(node)} holds ${formatMebibytes(node.used + sumOf(node, "claimed"))} of its maxmemory of ${formatMebibytes(node.max)}, the responses of what was accepted need about ${formatMebibytes(sumOf(node, "expected"))} more, ` +
      `and all may fill ${formatMebibytes(limit)} (max_memory_share ${share})`
    );
  }

  function nameOf({ accounts: own }: Node): string {
    if (!redis.isCluster) return "Redis";
    const served = own.flatMap(({ owner }) => owner ?? []).join(", ") || "no model";
    return `The node of the Redis Cluster that has the keys of ${served}`;
  }

  function claim(owner: Owner, bytes: number): void {
    const account = accounts.get(owner)!;
    const problem = problemWith(account, bytes);
    if (problem === undefined) {
      account.claimed += bytes * ALLOCATION;
      return;
    }
    if (bytes * ALLOCATION > limitOf(account.node))
      throw new QueueStorageFullError(
        `${formatMebibytes(bytes)} never fit: ${problem}; raise the maxmemory of Redis, or let inputs be files`,
      );
    account.refused = Math.max(account.refused, bytes);
    throw new QueueStorageFullError(
      `${problem}; nothing was accepted, try again when predictions have ended and old ones have gone (result_ttl_seconds)`,
    );
  }

  await look();
  return {
    read() {
      const problem = [...accounts.values()]
        .map((account) => problemWith(account, account.refused))
        .find((each) => each !== undefined);
      const [fullest] = listNodes().toSorted((a, b) => shareFilled(b) - shareFilled(a));
      const { used, max } = fullest!;
      return { used, max, limit: limitOf(fullest!), expected: sumOf(fullest!, "expected"), problem };
    },
    isLimited: (owner) => accounts.get(owner)!.node.max > 0,
    claim(owner, bytes) {
      claim(owner, bytes);
      requests.bytes += bytes;
    },
    claimPredictions(model, count, jobs = count) {
      claim(model, jobs * JOB_BYTES + count * expectedEach());
      requests.count += count;
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
    },
  };

  function shareFilled(node: Node): number {
    return node.max > 0 ? filled(node) / node.max : 0;
  }
}
