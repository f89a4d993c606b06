/** The event that tells of a prediction's end. */
import type { WebhookEvent } from "../queue/deliveries.ts";
import type { Prediction } from "../queue/jobs.ts";

/** @param inlineBytes a result of more JSON than this is left to its link */
export function eventOfPrediction(prediction: Prediction, inlineBytes: number): WebhookEvent {
  const { status, result, links } = prediction;
  if (status === "queued" || status === "running") throw new Error(`${prediction.id} has not ended`);
  const isInline = result === null || Buffer.byteLength(JSON.stringify(result)) <= inlineBytes;
  return {
    type: `prediction.${status}`,
    timestamp: prediction.finished_at ?? new Date().toISOString(),
    data: isInline ? prediction : { ...prediction, result: null, links: { ...links, result: links.self } },
  };
}
