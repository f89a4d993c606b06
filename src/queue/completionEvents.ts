/**
 * Completion events, by Redis pub/sub: who ends a prediction announces it, who waits for one watches. An event brings how
 * the prediction ended, unless that is large, so that nobody has to read it. Events can be lost while Redis is away, so a
 * waiter also looks from time to time.
 */
import { QueueKeys } from "./bullmqPackage.ts";
import type { RedisClient } from "../redis/connections.ts";
import { END_FIELDS, endedJobOf, type EndedJob } from "./jobs.ts";
import type { Names } from "./names.ts";

/** Announces the ends of predictions; those of a model in one turn of the event loop in one message. */
export type NotifyCompletion = (model: string, id: string) => void;

/** Every api gets every event. */
const MAX_END_BYTES = 8192;

/**
 * The names of what ended, separated by spaces, then in a line of its own a JSON array with the fields of each job: false
 * where it has not ended in Redis yet, or where they are large.
 */
const PUBLISH_ENDS = `
local channel, names, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ends = {}
for index, job in ipairs(KEYS) do
  local fields = redis.call("HMGET", job, ${END_FIELDS.map((field) => `"${field}"`).join(", ")})
  local size = #(fields[${END_FIELDS.indexOf("returnvalue") + 1}] or "")
  ends[index] = fields[${END_FIELDS.indexOf("finishedOn") + 1}] and size <= limit and fields
end
redis.call("PUBLISH", channel, names .. " \\n" .. cjson.encode(ends))`;

type PublishingRedis = RedisClient & {
  publishEnds(keys: number, ...keysAndArguments: (string | number)[]): Promise<void>;
};

/** @param source the ends of bulk runs' predictions are read by their coordinator, many at once */
export function createNotifier(
  connection: RedisClient,
  names: Names,
  source: "queue" | "bulk" = "queue",
): NotifyCompletion {
  connection.defineCommand("publishEnds", { lua: PUBLISH_ENDS });
  const redis = connection as PublishingRedis;
  const completions = new Map<string, string[]>();
  // Neither a model's name nor an id has a space.
  const textOf = (model: string, ids: string[]) => ids.map((id) => `${model}:${id}`).join(" ");

  // In a cluster, the keys take both behind the end itself, on the model's node: any other could publish before it.
  function publish(model: string, ids: string[]): Promise<unknown> {
    const text = textOf(model, ids);
    if (source === "queue") {
      const keys = new QueueKeys(names.queuePrefix(model));
      const jobs = ids.map((id) => keys.toKey(model, id));
      return redis.publishEnds(jobs.length, ...jobs, names.completions, text, MAX_END_BYTES);
    }
    if (!redis.isCluster) return redis.publish(names.bulkCompletions, text);
    return redis.pipeline().exists(names.slots(model)).publish(names.bulkCompletions, text).exec();
  }

  function publishAll(): void {
    for (const [model, ids] of completions) publish(model, ids).catch(() => {});
    completions.clear();
  }

  return (model, id) => {
    if (completions.size === 0) setImmediate(publishAll);
    const ids = completions.get(model) ?? [];
    completions.set(model, ids);
    ids.push(id);
  };
}

/**
 * `ended` resolves at the prediction's completion event, with its end where the event brings it; `rearm` makes it wait for
 * the next event, `stop` gives up.
 */
export interface Watch {
  readonly ended: Promise<EndedJob | undefined>;
  rearm(): void;
  stop(): void;
}

export interface CompletionEvents {
  /** Starts to watch one prediction, from this moment on. */
  watch(model: string, id: string): Watch;
}

/** @param subscriber a connection of its own, since subscribing takes it over */
export async function openCompletionEvents(subscriber: RedisClient, names: Names): Promise<CompletionEvents> {
  const watchers = new Map<string, Set<(job?: EndedJob) => void>>();
  subscriber.on("message", (_channel, message: string) => {
    if (watchers.size === 0) return;
    const [text = "", json] = message.split(" \n");
    let ends: (Parameters<typeof endedJobOf>[0] | false)[] | undefined;
    for (const [index, name] of text.split(" ").entries()) {
      const watching = watchers.get(name);
      if (!watching) continue;
      // Workers of older versions send the names alone.
      ends ??= json === undefined ? [] : (JSON.parse(json) as typeof ends)!;
      const fields = ends[index];
      const job = fields ? endedJobOf(fields) : undefined;
      for (const notify of watching) notify(job);
    }
  });
  await subscriber.subscribe(names.completions);
  return {
    watch(model, id) {
      const key = `${model}:${id}`;
      let resolve: (job?: EndedJob) => void = () => {};
      let ended: Promise<EndedJob | undefined>;
      const rearm = () => {
        ended = new Promise((done) => (resolve = done));
      };
      rearm();
      const notify = (job?: EndedJob) => resolve(job);
      const watching = watchers.get(key) ?? new Set();
      watchers.set(key, watching.add(notify));
      return {
        get ended() {
          return ended;
        },
        rearm,
        stop() {
          watching.delete(notify);
          if (watching.size === 0 && watchers.get(key) === watching) watchers.delete(key);
        },
      };
    },
  };
}
