/** `GET …/predictions`: the newest predictions of a model. */
import type { Request, Response } from "express";
import { z } from "zod";
import { parseWith } from "../../core/faults.ts";
import { STATUSES } from "../../queue/jobs.ts";
import { pathParameter, type Api } from "../api.ts";

const MAX_LISTED = 100;
const limitError = `must be a whole number from 1 to ${MAX_LISTED}`;

export const predictionListQuerySchema = z.object({
  status: z
    .enum(STATUSES, { error: `must be one of ${STATUSES.join(", ")}` })
    .optional()
    .meta({ description: "Only those with this status." }),
  limit: z.coerce
    .number({ error: limitError })
    .int({ error: limitError })
    .min(1, { error: limitError })
    .max(MAX_LISTED, { error: limitError })
    .default(20)
    .meta({ description: "Most predictions to list; those that were accepted last come first." }),
});

export async function listPredictions({ predictions }: Api, req: Request, res: Response): Promise<void> {
  const checked = parseWith(predictionListQuerySchema, req.query);
  const { limit, status } = checked;
  const listed = await predictions.list(pathParameter(req, "model"), limit, status);
  res.set("Cache-Control", "no-store").json({ predictions: listed });
}
