/**
 * The steps that must be one in Redis and that BullMQ has no call for.
 * They touch BullMQ's waiting sets and the job's hash, in the layout of the
 * bullmq version that package.json pins.
 */
import { addPrioritizedJob } from "bullmq/dist/esm/scripts/addPrioritizedJob-9.js";
import type { ChainableCommander } from "ioredis";
import type { RedisClient } from "../redis/connections.ts";

/**
 * Takes up to `wanted` slots in a queue that may hold `limit` waiting predictions. A slot is held from before the
 * input is stored until the job is added (which gives it back in the same transaction), so that the limit is exact
 * however many submissions are under way. Slots of a producer that died are given back after `slotTtlMs`.
 */
const RESERVE_SLOTS = `
local slots, prioritized, delayed, wait, paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local limit, wanted, now, slotTtlMs, token = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
redis.call("ZREMRANGEBYSCORE", slots, "-inf", now - slotTtlMs)
local taken = redis.call("ZCARD", slots) + redis.call("ZCARD", prioritized) + redis.call("ZCARD", delayed)
  + redis.call("LLEN", wait) + redis.call("LLEN", paused)
local granted = math.max(0, math.min(wanted, limit - taken))
for index = 1, granted do redis.call("ZADD", slots, now, token .. ":" .. index) end
if granted > 0 then redis.call("PEXPIRE", slots, slotTtlMs) end
return granted`;

/**
 * BullMQ's own script, in one step with the slot that the job takes the place of, or, for a job without a slot, with
 * the look whether there is room.
 */
const ADD_PREDICTION = `
local slot, limit, since = ARGV[4], tonumber(ARGV[5]), ARGV[6]
if slot ~= "" then
  redis.call("ZREM", KEYS[10], slot)
elseif redis.call("ZCOUNT", KEYS[10], since, "+inf") + redis.call("ZCARD", KEYS[4]) + redis.call("ZCARD", KEYS[5])
  + redis.call("LLEN", KEYS[11]) + redis.call("LLEN", KEYS[12]) >= limit then
  return false
end
${addPrioritizedJob.content}`;

/**
 * Ends a prediction without a worker: `cancelled` or `expired`. One that waits moves to the failed jobs at once. One
 * that runs is marked (cancelled only) in the job's progress, and the mark outweighs whatever its worker finishes with later. What has
 * ended stays as it ended.
 */
const END_PREDICTION = `
local job, prioritized, delayed, wait, paused, failed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, status, reason, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call("EXISTS", job) == 0 then return "missing" end
local marked = string.sub(redis.call("HGET", job, "progress") or "", 1, 1) == "{"
if marked or redis.call("HEXISTS", job, "finishedOn") == 1 then return "ended before" end
local removed = redis.call("ZREM", prioritized, id) + redis.call("ZREM", delayed, id)
if removed == 0 then removed = redis.call("LREM", wait, 1, id) + redis.call("LREM", paused, 1, id) end
if removed == 0 and status ~= "cancelled" then return "running" end
redis.call("HSET", job, "progress", cjson.encode({ended = status, ended_on = tonumber(now)}))
if removed > 0 then
  redis.call("HSET", job, "finishedOn", now, "failedReason", reason)
  redis.call("ZADD", failed, now, id)
  return "ended waiting"
end
return "ended running"`;

/** Keeps how entries of a chunk ended, and says whether the rest is still wanted. */
const KEEP_ROWS = `
local job, logs = KEYS[1], KEYS[2]
if redis.call("EXISTS", job) == 0 then return "gone" end
redis.call("RPUSH", logs, unpack(ARGV))
return redis.call("HEXISTS", job, "withdrawn") == 1 and "withdrawn" or "kept"`;

/** Forgets jobs of a bulk queue that ended, with their logs. */
const REMOVE_ENDED = `
local completed, failed, prefix = KEYS[1], KEYS[2], ARGV[1]
for index = 2, #ARGV do
  local job = prefix .. ARGV[index]
  if redis.call("HEXISTS", job, "finishedOn") == 1 then
    redis.call("DEL", job, job .. ":logs")
    if redis.call("ZREM", completed, ARGV[index]) == 0 then redis.call("ZREM", failed, ARGV[index]) end
  end
end`;

