/** The table of routes: method, path, handler, and what the OpenAPI document says of each. */
import type { Request } from "express";
import { z } from "zod";
import type { ZodOpenApiOperationObject, ZodOpenApiResponsesObject } from "zod-openapi";
import type { Config } from "../config/schema.ts";
import { requestSchema } from "../imil/requestSchema.ts";
import type { Route } from "./api.ts";
import { answerImil } from "./handlers/answerImil.ts";
import { manifestLineSchema } from "./bulk/manifest.ts";
import { bulkFolderSchema, manifestQuerySchema } from "./bulk/request.ts";
import {
  bulkListQuerySchema,
  cancelBulkRun,
  createBulkRun,
  deleteBulkRun,
  getBulkRun,
  listBulkRuns,
  resumeBulkRun,
} from "./handlers/bulkRuns.ts";
import { listPredictions, predictionListQuerySchema } from "./handlers/listPredictions.ts";
import { cancelPrediction } from "./handlers/cancelPrediction.ts";
import { getPrediction } from "./handlers/getPrediction.ts";
import { live, modelReady, ready } from "./handlers/health.ts";
import { getModel, listModels } from "./handlers/models.ts";
import { getDocs, getIndex, getMetrics, getOpenApi } from "./handlers/site.ts";
import {
  deliveriesQuerySchema,
  getDeliveriesOfPrediction,
  getDelivery,
  listDeliveries,
  replayDelivery,
} from "./handlers/webhooks.ts";
import { resultsQuerySchema, streamBulkEvents, streamBulkResults } from "./handlers/streamBulk.ts";
import { streamEvents } from "./handlers/streamEvents.ts";
import { submitPrediction } from "./handlers/submitPrediction.ts";
import * as schemas from "./schemas.ts";
import { MAX_WAIT_SECONDS, submissionQuerySchema, waitQuerySchema } from "./submissionOptions.ts";

const model = z.string().meta({ description: "Name of a configured model.", example: "CocoObjectDetection" });
const id = z.string().meta({ description: "Id of the prediction." });
const run = z.string().meta({ description: "Id of the bulk run." });
const onePath = z.object({ model, id });
const deliveryId = z.string().meta({ description: "Id of the delivery, its webhook-id." });

const PROBLEMS: Readonly<Record<number, string>> = {
  400: "The body can't be read.",
  404: "No such model, prediction or bulk run.",
  409: "The prediction ended already, or the bulk run can't be resumed.",
  413: "The body is too large.",
  415: "Unsupported Content-Type.",
  422: "The request can't be used, or its key or id was used with another request.",
  429: "The model's queue is full; see Retry-After.",
  500: "The loader failed, or its engine died.",
  503: "Redis can't be reached; see Retry-After.",
  504: "The prediction ran or waited too long.",
};

function problems(...statuses: number[]): ZodOpenApiResponsesObject {
  return Object.fromEntries(
    statuses.map((status) => [
      String(status),
      {
        description: PROBLEMS[status]!,
        content: { "application/problem+json": { schema: schemas.problemSchema } },
      },
    ]),
  );
}

function answer(description: string, schema: z.ZodType, headers?: Record<string, z.ZodType>) {
  return {
    description,
    content: { "application/json": { schema } },
    ...(headers && { headers: z.object(headers) }),
  };
}

