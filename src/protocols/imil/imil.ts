/**
 * `POST /{Model}` and the paths of `endpoints`: IMIL's own endpoint. Request
 * dictionary in, response dictionary out, through the same queue and batches.
 */
import type { Request, Response } from "express";
import { z } from "zod";
import { jsonAnswer, modelParameter, problemAnswers, problemSchema } from "../../api/operations.ts";
import type { Config } from "../../config/schema.ts";
import { requestSchema } from "../../imil/requestSchema.ts";
import { responseSchema } from "../../imil/responseSchema.ts";
import {
  AlreadyEndedError,
  InfermillError,
  PredictionTimeoutError,
  RetryableError,
  type ErrorSummary,
} from "../../errors.ts";
import type { PredictionRequest, PredictionResponse } from "../../imil/dictionaries.ts";
import { buildErrorResponse, toImilResponse } from "../../imil/response.ts";
import { errorOfSummary, isFinal, type Prediction } from "../../queue/jobs.ts";
import { acceptPredictions, draftOf, needsOf } from "../../api/service.ts";
import type { Api, Protocol, Route } from "../../api/api.ts";
import { readJson } from "../../api/body/read.ts";
import { ClientGoneError, extendProblems } from "../../api/problems.ts";
import { readDictionary, type RequestParts } from "../../api/requestDictionary.ts";
import { abortWhenGone } from "../../api/waiting.ts";

async function answerImil(api: Api, modelName: string, req: Request, res: Response): Promise<void> {
  const { config, predictions } = api;
  const run = { model: modelName, startedAt: new Date() };
  let request: PredictionRequest = {};
  // IMIL's clients look for Rc and Rm, so an error's body is a response dictionary as well as a problem.
  extendProblems(res, (error) => buildErrorResponse(request, error, run));

  predictions.model(modelName);
  const body = await readJson(req, config.max_body_bytes);
  if (typeof body === "object" && body !== null) request = body as PredictionRequest;
  const parts = readDictionary(body, config, modelName, await needsOf(api, modelName));
  res.json(await runToItsEnd(api, run, parts, res));
}

/** @throws what the prediction failed with, or PredictionTimeoutError after `sync_timeout_ms` */
async function runToItsEnd(
  api: Api,
  run: { model: string; startedAt: Date },
  parts: RequestParts,
  res: Response,
): Promise<PredictionResponse> {
  const { predictions } = api;
  const modelName = run.model;
  const { sync_timeout_ms: limitMs } = api.config;
  const draft = draftOf(parts, undefined);
  const watch = predictions.watch(modelName, draft.id);
  const gone = abortWhenGone(res, api.closing);
  try {
    const [accepted] = await acceptPredictions(api, modelName, [draft], { ttlMs: limitMs, dictionary: {} });
    if (accepted instanceof InfermillError) throw accepted;
    let prediction = await predictions.wait(modelName, draft.id, limitMs, gone.signal, watch);
    const isGivenUp = !isFinal(prediction.status);
    if (isGivenUp) prediction = await giveUp(api, modelName, draft.id);
    if (prediction.result) return toImilResponse(parts.request, prediction.result, [], run);
    if (isGivenUp && res.destroyed) throw new ClientGoneError("the client went away");
    if (isGivenUp && api.closing.aborted) throw new RetryableError("the api shuts down: send it again");
    if (isGivenUp || prediction.status === "expired") {
      throw new PredictionTimeoutError(
        `no response within ${limitMs} ms (sync_timeout_ms); POST /v1/models/${modelName}/predictions doesn't wait`,
      );
    }
    throw errorOfSummary(prediction.error as ErrorSummary);
  } finally {
    watch.stop();
    gone.stop();
  }
}

/** Its id was told to nobody, so nobody could ask for its response later. */
async function giveUp({ predictions }: Api, modelName: string, id: string): Promise<Prediction> {
  try {
    return await predictions.cancel(modelName, id);
  } catch (error) {
    if (error instanceof AlreadyEndedError) return predictions.read(modelName, id);
    throw error;
  }
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
