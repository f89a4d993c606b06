/** `DELETE …/predictions/{id}`: cancels; once more is harmless. */
import type { Request, Response } from "express";
import { pathParameter, type Api } from "../api.ts";

export async function cancelPrediction({ predictions }: Api, req: Request, res: Response): Promise<void> {
  res.json(await predictions.cancel(pathParameter(req, "model"), pathParameter(req, "id")));
}