const binary = z.string().meta({ override: { type: "string", format: "binary" } });
const requestBody: ZodOpenApiOperationObject["requestBody"] = {
  required: true,
  content: {
    "image/*": { schema: binary },
    "multipart/form-data": {
      schema: z.object({
        image: z.array(binary).optional().meta({ description: "The pictures, as files." }),
        request: requestSchema.optional(),
      }),
    },
    "application/json": { schema: z.union([requestSchema, z.array(requestSchema)]) },
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
const acceptedHeaders = {
  Location: z.string().meta({ description: "URL of the prediction." }),
  "Retry-After": z.string().meta({ description: "Seconds after which to poll." }),
};

const submitDescription =
  "The body is the picture itself (`image/*`, keys of the dictionary as further query parameters), a form, a request dictionary, or many of them. " +
  "Many are answered with 202 when at least one was accepted, each with its prediction or its problem; `Prefer` is ignored for them.";

const imilProblems = Object.fromEntries(
  [400, 404, 409, 413, 415, 422, 429, 500, 503, 504].map((status) => [
    String(status),
    {
      description: PROBLEMS[status]!,
      content: { "application/problem+json": { schema: schemas.imilProblemSchema } },
    },
  ]),
);

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
      ...(fixedModel === undefined && { requestParams: { path: z.object({ Model: model }) } }),
      requestBody: { required: true, content: { "application/json": { schema: requestSchema } } },
      responses: { 200: answer("The response dictionary.", schemas.responseSchema), ...imilProblems },
    },
  };
}

