/** A prediction as an answer. */
import type { Response } from "express";
import { isFinal, type Prediction } from "../../queue/jobs.ts";

export function sendPrediction(res: Response, prediction: Prediction, status: 200 | 202): void {
  if (status === 202) res.set("Location", prediction.links.self);
  if (!isFinal(prediction.status)) res.set("Retry-After", "1");
  // It is another a moment later.
  res.set("Cache-Control", "no-store");
  res.status(status).json(prediction);
}
