/** `GET /v1/predictions`: the predictions of all models, page by page, as a table shows them. */
import type { Request, Response } from "express";
import { z } from "zod";
import type { Api, Route } from "../../api/api.ts";
import { jsonAnswer, modelParameter, problemAnswers } from "../../api/operations.ts";
import { parseWith } from "../../core/faults.ts";
import { limitParameter, statusParameter } from "./parameters.ts";
import { predictionEntriesSchema } from "./schemas.ts";

const querySchema = z.object({
  model: modelParameter.optional(),
  status: statusParameter,
  limit: limitParameter(100, 20),
  cursor: z.string().optional().meta({ description: "`next_cursor` of the page before." }),
});

async function listAllPredictions({ predictions }: Api, req: Request, res: Response): Promise<void> {
  const { entries, nextCursor } = await predictions.listAll(parseWith(querySchema, req.query));
  res.set("Cache-Control", "no-store").json({ predictions: entries, next_cursor: nextCursor });
}

export const allPredictionsRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v1/predictions",
    handler: listAllPredictions,
    operation: {
      operationId: "listAllPredictions",
      summary: "List the predictions of all models, without their responses",
      description:
        "Those that have not ended come first, at most the newest 1,000. One that ends between two pages can be on both. A page of one status can hold fewer than `limit` though another follows. Predictions of bulk runs are in their runs.",
      tags: ["predictions"],
      requestParams: { query: querySchema },
      responses: {
        200: jsonAnswer("The page.", predictionEntriesSchema),
        ...problemAnswers([404, 422, 503]),
      },
    },
  },
];
