/** `GET /health/live`, `GET /health/ready` and `GET /v1/models/{model}/ready`. */
import type { Request, Response } from "express";
import { RedisUnavailableError } from "../../errors.ts";
import { pathParameter, type Api } from "../api.ts";
import { checkModel } from "../describeModel.ts";
import type { Readiness } from "../schemas.ts";

export function live(_api: Api, _req: Request, res: Response): void {
  res.json({ status: "live" });
}

export async function ready(api: Api, _req: Request, res: Response): Promise<void> {
  const readiness = await checkReadiness(api);
  res.status(readiness.status === "ready" ? 200 : 503).json(readiness);
}

export async function modelReady(api: Api, req: Request, res: Response): Promise<void> {
  const readiness = await checkModel(api, pathParameter(req, "model"), await api.predictions.workers());
  res.status(readiness.ready ? 200 : 503).json(readiness);
}

async function checkReadiness(api: Api): Promise<Readiness> {
  try {
    const reports = await api.predictions.workers();
    const names = Object.keys(api.config.models);
    const checks = await Promise.all(names.map((name) => checkModel(api, name, reports)));
    const models = Object.fromEntries(names.map((name, index) => [name, checks[index]!]));
    const problems = names.flatMap((name) => models[name]!.problems.map((problem) => `${name}: ${problem}`));
    return { status: checks.every((check) => check.ready) ? "ready" : "not_ready", problems, models };
  } catch (error) {
    if (!(error instanceof RedisUnavailableError)) throw error;
    return { status: "not_ready", problems: [error.message], models: {} };
  }
}
