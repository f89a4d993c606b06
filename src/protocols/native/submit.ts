/** `POST …/predictions` and `PUT …/predictions/{id}`: one prediction, in any of the body forms, or many. */
import type { Request, Response } from "express";
import { pathParameter, type Api } from "../../api/api.ts";
import { receiveMultipart } from "../../api/body/multipart.ts";
import { bodyForm, limitBody, mediaType, parseJson, readWholeBody, textOf } from "../../api/body/read.ts";
import { labelInput } from "../../api/mediaTypes.ts";
import { readDictionary } from "../../api/requestDictionary.ts";
import {
  descriptionOf,
  draftOf,
  LIGHT_BYTES,
  submitAndWait,
  type Draft,
  type RequestParts,
  type StoreInput,
} from "../../api/service.ts";
import { withTensorData } from "../../api/tensorData.ts";
import { clientOf } from "../../api/waiting.ts";
import { inputsOfDescription, type LoaderDescription } from "../../core/description.ts";
import { BadInputError } from "../../errors.ts";
import { isFinal, type Prediction } from "../../core/prediction.ts";
import { newPredictionId } from "../../queue/names.ts";
import { clientIdOf, readSubmissionOptions, type NativeOptions } from "./submissionOptions.ts";
import { submitMany } from "./submitMany.ts";

export async function submitPrediction(api: Api, req: Request, res: Response): Promise<void> {
  const { config } = api;
  const model = pathParameter(req, "model");
  const form = bodyForm(req, config.max_body_bytes);
  const options = readSubmissionOptions(req, form === "bytes", config);
  const length = Number(req.headers["content-length"] ?? Infinity);
  const description = await descriptionOf(api, model);
  const draft = await draftOfBody();
  if (draft) await submitDraft(api, res, model, draft, options);

  /** Bodies that are streamed are read by their draft, once there is room; undefined for many requests in one body. */
  async function draftOfBody(): Promise<Draft | undefined> {
    if (form === "bytes") return draftOfBytes();
    if (form === "multipart") return streamedDraft(options, length, receiveForm);
    const text = textOf(await readWholeBody(req, config.max_body_bytes));
    const body = form === "json" ? parseJson(text, "the body") : text.split("\n");
    if (Array.isArray(body)) {
      await submitMany(api, req, res, body as unknown[], options, form === "ndjson" ? "line" : "index");
      return undefined;
    }
    return draftOf(readDictionary(body, config, model, description), clientIdOf(options));
  }

  async function draftOfBytes(): Promise<Draft> {
    const type = mediaType(req.headers["content-type"] ?? "");
    if (type === "text/plain" && takesText(description)) {
      const dictionary = {
        ...options.dictionary,
        Text: textOf(await readWholeBody(req, config.max_body_bytes)),
      };
      return draftOf(readDictionary(dictionary, config, model, description), clientIdOf(options));
    }
    const label = labelInput(type, undefined, description);
    return streamedDraft(options, length, async (store) => {
      const { request } = readDictionary(options.dictionary, config, model, without(description));
      const body =
        length <= LIGHT_BYTES
          ? await readWholeBody(req, config.max_body_bytes)
          : limitBody(req, config.max_body_bytes);
      return { request, inputs: [await store(body, label)] };
    });
  }

  async function receiveForm(store: StoreInput) {
    const limits = { maxBytes: config.max_body_bytes, maxPictures: config.max_pictures_per_request };
    const labelOf = (field: string, type: string) => labelInput(type, field, description);
    const { dictionary, inputs } = await receiveMultipart(req, limits, store, labelOf);
    const beside = inputs.length > 0 ? without(description) : description;
    const parts = readDictionary(dictionary, config, model, beside);
    if (inputs.length > 0) refuseInputsInside(parts);
    const inside = await draftOf(parts).receive(store);
    return { request: inside.request, inputs: [...inputs, ...inside.inputs] };
  }
}

/** Submits a prediction, and answers it once it has ended, or as long as its client waits. */
export async function submitDraft(
  api: Api,
  res: Response,
  model: string,
  draft: Draft,
  options: NativeOptions,
): Promise<void> {
  const waitMs = (options.waitSeconds ?? 0) * 1000;
  const prediction = await submitAndWait(api, model, draft, options, { waitMs, client: clientOf(res) });
  if (options.waitSeconds !== undefined) res.set("Preference-Applied", `wait=${options.waitSeconds}`);
  sendPrediction(res, await withTensorData(api, prediction), isFinal(prediction.status) ? 200 : 202);
}

/** What a dictionary must bring beside inputs that came outside of it. */
function without(description: LoaderDescription | undefined): LoaderDescription | undefined {
  return description && { ...description, picture: "optional" };
}

/** Whether the model reads the key `Text`, and no file. */
function takesText(description: LoaderDescription | undefined): boolean {
  if (!description) return false;
  return description.requiredKeys?.includes("Text") || inputsOfDescription(description).length === 0;
}

/** @param length of the body in bytes, where its client says so */
function streamedDraft(options: NativeOptions, length: number, receive: Draft["receive"]): Draft {
  const clientId = clientIdOf(options);
  return {
    id: clientId ?? newPredictionId(),
    isIdempotent: clientId !== undefined,
    isLight: length <= LIGHT_BYTES,
    receive,
  };
}

function refuseInputsInside({ inputs }: RequestParts): void {
  if (inputs.length === 0) return;
  throw new BadInputError(
    "a request's pictures come either as files of the form or inside the field request, got both",
  );
}

export function sendPrediction(res: Response, prediction: Prediction, status: 200 | 202): void {
  if (status === 202) res.set("Location", prediction.links.self);
  if (!isFinal(prediction.status)) res.set("Retry-After", "1");
  // It is another a moment later.
  res.set("Cache-Control", "no-store");
  res.status(status).json(prediction);
}
