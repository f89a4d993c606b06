/** `/v1/models/{model}/predictions`: submit, list, read or wait for, follow, cancel. */
import type { Request, Response } from "express";
import { z } from "zod";
import type { ZodOpenApiOperationObject } from "zod-openapi";
import { pathParameter, type Api, type Route } from "../../api/api.ts";
import {
  acceptedHeaders,
  eventStreamAnswers,
  jsonAnswer,
  lastEventIdHeader,
  modelParameter,
  predictionLinks,
  problemAnswers,
} from "../../api/operations.ts";
import { streamState } from "../../api/streamState.ts";
import { withTensorData } from "../../api/tensorData.ts";
import { abortWhenGone, clientOf } from "../../api/waiting.ts";
import { parseWith } from "../../core/faults.ts";
import { thumbnailLink } from "../../core/links.ts";
import { ThumbnailNotFoundError } from "../../errors.ts";
import { requestSchema } from "../../imil/requestSchema.ts";
import { isFinal, type Prediction } from "../../core/prediction.ts";
import { limitParameter, statusParameter } from "./parameters.ts";
import { manyPredictionsSchema, predictionListSchema, predictionSchema } from "./schemas.ts";
import { retryPrediction } from "./retry.ts";
import { sendPrediction, submitPrediction } from "./submit.ts";
import {
  idempotencyKeyHeader,
  MAX_WAIT_SECONDS,
  submissionQuerySchema,
  waitQuerySchema,
} from "./submissionOptions.ts";

const MAX_LISTED = 100;

const predictionListQuerySchema = z.object({
  status: statusParameter,
  limit: limitParameter(MAX_LISTED, 20),
});

async function listPredictions({ predictions }: Api, req: Request, res: Response): Promise<void> {
  const { limit, status } = parseWith(predictionListQuerySchema, req.query);
  const listed = await predictions.list(pathParameter(req, "model"), limit, status);
  res.set("Cache-Control", "no-store").json({ predictions: listed });
}

async function getPrediction(api: Api, req: Request, res: Response): Promise<void> {
  const checked = parseWith(waitQuerySchema, req.query);
  const gone = abortWhenGone(clientOf(res), api.closing);
  try {
    const waitMs = (checked.wait ?? 0) * 1000;
    const [model, id] = [pathParameter(req, "model"), pathParameter(req, "id")];
    const prediction = await api.predictions.wait(model, id, waitMs, gone.signal);
    sendPrediction(res, await withDetails(api, await withTensorData(api, prediction)), 200);
  } finally {
    gone.stop();
  }
}

/** What only a look at one prediction is worth. */
async function withDetails({ predictions }: Api, prediction: Prediction): Promise<Prediction> {
  const { model, id, status, links } = prediction;
  if (!isFinal(status)) return prediction;
  const [[hasThumbnail], stack] = await Promise.all([
    predictions.thumbnails.has(model, [id]),
    status === "failed" ? predictions.stackOf(model, id) : undefined,
  ]);
  return {
    ...prediction,
    ...(stack !== undefined && { stack }),
    links: { ...links, ...(hasThumbnail && { thumbnail: thumbnailLink(model, id) }) },
  };
}

/** `GET …/predictions/{id}/thumbnail` */
async function getThumbnail({ predictions }: Api, req: Request, res: Response): Promise<void> {
  const [model, id] = [pathParameter(req, "model"), pathParameter(req, "id")];
  const bytes = await predictions.thumbnails.read(model, id);
  if (!bytes) {
    throw new ThumbnailNotFoundError(
      `there is no thumbnail of the prediction ${id}: not every prediction has one (console.thumbnails)`,
    );
  }
  res.set({ "Content-Type": "image/webp", "Cache-Control": "private, max-age=86400" }).send(bytes);
}

async function cancelPrediction({ predictions }: Api, req: Request, res: Response): Promise<void> {
  res.json(await predictions.cancel(pathParameter(req, "model"), pathParameter(req, "id")));
}

/** Only endings are announced; that it began to run is seen by looking. */
const LOOK_INTERVAL_MS = 1000;

async function streamEvents(api: Api, req: Request, res: Response): Promise<void> {
  const { predictions, closing } = api;
  const [model, id] = [pathParameter(req, "model"), pathParameter(req, "id")];
  const first = await withTensorData(api, await predictions.read(model, id));
  await streamState(req, res, closing, first, {
    event: "status",
    idOf: eventId,
    hasEnded: ({ status }) => isFinal(status),
    next: async (signal) => withTensorData(api, await predictions.wait(model, id, LOOK_INTERVAL_MS, signal)),
  });
}

/** The same status comes again where a prediction is tried again. */
function eventId({ attempts, status }: Prediction): string {
  return `${attempts}-${status}`;
}

const id = z.string().meta({ description: "Id of the prediction." });
const onePath = z.object({ model: modelParameter, id });
const binary = z.string().meta({ override: { type: "string", format: "binary" } });
/** Beside the files of a form, which are its pictures. */
const requestOfForm = requestSchema
  .omit({ Base_64: true, image: true })
  .meta({ id: undefined, description: "Keys of the request dictionary.", example: { C_threshold: 0.4 } });
const requestBody: ZodOpenApiOperationObject["requestBody"] = {
  required: true,
  content: {
    // Ranges such as image/* would be sent as they stand by pages that read this document.
    "image/jpeg": { schema: binary },
    "image/png": { schema: binary },
    "image/webp": { schema: binary },
    "application/octet-stream": { schema: binary },
    "multipart/form-data": {
      schema: z.object({
        image: z.array(binary).optional().meta({ description: "The pictures, as files." }),
        request: requestOfForm.optional(),
      }),
    },
    "application/json": {
      schema: z.union([requestSchema, z.array(requestSchema)]),
    },
    "application/x-ndjson": { schema: z.string().meta({ description: "A request dictionary a line." }) },
  },
};

