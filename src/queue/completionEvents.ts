/**
 * Completion events, by Redis pub/sub: who ends a prediction
 * announces it, who waits for one watches. Events can be lost while Redis is
 * away, so a waiter also looks from time to time.
 */
import type { RedisClient } from "../redis/connections.ts";
import type { Names } from "./names.ts";

/** Announces the ends of predictions; those of a model in one turn of the event loop in one message. */
export type NotifyCompletion = (model: string, id: string) => void;

export function createNotifier(
  redis: RedisClient,
  names: Pick<Names, "completions" | "slots">,
): NotifyCompletion {
  const completions = new Map<string, string[]>();
  const publish = (model: string, text: string): Promise<unknown> => {
    if (!redis.isCluster) return redis.publish(names.completions, text);
    // Any node would take it, but only behind the end itself, on the model's node, it can't come before that. The key
    // takes it there.
    return redis.pipeline().exists(names.slots(model)).publish(names.completions, text).exec();
  };
  const publishAll = () => {
    // Neither a model's name nor an id has a space.
    for (const [model, ended] of completions) publish(model, ended.join(" ")).catch(() => {});
    completions.clear();
  };
  return (model, id) => {
    if (completions.size === 0) setImmediate(publishAll);
    const ended = completions.get(model) ?? [];
    completions.set(model, ended);
    ended.push(`${model}:${id}`);
  };
}

/** `ended` resolves at the prediction's completion event, `rearm` makes it wait for the next event, `stop` gives up. */
export interface Watch {
  readonly ended: Promise<void>;
  rearm(): void;
  stop(): void;
}

export interface CompletionEvents {
  /** Starts to watch one prediction, from this moment on. */
  watch(model: string, id: string): Watch;
}

/** @param subscriber a connection of its own, since subscribing takes it over */
export async function openCompletionEvents(subscriber: RedisClient, names: Names): Promise<CompletionEvents> {
  const watchers = new Map<string, Set<() => void>>();
  subscriber.on("message", (_channel, completions: string) => {
    if (watchers.size === 0) return;
    for (const ending of completions.split(" ")) for (const notify of watchers.get(ending) ?? []) notify();
  });
  await subscriber.subscribe(names.completions);
  return {
    watch(model, id) {
      const key = `${model}:${id}`;
      let resolve = () => {};
      let ended: Promise<void>;
      const rearm = () => {
        ended = new Promise((done) => (resolve = done));
      };
      rearm();
      const notify = () => resolve();
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
