/**
 * Whether a Redis fits: its version, and the settings that decide whether
 * accepted predictions survive. Read from INFO alone, because managed Redis
 * often forbids CONFIG.
 */
import type { Redis } from "ioredis";
import { mastersOf, type RedisClient } from "./connections.ts";
import { RedisRefusedError, RedisUnavailableError } from "../errors.ts";

/** BullMQ uses commands and options that came with this version. */
export const OLDEST_REDIS_VERSION = "6.2.0";

/** Nodes of a cluster that a message names: others are found by any of them. */
const MAX_NAMED_NODES = 3;

/** What `checkRedis` found. */
export interface RedisCheck {
  /** "7.0.15", or "unknown" where the server hides it. */
  version: string;
  /** Sentences for the log, each with what it means and what to do; empty when all is well. */
  warnings: string[];
}

/**
 * Reads version, eviction and persistence of the server behind a connection, or of all masters of a cluster.
 * @throws RedisUnavailableError when the server is older than BullMQ needs, RedisRefusedError where it is a node of a
 * cluster that isn't named as one, or a Sentinel
 */
export async function checkRedis(redis: RedisClient): Promise<RedisCheck> {
  const outcomes = await Promise.allSettled(
    mastersOf(redis).map((master) => checkServer(master, redis.isCluster)),
  );
  const faults = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
  const checks = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  const refusal: unknown = faults.find((fault) => fault instanceof RedisUnavailableError);
  // A master of several that is lost has a replica that takes its place, or whoever needs its keys says so.
  if (refusal || checks.length === 0) throw refusal ?? faults[0];
  return { version: checks[0]!.version, warnings: [...new Set(checks.flatMap(({ warnings }) => warnings))] };
}

/** @param isOfCluster whether it is one of the masters of a cluster that is named as such */
async function checkServer(redis: Redis, isOfCluster: boolean): Promise<RedisCheck> {
  let info: Map<string, string>;
  try {
    info = parseInfo(await redis.info());
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith("NOPERM")) throw error;
    return {
      version: "unknown",
      warnings: [
        `Redis forbids INFO to this user, so that its version and durability can't be checked; it must be ${OLDEST_REDIS_VERSION} or newer, with maxmemory-policy noeviction and appendonly yes`,
      ],
    };
  }
  const version = info.get("redis_version") ?? "unknown";
  if (version !== "unknown" && !isRecentEnough(version)) throw tooOld(version);
  if (info.get("redis_mode") === "cluster" && !isOfCluster) throw await isNodeOfCluster(redis);
  if (info.get("redis_mode") === "sentinel") throw isSentinel(info);
  return {
    version,
    warnings: [evictionWarning(info), durabilityWarning(info)].filter((line) => line !== undefined),
  };
}

/** Whether a version such as "7.0.15" is one that BullMQ can use. */
export function isRecentEnough(version: string): boolean {
  return version.localeCompare(OLDEST_REDIS_VERSION, "en", { numeric: true }) >= 0;
}

/** The fields of a reply to INFO. */
export function parseInfo(reply: string): Map<string, string> {
  return new Map(
    [...reply.matchAll(/^(\w+):(.*?)\r?$/gm)].map(([, field = "", value = ""]) => [field, value]),
  );
}

function tooOld(version: string): RedisUnavailableError {
  return new RedisUnavailableError(
    `Redis is version ${version}, expected ${OLDEST_REDIS_VERSION} or newer; upgrade it, or unset REDIS_URL (redis_url in the configuration) to use an embedded one`,
  );
}

/** Found at the start, before the first script is refused with MOVED or CROSSSLOT. */
async function isNodeOfCluster(redis: Redis): Promise<RedisRefusedError> {
  const slots = (await redis.cluster("SLOTS").catch(() => [])) as [number, number, [string, number]][];
  const hosts = slots.map(([, , [host, port]]) => {
    // A node that no other has met doesn't know its own address.
    const known = host || redis.options.host || "localhost";
    return `${known.includes(":") ? `[${known}]` : known}:${port}`;
  });
  const scheme = redis.options.tls ? "rediss+cluster" : "redis+cluster";
  const some = [...new Set(hosts)].slice(0, MAX_NAMED_NODES).join(",") || "host:6379";
  return new RedisRefusedError(
    `Redis is a node of a Redis Cluster, and redis_url names it as a single server; write ${scheme}://${some} (with user name and password before the first host, where it has them now)`,
  );
}

/** A Sentinel takes a connection like a Redis, and knows none of its commands. */
function isSentinel(info: Map<string, string>): RedisRefusedError {
  const masters = [...info].flatMap(([field, value]) =>
    /^master\d+$/.test(field) ? (/name=([^,]*)/.exec(value)?.[1] ?? []) : [],
  );
  return new RedisRefusedError(
    `redis_url names a Sentinel, and names it as a Redis; write redis+sentinel://host:port/${masters[0] ?? "master"}${masters.length > 1 ? ` (it watches ${masters.join(", ")})` : ""}`,
  );
}

function evictionWarning(info: Map<string, string>): string | undefined {
  const policy = info.get("maxmemory_policy");
  if (policy === "noeviction") return undefined;
  if (policy === undefined)
    return "Redis doesn't tell its maxmemory-policy; make sure that it is noeviction, or Redis may evict queued predictions";
  return `Redis has maxmemory-policy ${policy}, expected noeviction: when its memory is full it may evict queued predictions; run CONFIG SET maxmemory-policy noeviction and write the same into its configuration`;
}

function durabilityWarning(info: Map<string, string>): string | undefined {
  const appendOnly = info.get("aof_enabled");
  if (appendOnly === "1") return undefined;
  if (appendOnly === undefined)
    return "Redis doesn't tell whether it keeps an append-only file; without one, its crash loses accepted predictions";
  return "Redis has appendonly no: if it crashes, predictions accepted since its last snapshot are lost (all of them where it takes none); run CONFIG SET appendonly yes and write the same into its configuration";
}