const preferHeader = z
  .string()
  .optional()
  .meta({
    description: `wait=N: seconds (at most ${MAX_WAIT_SECONDS}) to wait for the prediction to end.`,
    example: "wait=10",
  });

const submissionHeaders = z.object({
  Prefer: preferHeader,
  "Idempotency-Key": idempotencyKeyHeader(
    "The same key and the same request give the first prediction again.",
  ),
});

const submitDescription =
  "The body is the picture itself (`image/jpeg`, or `application/octet-stream` for one to be recognised by its bytes; keys of the dictionary as further query parameters), a form, a request dictionary, or many of them. " +
  "Many are answered with 202 when at least one was accepted, each with its prediction or its problem; `Prefer` is ignored for them.";

export const predictionRoutes: readonly Route[] = [
  {
    method: "post",
    path: "/v1/models/{model}/predictions",
    handler: submitPrediction,
    operation: {
      operationId: "submitPrediction",
      summary: "Submit a prediction",
      description: submitDescription,
      tags: ["predictions"],
      requestParams: {
        path: z.object({ model: modelParameter }),
        query: submissionQuerySchema,
        header: submissionHeaders,
      },
      requestBody,
      responses: {
        200: jsonAnswer("The prediction has ended.", predictionSchema),
        202: {
          ...jsonAnswer("Accepted.", z.union([predictionSchema, manyPredictionsSchema]), acceptedHeaders),
          ...predictionLinks,
        },
        ...problemAnswers([400, 404, 408, 413, 415, 422, 429, 503, 507]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}/predictions",
    handler: listPredictions,
    operation: {
      operationId: "listPredictions",
      summary: "List the predictions of a model, the newest first",
      tags: ["predictions"],
      requestParams: { path: z.object({ model: modelParameter }), query: predictionListQuerySchema },
      responses: {
        200: jsonAnswer("The predictions.", predictionListSchema),
        ...problemAnswers([404, 422, 503]),
      },
    },
  },
  {
    method: "put",
    path: "/v1/models/{model}/predictions/{id}",
    handler: submitPrediction,
    operation: {
      operationId: "putPrediction",
      summary: "Submit a prediction under an id of one's own",
      description: "Idempotent: the same request again gives the first prediction again.",
      tags: ["predictions"],
      requestParams: {
        path: onePath,
        query: submissionQuerySchema,
        header: z.object({ Prefer: preferHeader }),
      },
      requestBody,
      responses: {
        200: jsonAnswer("The prediction has ended.", predictionSchema),
        202: { ...jsonAnswer("Accepted.", predictionSchema, acceptedHeaders), ...predictionLinks },
        ...problemAnswers([400, 404, 408, 413, 415, 422, 429, 503, 507]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}/predictions/{id}",
    handler: getPrediction,
    operation: {
      operationId: "getPrediction",
      summary: "Read a prediction, or wait for its end",
      tags: ["predictions"],
      requestParams: { path: onePath, query: waitQuerySchema },
      responses: { 200: jsonAnswer("The prediction.", predictionSchema), ...problemAnswers([404, 422, 503]) },
    },
  },
  {
    method: "delete",
    path: "/v1/models/{model}/predictions/{id}",
    handler: cancelPrediction,
    operation: {
      operationId: "cancelPrediction",
      summary: "Cancel a prediction",
      description:
        "One that waits is cancelled at once, of one that runs the outcome is dropped. Once more is harmless.",
      tags: ["predictions"],
      requestParams: { path: onePath },
      responses: {
        200: jsonAnswer("It is cancelled.", predictionSchema),
        ...problemAnswers([404, 409, 503]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}/predictions/{id}/thumbnail",
    handler: getThumbnail,
    operation: {
      operationId: "getThumbnail",
      summary: "A small picture of a prediction's input",
      description:
        "Kept for as long as the prediction, where there is one: `links.thumbnail` says so (`console.thumbnails`).",
      tags: ["predictions"],
      requestParams: { path: onePath },
      responses: {
        200: { description: "The picture.", content: { "image/webp": { schema: binary } } },
        ...problemAnswers([404, 503]),
      },
    },
  },
  {
    method: "post",
    path: "/v1/models/{model}/predictions/{id}/retry",
    handler: retryPrediction,
    operation: {
      operationId: "retryPrediction",
      summary: "Run a prediction again",
      description:
        "A new prediction of the same request, with the priority and timeout of the first unless the query says otherwise. What was uploaded must still be there (`console.keep_inputs`); what came by reference, by URL or in the dictionary always is.",
      tags: ["predictions"],
      requestParams: { path: onePath, query: submissionQuerySchema, header: submissionHeaders },
      responses: {
        200: jsonAnswer("The new prediction has ended.", predictionSchema),
        202: jsonAnswer("Accepted.", predictionSchema, acceptedHeaders),
        ...problemAnswers([404, 409, 410, 422, 429, 503]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}/predictions/{id}/events",
    handler: streamEvents,
    operation: {
      operationId: "streamEvents",
      summary: "Follow a prediction",
      description:
        "Server-sent events: `status` with the prediction as data at every change of its status, until it ends.",
      tags: ["predictions"],
      requestParams: {
        path: onePath,
        header: lastEventIdHeader,
      },
      responses: {
        ...eventStreamAnswers,
        ...problemAnswers([404, 503]),
      },
    },
  },
];
