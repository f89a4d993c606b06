/** Cancelling a prediction, from any process. */
import { AlreadyEndedError } from "../errors.ts";
import { endPrediction } from "./end.ts";
import type { Prediction } from "../core/prediction.ts";
import type { PredictionStore } from "./predictionStore.ts";
import { readPrediction } from "./read.ts";

/**
 * Cancels a prediction: one that waits at once, of one that runs the outcome is dropped. Once more is harmless.
 * @throws PredictionNotFoundError
 * @throws AlreadyEndedError where it ended otherwise
 */
export async function cancelPrediction(
  store: PredictionStore,
  model: string,
  id: string,
): Promise<Prediction> {
  await endPrediction(store, model, id, "cancelled");
  const prediction = await readPrediction(store, model, id);
  if (prediction.status !== "cancelled")
    throw new AlreadyEndedError(`the prediction ${id} has ${prediction.status} and can't be cancelled`);
  return prediction;
}
