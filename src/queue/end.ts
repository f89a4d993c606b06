/** Ending a prediction without a worker: cancelled by its client, or expired in the queue. */
import { PredictionCancelledError, PredictionExpiredError } from "../errors.ts";
import { reachRedis } from "../redis/connections.ts";
import { failedReason } from "./jobs.ts";
import { notFound, queueOf, readJob, type PredictionStore } from "./predictionStore.ts";

/** @returns whether it was ended by this call */
export async function endPrediction(
  store: PredictionStore,
  model: string,
  id: string,
  status: "cancelled" | "expired",
): Promise<boolean> {
  const queue = queueOf(store, model);
  const reason = failedReason(
    status === "cancelled"
      ? new PredictionCancelledError("cancelled by its client")
      : new PredictionExpiredError("it waited for longer than its ttl_ms"),
  );
  return reachRedis(async () => {
    const outcome = await store.scripts.endPrediction(queue.toKey, id, { status, failedReason: reason });
    if (outcome === "missing") throw notFound(store, model, id);
    if (outcome === "ended before" || outcome === "running") return false;
    store.notifyCompletion(model, id);
    const job = await readJob(store, model, id);
    if (job?.data.webhook) await store.deliveries.now(model, job.data.webhook);
    // The worker removes the inputs of what it runs.
    if (outcome === "ended waiting") await store.inputs.remove(job?.data.inputs ?? []);
    return true;
  });
}