/** Takes jobs of a bulk queue that wait out of it, and leaves nothing of them; marks those that run. */
const WITHDRAW = `
local prioritized, delayed, wait, paused, prefix = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
local withdrawn = {}
for index = 2, #ARGV do
  local id = ARGV[index]
  local job = prefix .. id
  local removed = redis.call("ZREM", prioritized, id) + redis.call("ZREM", delayed, id)
  if removed == 0 then removed = redis.call("LREM", wait, 1, id) + redis.call("LREM", paused, 1, id) end
  if removed > 0 then
    redis.call("DEL", job, job .. ":logs")
    withdrawn[#withdrawn + 1] = id
  elseif redis.call("EXISTS", job) == 1 then
    redis.call("HSET", job, "withdrawn", 1)
  end
end
return withdrawn`;

/** Leaves nothing of a bulk run in a bulkQueue; what runs at this moment is marked. */
const CLEAR_RUN = `
local active, prefix, beginning = KEYS[1], ARGV[1], ARGV[2]
for _, id in ipairs(redis.call("LRANGE", active, 0, -1)) do
  if string.sub(id, 1, #beginning) == beginning and redis.call("EXISTS", prefix .. id) == 1 then
    redis.call("HSET", prefix .. id, "withdrawn", 1)
  end
end
for number = 2, #KEYS do
  local key = KEYS[number]
  local isList = redis.call("TYPE", key).ok == "list"
  for _, id in ipairs(redis.call(isList and "LRANGE" or "ZRANGE", key, 0, -1)) do
    if string.sub(id, 1, #beginning) == beginning then
      if isList then redis.call("LREM", key, 1, id) else redis.call("ZREM", key, id) end
      redis.call("DEL", prefix .. id, prefix .. id .. ":logs")
    end
  end
end`;

/** Ids of the jobs that a bulk run has in a bulk queue, in whatever state. */
const FIND_RUN = `
local beginning, found = ARGV[1], {}
for _, key in ipairs(KEYS) do
  local isList = redis.call("TYPE", key).ok == "list"
  for _, id in ipairs(redis.call(isList and "LRANGE" or "ZRANGE", key, 0, -1)) do
    if string.sub(id, 1, #beginning) == beginning then found[#found + 1] = id end
  end
end
return found`;

/** How many entries each of a bulk queue's sets of jobs holds: a chunk's id ends in their number. */
const COUNT_ENTRIES = `
local counts = {}
for number, key in ipairs(KEYS) do
  local isList = redis.call("TYPE", key).ok == "list"
  local count = 0
  for _, id in ipairs(redis.call(isList and "LRANGE" or "ZRANGE", key, 0, -1)) do
    count = count + (tonumber(string.match(id, "-%d+_(%d+)$")) or 1)
  end
  counts[number] = count
end
return counts`;

type ScriptedRedis = RedisClient & {
  addPrediction(...keysAndArguments: (string | number | Buffer)[]): Promise<string | null>;
  reserveSlots(...keysAndArguments: (string | number)[]): Promise<number>;
  endPrediction(...keysAndArguments: (string | number)[]): Promise<EndOutcome>;
  removeEnded(...keysAndArguments: string[]): Promise<void>;
  withdraw(...keysAndArguments: string[]): Promise<string[]>;
  clearRun(...keysAndArguments: string[]): Promise<void>;
  keepRows(...keysAndArguments: string[]): Promise<KeepOutcome>;
  findRun(...keysAndArguments: string[]): Promise<string[]>;
  countEntries(...keys: (number | string)[]): Promise<number[]>;
};

/** `withdrawn`: its entries that have not begun are wanted no more; `gone`: nor is the chunk. */
export type KeepOutcome = "kept" | "withdrawn" | "gone";

export type EndOutcome = "missing" | "ended before" | "running" | "ended waiting" | "ended running";

/** Sets of jobs of a BullMQ queue, those that run first. */
const ALL_STATES = ["active", "prioritized", "delayed", "wait", "paused", "completed", "failed"];
type ScriptArguments = (string | Buffer)[];

/** The keys of a BullMQ queue, by type: `queue.toKey`. */
type ToKey = (type: string) => string;

