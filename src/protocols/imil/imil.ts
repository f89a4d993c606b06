/**
 * `POST /{Model}` and the paths of `endpoints`: IMIL's own endpoint. Request
 * dictionary in, response dictionary out, through the same queue and batches.
 */
import type { Request, Response } from "express";
import { z } from "zod";
import { jsonAnswer, modelParameter, problemAnswers, problemSchema } from "../../api/operations.ts";
import type { Config } from "../../config/schema.ts";
import { formatJson } from "../../core/json.ts";
import { requestSchema } from "../../imil/requestSchema.ts";
import { responseSchema } from "../../imil/responseSchema.ts";
import type { PredictionRequest } from "../../imil/dictionaries.ts";
import { buildErrorResponse, toImilResponse } from "../../imil/response.ts";
import { descriptionOf, draftOf, runToEnd } from "../../api/service.ts";
import type { Api, Protocol, Route } from "../../api/api.ts";
import { readJson } from "../../api/body/read.ts";
import { encodeErrors } from "../../api/problems.ts";
import { withTensorData } from "../../api/tensorData.ts";
import { clientOf } from "../../api/waiting.ts";
import { readDictionary } from "../../api/requestDictionary.ts";

async function answerImil(api: Api, modelName: string, req: Request, res: Response): Promise<void> {
  const { config, predictions } = api;
  const run = { model: modelName, startedAt: new Date() };
  let request: PredictionRequest = {};
  // IMIL's clients look for Rc and Rm, so an error's body is a response dictionary as well as a problem.
  encodeErrors(res, (error, problem) => ({
    status: problem.status,
    mediaType: "application/problem+json",
    body: { ...problem, ...buildErrorResponse(request, error, run) },
  }));

  predictions.model(modelName);
  const body = await readJson(req, config.max_body_bytes);
  if (typeof body === "object" && body !== null) request = body as PredictionRequest;
  const parts = readDictionary(body, config, modelName, await descriptionOf(api, modelName));
  const prediction = await runToEnd(api, modelName, draftOf(parts), {}, { client: clientOf(res) });
  const pictures = prediction.outputs.filter(({ media_type }) => media_type.startsWith("image/"));
  const outputs = await predictions.readOutputs({ ...prediction, outputs: pictures });
  const { result } = await withTensorData(api, prediction);
  // Not by res.json: what a loader calls url or links is none of the api's links.
  res.type("json").send(formatJson(toImilResponse(parts.request, result!, outputs, run)));
}

const imilProblemSchema = z
  .intersection(problemSchema, responseSchema)
  .meta({ id: "ImilProblem", description: "A problem that is a response dictionary too." });
const PROBLEM_STATUSES = [400, 404, 409, 413, 415, 422, 429, 500, 503, 504];

/** @param fixedModel the only model that the path can reach, where it is one of `endpoints` */
function imilRoute(path: string, modelOf: (req: Request) => string, fixedModel?: string): Route {
  return {
    method: "post",
    path,
    handler: (api, req, res) => answerImil(api, modelOf(req), req, res),
    operation: {
      operationId: fixedModel === undefined ? "answerImil" : `answerImil${path.replaceAll(/\W/g, "_")}`,
      summary: fixedModel === undefined ? "IMIL's endpoint" : `IMIL's endpoint of ${fixedModel}`,
      description:
        "Request dictionary in, response dictionary out, once the prediction has ended. It goes through the same queue and batches. " +
        "An error is a problem and a response dictionary in one: Rc is its status, Rm its text, Fs is empty.",
      tags: ["predictions"],
      ...(fixedModel === undefined && { requestParams: { path: z.object({ Model: modelParameter }) } }),
      requestBody: { required: true, content: { "application/json": { schema: requestSchema } } },
      responses: {
        200: jsonAnswer("The response dictionary.", responseSchema),
        ...problemAnswers(PROBLEM_STATUSES, imilProblemSchema),
      },
    },
  };
}

/** Last of all protocols, because its path fits every other of one part. */
export const imil: Protocol = {
  name: "imil",
  routes: (config) => [
    ...endpointRoutes(config),
    imilRoute("/{Model}", (req) => String(req.params["Model"])),
  ],
};

/** IMIL's endpoint on a path of its own for each of `endpoints`, but not where a model has that name. */
function endpointRoutes({ endpoints, models }: Config): Route[] {
  return Object.entries(endpoints)
    .filter(([path]) => !Object.hasOwn(models, path.slice(1)))
    .map(([path, name]) => imilRoute(path, () => name, name));
}