export const routes: readonly Route[] = [
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
        path: z.object({ model }),
        query: submissionQuerySchema,
        header: z.object({
          Prefer: preferHeader,
          "Idempotency-Key": z
            .string()
            .min(1)
            .max(255)
            .optional()
            .meta({ description: "The same key and the same request give the first prediction again." }),
        }),
      },
      requestBody,
      responses: {
        200: answer("The prediction has ended.", schemas.predictionSchema),
        202: answer(
          "Accepted.",
          z.union([schemas.predictionSchema, schemas.manyPredictionsSchema]),
          acceptedHeaders,
        ),
        ...problems(400, 404, 413, 415, 422, 429, 503),
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
      requestParams: { path: z.object({ model }), query: predictionListQuerySchema },
      responses: {
        200: answer("The predictions.", schemas.predictionListSchema),
        ...problems(404, 422, 503),
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
        200: answer("The prediction has ended.", schemas.predictionSchema),
        202: answer("Accepted.", schemas.predictionSchema, acceptedHeaders),
        ...problems(400, 404, 413, 415, 422, 429, 503),
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
      responses: { 200: answer("The prediction.", schemas.predictionSchema), ...problems(404, 422, 503) },
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
      responses: { 200: answer("It is cancelled.", schemas.predictionSchema), ...problems(404, 409, 503) },
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
        header: z.object({
          "Last-Event-ID": z
            .string()
            .optional()
            .meta({ description: "The last event that was seen; what is known already is not told again." }),
        }),
      },
      responses: {
        200: { description: "The stream.", content: { "text/event-stream": { schema: z.string() } } },
        204: { description: "Last-Event-ID is the end: there is nothing more to come." },
        ...problems(404, 503),
      },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}/predictions/{id}/deliveries",
    handler: getDeliveriesOfPrediction,
    operation: {
      operationId: "getDeliveriesOfPrediction",
      summary: "The webhook delivery of a prediction, with its attempts",
      tags: ["webhooks"],
      requestParams: { path: onePath },
      responses: {
        200: answer("The deliveries.", schemas.deliveriesOfPredictionSchema),
        ...problems(404, 503),
      },
    },
  },
  {
    method: "get",
    path: "/v1/webhooks/deliveries",
    handler: listDeliveries,
    operation: {
      operationId: "listDeliveries",
      summary: "List the webhook deliveries of one status",
      tags: ["webhooks"],
      requestParams: { query: deliveriesQuerySchema },
      responses: { 200: answer("The deliveries.", schemas.deliveriesSchema), ...problems(422, 503) },
    },
  },
  {
    method: "get",
    path: "/v1/webhooks/deliveries/{delivery}",
    handler: getDelivery,
    operation: {
      operationId: "getDelivery",
      summary: "Read a webhook delivery",
      tags: ["webhooks"],
      requestParams: { path: z.object({ delivery: deliveryId }) },
      responses: { 200: answer("The delivery.", schemas.deliverySchema), ...problems(404, 503) },
    },
  },
  {
    method: "post",
    path: "/v1/webhooks/deliveries/{delivery}/replay",
    handler: replayDelivery,
    operation: {
      operationId: "replayDelivery",
      summary: "Send a webhook again",
      description:
        "With all attempts before it, under the same webhook-id; one that waits for its next attempt goes out at once. A URL that answered 410 gets another chance.",
      tags: ["webhooks"],
      requestParams: { path: z.object({ delivery: deliveryId }) },
      responses: { 202: answer("The delivery.", schemas.deliverySchema), ...problems(404, 503) },
    },
  },
  {
    method: "post",
    path: "/v1/bulk",
    handler: createBulkRun,
    operation: {
      operationId: "createBulkRun",
      summary: "Start a bulk run",
      description:
        "Over a folder below `bulk_roots` (a JSON body), or over the lines of a manifest (NDJSON, the rest as query parameters), which are all checked before anything runs.",
      tags: ["bulk runs"],
      requestParams: { query: manifestQuerySchema.partial() },
      requestBody: {
        required: true,
        content: {
          "application/json": { schema: bulkFolderSchema },
          "application/x-ndjson": { schema: manifestLineSchema },
        },
      },
      responses: {
        202: answer("Accepted.", schemas.bulkRunSchema, acceptedHeaders),
        ...problems(400, 404, 413, 415, 422, 503),
      },
    },
  },
  {
    method: "get",
    path: "/v1/bulk",
    handler: listBulkRuns,
    operation: {
      operationId: "listBulkRuns",
      summary: "List the bulk runs, the newest first",
      tags: ["bulk runs"],
      requestParams: { query: bulkListQuerySchema },
      responses: { 200: answer("The runs.", schemas.bulkRunsSchema), ...problems(422, 503) },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}",
    handler: getBulkRun,
    operation: {
      operationId: "getBulkRun",
      summary: "Read how a bulk run stands",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run }) },
      responses: { 200: answer("The run.", schemas.bulkRunSchema), ...problems(404, 503) },
    },
  },
  {
    method: "delete",
    path: "/v1/bulk/{run}",
    handler: deleteBulkRun,
    operation: {
      operationId: "deleteBulkRun",
      summary: "Cancel a bulk run, or delete one that has ended",
      description: "A cancelled run keeps the results that are there; deleting it removes them.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run }) },
      responses: {
        200: answer("It is cancelled.", schemas.bulkRunSchema),
        202: answer("It will be cancelled once what runs has ended.", schemas.bulkRunSchema),
        204: { description: "It had ended and is deleted." },
        ...problems(404, 503),
      },
    },
  },
  {
    method: "post",
    path: "/v1/bulk/{run}/cancel",
    handler: cancelBulkRun,
    operation: {
      operationId: "cancelBulkRun",
      summary: "Cancel a bulk run, and leave one that has ended as it is",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run }) },
      responses: {
        200: answer("It has ended.", schemas.bulkRunSchema),
        202: answer("It will be cancelled once what runs has ended.", schemas.bulkRunSchema),
        ...problems(404, 503),
      },
    },
  },
  {
    method: "post",
    path: "/v1/bulk/{run}/resume",
    handler: resumeBulkRun,
    operation: {
      operationId: "resumeBulkRun",
      summary: "Go on with a bulk run that failed or was cancelled",
      description: "It goes on behind the results that are there, with the entries that have none.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run }) },
      responses: {
        202: answer("Accepted.", schemas.bulkRunSchema, acceptedHeaders),
        ...problems(404, 409, 503),
      },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/results",
    handler: streamBulkResults,
    operation: {
      operationId: "streamBulkResults",
      summary: "Read the outcomes, also while the run goes on",
      description:
        "A line of JSON for each entry, in the order in which they ended: `index`, `status`, `line`, `path` or `custom_id`, `result` or `error`, `timings`.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run }), query: resultsQuerySchema },
      responses: {
        200: { description: "The stream.", content: { "application/x-ndjson": { schema: z.string() } } },
        ...problems(404, 422, 503),
      },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/events",
    handler: streamBulkEvents,
    operation: {
      operationId: "streamBulkEvents",
      summary: "Follow a bulk run",
      description: "Server-sent events: `progress` with the run as data, about once a second, until it ends.",
      tags: ["bulk runs"],
      requestParams: {
        path: z.object({ run }),
        header: z.object({
          "Last-Event-ID": z
            .string()
            .optional()
            .meta({ description: "The event that was seen last; it is not sent again." }),
        }),
      },
      responses: {
        200: { description: "The stream.", content: { "text/event-stream": { schema: z.string() } } },
        204: { description: "Last-Event-ID is the end: there is nothing more to come." },
        ...problems(404, 503),
      },
    },
  },
  {
    method: "get",
    path: "/v1/models",
    handler: listModels,
    operation: {
      operationId: "listModels",
      summary: "List the models",
      tags: ["models"],
      responses: { 200: answer("What is served.", schemas.modelsSchema), ...problems(503) },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}",
    handler: getModel,
    operation: {
      operationId: "getModel",
      summary: "Describe a model",
      tags: ["models"],
      requestParams: { path: z.object({ model }) },
      responses: { 200: answer("The model.", schemas.modelSchema), ...problems(404, 503) },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}/ready",
    handler: modelReady,
    operation: {
      operationId: "modelReady",
      summary: "Whether a model is served and gets on",
      tags: ["models"],
      requestParams: { path: z.object({ model }) },
      responses: {
        200: answer("The model is ready.", schemas.modelReadinessSchema),
        ...problems(404),
        503: {
          description: "What is missing, or Redis can't be reached.",
          content: {
            "application/json": { schema: schemas.modelReadinessSchema },
            "application/problem+json": { schema: schemas.problemSchema },
          },
        },
      },
    },
  },
  {
    method: "get",
    path: "/health/live",
    handler: live,
    operation: {
      operationId: "live",
      summary: "Whether the process runs",
      tags: ["operations"],
      responses: { 200: answer("It does.", z.object({ status: z.literal("live") })) },
    },
  },
  {
    method: "get",
    path: "/health/ready",
    handler: ready,
    operation: {
      operationId: "ready",
      summary: "Whether every model is served and gets on",
      tags: ["operations"],
      responses: {
        200: answer("Every model is ready.", schemas.readinessSchema),
        503: answer("What is missing, for each model.", schemas.readinessSchema),
      },
    },
  },
  {
    method: "get",
    path: "/metrics",
    handler: getMetrics,
    operation: {
      operationId: "getMetrics",
      summary: "Metrics for Prometheus",
      tags: ["operations"],
      responses: {
        200: { description: "Exposition format.", content: { "text/plain": { schema: z.string() } } },
      },
    },
  },
  {
    method: "get",
    path: "/",
    handler: getIndex,
    operation: {
      operationId: "getIndex",
      summary: "Where everything is",
      tags: ["operations"],
      responses: {
        200: answer("Links.", z.object({ name: z.string(), links: z.record(z.string(), z.string()) })),
      },
    },
  },
  {
    method: "get",
    path: "/openapi.json",
    handler: getOpenApi,
    operation: {
      operationId: "getOpenApi",
      summary: "This document",
      tags: ["operations"],
      responses: { 200: answer("OpenAPI 3.1.", z.looseObject({})) },
    },
  },
  {
    method: "get",
    path: "/docs",
    handler: getDocs,
    operation: {
      operationId: "getDocs",
      summary: "This document as a page to try it on",
      tags: ["operations"],
      responses: { 200: { description: "HTML.", content: { "text/html": { schema: z.string() } } } },
    },
  },
  // Last, because its path fits every other of one part.
  imilRoute("/{Model}", (req) => String(req.params["Model"])),
];

/** IMIL's endpoint on a path of its own for each of `endpoints`, but not where a model has that name. */
export function endpointRoutes({ endpoints, models }: Config): Route[] {
  return Object.entries(endpoints)
    .filter(([path]) => !Object.hasOwn(models, path.slice(1)))
    .map(([path, name]) => imilRoute(path, () => name, name));
}
