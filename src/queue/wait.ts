/** Waiting for the end of a prediction, by its completion event and by a look from time to time. */
import type { Watch } from "./completionEvents.ts";
import { isFinal, type Prediction } from "../core/prediction.ts";
import type { PredictionStore } from "./predictionStore.ts";
import { describePrediction, readPrediction } from "./read.ts";

/** How often a waiter looks for itself, in case that a completion event was lost. */
const LOOK_INTERVAL_MS = 1000;

/**
 * Waits until a prediction ends, at most `ms`, and reads it either way.
 * @param watched a watch that began before the prediction was submitted or last read: then there is no need to look
 * before its completion event. The caller stops it.
 * @throws PredictionNotFoundError
 */
export async function waitForPrediction(
  store: PredictionStore,
  model: string,
  id: string,
  ms: number,
  signal?: AbortSignal,
  watched?: Watch,
): Promise<Prediction> {
  const deadline = Date.now() + ms;
  const watch = watched ?? store.completions.watch(model, id);
  try {
    const ended = watched && (await firstOf(watch.ended, Math.min(ms, LOOK_INTERVAL_MS), signal));
    if (ended) return await describePrediction(store, model, { id, ...ended }, false);
    for (;;) {
      // The event can come before its end is in Redis, and must not count twice.
      watch.rearm();
      const prediction = await readPrediction(store, model, id);
      const left = deadline - Date.now();
      if (isFinal(prediction.status) || left <= 0 || signal?.aborted) return prediction;
      await firstOf(watch.ended, Math.min(left, LOOK_INTERVAL_MS), signal);
    }
  } finally {
    if (!watched) watch.stop();
  }
}

/** Resolves at the first of an event, a time and an abort, and leaves no timer behind. */
async function firstOf<T>(event: Promise<T>, ms: number, signal?: AbortSignal): Promise<T | undefined> {
  let stop = () => {};
  const other = new Promise<undefined>((resolve) => {
    const timer = setTimeout(resolve, ms, undefined);
    stop = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      resolve(undefined);
    };
    signal?.addEventListener("abort", stop);
  });
  const first = await Promise.race([event, other]);
  stop();
  return first;
}