export interface Scripts {
  /** @returns how many slots were granted; they are named `<token>:1` to `<token>:<granted>` */
  reserveSlots(
    slots: string,
    toKey: ToKey,
    options: { limit: number; wanted: number; slotTtlMs: number; token: string },
  ): Promise<number>;
  /**
   * Adds a job, which must have a priority.
   * @param commands the connection, or a transaction of it
   * @param addJob hands over what BullMQ's script takes
   * @param slot that it takes the place of; where that is "", the limit is checked
   * @returns null where there is no room
   */
  addPrediction(
    commands: RedisClient | ChainableCommander,
    addJob: (client: { runCommand: (name: string, keysAndArguments: ScriptArguments) => unknown }) => unknown,
    slots: string,
    toKey: ToKey,
    options: { slot: string; limit: number; slotTtlMs: number },
  ): Promise<string | null>;
  endPrediction(
    toKey: ToKey,
    id: string,
    how: { status: "cancelled" | "expired"; failedReason: string },
  ): Promise<EndOutcome>;
  removeEnded(toKey: ToKey, ids: readonly string[]): Promise<void>;
  /** @returns the ids of those that waited */
  withdraw(toKey: ToKey, ids: readonly string[]): Promise<string[]>;
  clearRun(toKey: ToKey, runId: string): Promise<void>;
  keepRows(toKey: ToKey, id: string, rows: readonly string[]): Promise<KeepOutcome>;
  findRun(toKey: ToKey, runId: string): Promise<string[]>;
  /** @param types sets of jobs, such as "wait" */
  countEntries(toKey: ToKey, types: readonly string[]): Promise<number[]>;
}

export function defineScripts(connection: RedisClient): Scripts {
  connection.defineCommand("reserveSlots", { numberOfKeys: 5, lua: RESERVE_SLOTS });
  connection.defineCommand("addPrediction", {
    numberOfKeys: addPrioritizedJob.keys + 3,
    lua: ADD_PREDICTION,
  });
  connection.defineCommand("endPrediction", { numberOfKeys: 6, lua: END_PREDICTION });
  connection.defineCommand("removeEnded", { numberOfKeys: 2, lua: REMOVE_ENDED });
  connection.defineCommand("withdraw", { numberOfKeys: 4, lua: WITHDRAW });
  connection.defineCommand("clearRun", { numberOfKeys: 7, lua: CLEAR_RUN });
  connection.defineCommand("keepRows", { numberOfKeys: 2, lua: KEEP_ROWS });
  connection.defineCommand("findRun", { numberOfKeys: 7, lua: FIND_RUN });
  connection.defineCommand("countEntries", { lua: COUNT_ENTRIES });
  const redis = connection as ScriptedRedis;
  return {
    reserveSlots(slots, toKey, { limit, wanted, slotTtlMs, token }) {
      const keys = [slots, toKey("prioritized"), toKey("delayed"), toKey("wait"), toKey("paused")];
      return redis.reserveSlots(...keys, limit, wanted, Date.now(), slotTtlMs, token);
    },
    addPrediction(commands, addJob, slots, toKey, { slot, limit, slotTtlMs }) {
      const runCommand = (_name: string, given: ScriptArguments) => {
        const keys = [...given.splice(0, addPrioritizedJob.keys), slots, toKey("wait"), toKey("paused")];
        return (commands as ScriptedRedis).addPrediction(
          ...keys,
          ...given,
          slot,
          limit,
          Date.now() - slotTtlMs,
        );
      };
      return addJob({ runCommand }) as Promise<string | null>;
    },
    endPrediction(toKey, id, { status, failedReason }) {
      const waiting = [toKey("prioritized"), toKey("delayed"), toKey("wait"), toKey("paused")];
      return redis.endPrediction(
        toKey(id),
        ...waiting,
        toKey("failed"),
        id,
        status,
        failedReason,
        Date.now(),
      );
    },
    removeEnded: (toKey, ids) => redis.removeEnded(toKey("completed"), toKey("failed"), toKey(""), ...ids),
    withdraw(toKey, ids) {
      const waiting = [toKey("prioritized"), toKey("delayed"), toKey("wait"), toKey("paused")];
      return redis.withdraw(...waiting, toKey(""), ...ids);
    },
    clearRun(toKey, runId) {
      return redis.clearRun(...ALL_STATES.map(toKey), toKey(""), `${runId}-`);
    },
    keepRows: (toKey, id, rows) => redis.keepRows(toKey(id), toKey(`${id}:logs`), ...rows),
    findRun: (toKey, runId) => redis.findRun(...ALL_STATES.map(toKey), `${runId}-`),
    countEntries: (toKey, types) => redis.countEntries(types.length, ...types.map(toKey)),
  };
}
