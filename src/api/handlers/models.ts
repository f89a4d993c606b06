/** `GET /v1/models` and `GET /v1/models/{model}`: what is served. */
import type { Request, Response } from "express";
import { pathParameter, type Api } from "../api.ts";
import { describeModel } from "../describeModel.ts";

export async function listModels(api: Api, _req: Request, res: Response): Promise<void> {
  const reports = await api.predictions.workers();
  const names = Object.keys(api.config.models);
  res.json({ models: await Promise.all(names.map((name) => describeModel(api, name, reports))) });
}

export async function getModel(api: Api, req: Request, res: Response): Promise<void> {
  res.json(await describeModel(api, pathParameter(req, "model"), await api.predictions.workers()));
}
