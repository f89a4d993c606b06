/** `GET /health/live` and `GET /health/ready`, for orchestrators. */
import type { Request, Response } from "express";
import { z } from "zod";
import type { Api, Route } from "./api.ts";
import { jsonAnswer } from "./operations.ts";
import { checkReadiness, readinessSchema } from "./readiness.ts";

function live(_api: Api, _req: Request, res: Response): void {
  res.json({ status: "live" });
}

async function ready(api: Api, _req: Request, res: Response): Promise<void> {
  const readiness = await checkReadiness(api);
  res.status(readiness.status === "ready" ? 200 : 503).json(readiness);
}

export const healthRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/health/live",
    handler: live,
    operation: {
      operationId: "live",
      summary: "Whether the process runs",
      tags: ["operations"],
      responses: { 200: jsonAnswer("It does.", z.object({ status: z.literal("live") })) },
    },
  },
  {
    method: "get",
    path: "/health/ready",
    handler: ready,
    operation: {
      operationId: "ready",
      summary: "Whether every model is ready",
      tags: ["operations"],
      responses: {
        200: jsonAnswer("Every model is ready.", readinessSchema),
        503: jsonAnswer("What is missing, for each model.", readinessSchema),
      },
    },
  },
];
