/**
 * `POST /{Model}` and the paths of `endpoints`: IMIL's own endpoint. Request
 * dictionary in, response dictionary out, through the same queue and batches.
 */
import type { Request, Response } from "express";
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
import { acceptPredictions, draftOf, needsOf } from "../accept.ts";
import type { Api } from "../api.ts";
import { readJson } from "../body/read.ts";
import { ClientGoneError, extendProblems } from "../problems.ts";
import { readDictionary, type RequestParts } from "../requestDictionary.ts";
import { abortWhenGone } from "./waiting.ts";

export async function answerImil(api: Api, modelName: string, req: Request, res: Response): Promise<void> {
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
