/** `GET …/predictions/{id}`: the prediction as it is, or with `?wait=N` when it ends. */
import type { Request, Response } from "express";
import { pathParameter, type Api } from "../api.ts";
import { parseWith } from "../../core/faults.ts";
import { waitQuerySchema } from "../submissionOptions.ts";
import { sendPrediction } from "./sendPrediction.ts";
import { abortWhenGone } from "./waiting.ts";

export async function getPrediction(api: Api, req: Request, res: Response): Promise<void> {
  const checked = parseWith(waitQuerySchema, req.query);
  const gone = abortWhenGone(res, api.closing);
  try {
    const waitMs = (checked.wait ?? 0) * 1000;
    const [model, id] = [pathParameter(req, "model"), pathParameter(req, "id")];
    sendPrediction(res, await api.predictions.wait(model, id, waitMs, gone.signal), 200);
  } finally {
    gone.stop();
  }
}
