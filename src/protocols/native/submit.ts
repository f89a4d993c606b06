/** `POST …/predictions` and `PUT …/predictions/{id}`: one prediction, in any of the body forms, or many. */
import type { Request, Response } from "express";
import { BadInputError, InfermillError, RedisUnavailableError } from "../../errors.ts";
import type { Needs } from "../../imil/requestSchema.ts";
import { isFinal, type Prediction } from "../../queue/jobs.ts";
import { newPredictionId } from "../../queue/names.ts";
import { acceptPredictions, draftOf, needsOf, type Draft } from "../../api/service.ts";
import { pathParameter, type Api } from "../../api/api.ts";
import { receiveMultipart } from "../../api/body/multipart.ts";
import { bodyForm, limitBody, parseJson, readText } from "../../api/body/read.ts";
import { readDictionary, type RequestParts } from "../../api/requestDictionary.ts";
import { clientIdOf, readSubmissionOptions, type SubmissionOptions } from "./submissionOptions.ts";
import { submitMany } from "./submitMany.ts";
import { abortWhenGone } from "../../api/waiting.ts";

export async function submitPrediction(api: Api, req: Request, res: Response): Promise<void> {
  const { config } = api;
  const model = pathParameter(req, "model");
  const form = bodyForm(req, config.max_body_bytes);
  const options = readSubmissionOptions(req, form === "image", config);
  const draft = await draftOfBody();
  if (draft) await submitOne(api, req, res, draft, options);

  /** Bodies that are streamed are read by their draft, once there is room; undefined for many requests in one body. */
  async function draftOfBody(): Promise<Draft | undefined> {
    if (form === "image") return streamedDraft(options, (store) => receiveImage(store));
    if (form === "multipart") return streamedDraft(options, (store) => receiveForm(store));
    const text = await readText(limitBody(req, config.max_body_bytes));
    const body = form === "json" ? parseJson(text, "the body") : text.split("\n");
    if (Array.isArray(body)) {
      await submitMany(api, req, res, body as unknown[], options, form === "ndjson" ? "line" : "index");
      return undefined;
    }
    return draftOf(readDictionary(body, config, model, await needsOf(api, model)), clientIdOf(options));
  }

  async function receiveImage(store: Parameters<Draft["receive"]>[0]) {
    const { request } = readDictionary(options.dictionary, config, model, await needsBeside(1));
    return { request, inputs: [await store(0, limitBody(req, config.max_body_bytes))] };
  }

  async function receiveForm(store: Parameters<Draft["receive"]>[0]) {
    const limits = { maxBytes: config.max_body_bytes, maxPictures: config.max_pictures_per_request };
    const { dictionary, inputs } = await receiveMultipart(req, limits, store);
    const parts = readDictionary(dictionary, config, model, await needsBeside(inputs.length));
    if (inputs.length > 0) refusePicturesInside(parts);
    const inside = await draftOf(parts, undefined).receive(store);
    return { request: inside.request, inputs: [...inputs, ...inside.inputs] };
  }

  /** What a dictionary must bring beside the pictures that came outside of it. */
  async function needsBeside(pictures: number): Promise<Needs | undefined> {
    const needs = await needsOf(api, model);
    return needs && pictures > 0 ? { ...needs, picture: "optional" } : needs;
  }
}

async function submitOne(
  api: Api,
  req: Request,
  res: Response,
  draft: Draft,
  options: SubmissionOptions,
): Promise<void> {
  const { predictions } = api;
  const model = pathParameter(req, "model");
  const waitMs = (options.waitSeconds ?? 0) * 1000;
  // The watch begins before the job is added, so that its end can't be missed and one look at the end is enough.
  const watch = waitMs > 0 ? predictions.watch(model, draft.id) : undefined;
  const gone = abortWhenGone(res, api.closing);
  try {
    const [outcome] = await acceptPredictions(api, model, [draft], options);
    if (outcome instanceof InfermillError) throw outcome;
    const ended =
      watch && !isFinal(outcome!.status)
        ? await predictions.wait(model, draft.id, waitMs, gone.signal, watch).catch(orStill(outcome!))
        : outcome!;
    if (options.waitSeconds !== undefined) res.set("Preference-Applied", `wait=${options.waitSeconds}`);
    sendPrediction(res, ended, isFinal(ended.status) ? 200 : 202);
  } finally {
    watch?.stop();
    gone.stop();
  }
}

/** What was accepted is accepted, also where Redis goes away while its end is waited for. */
function orStill(accepted: Prediction): (error: unknown) => Prediction {
  return (error) => {
    if (error instanceof RedisUnavailableError) return accepted;
    throw error;
  };
}

function streamedDraft(options: SubmissionOptions, receive: Draft["receive"]): Draft {
  const clientId = clientIdOf(options);
  return { id: clientId ?? newPredictionId(), isIdempotent: clientId !== undefined, receive };
}

function refusePicturesInside({ pictures, references }: RequestParts): void {
  if (pictures.length + references.length === 0) return;
  throw new BadInputError(
    "a request's pictures come either as files in image or inside the field request, got both",
  );
}

export function sendPrediction(res: Response, prediction: Prediction, status: 200 | 202): void {
  if (status === 202) res.set("Location", prediction.links.self);
  if (!isFinal(prediction.status)) res.set("Retry-After", "1");
  // It is another a moment later.
  res.set("Cache-Control", "no-store");
  res.status(status).json(prediction);
}
