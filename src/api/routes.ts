/** The table of routes: method, path, handler, and what the OpenAPI document says of each. */
import { z } from "zod";
import type { ZodOpenApiOperationObject, ZodOpenApiResponsesObject } from "zod-openapi";
import type { Route } from "./api.ts";
import { cancelPrediction } from "./handlers/cancelPrediction.ts";
import { getPrediction } from "./handlers/getPrediction.ts";
import { live, ready } from "./handlers/health.ts";
import { getModel, listModels } from "./handlers/models.ts";
import { getDocs, getIndex, getMetrics, getOpenApi } from "./handlers/site.ts";
import { streamEvents } from "./handlers/streamEvents.ts";
import { submitPrediction } from "./handlers/submitPrediction.ts";
import { requestSchema } from "./requestDictionary.ts";
import * as schemas from "./schemas.ts";
import { LONGEST_WAIT_SECONDS, submissionQuerySchema, waitQuerySchema } from "./submissionOptions.ts";

const model = z.string().meta({ description: "Name of a configured model.", example: "CocoObjectDetection" });
const id = z.string().meta({ description: "Id of the prediction." });
const onePath = z.object({ model, id });

const PROBLEMS: Readonly<Record<number, string>> = {
  400: "The body can't be read.",
  404: "No such model or prediction.",
  409: "The prediction ended already.",
  413: "The body is too large.",
  415: "Unsupported Content-Type.",
  422: "The request can't be used, or its key or id was used with another request.",
  429: "The model's queue is full; see Retry-After.",
  503: "Redis can't be reached; see Retry-After.",
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
    description: `wait=N: seconds (at most ${LONGEST_WAIT_SECONDS}) to wait for the prediction to end.`,
    example: "wait=10",
  });
const acceptedHeaders = {
  Location: z.string().meta({ description: "URL of the prediction." }),
  "Retry-After": z.string().meta({ description: "Seconds after which to poll." }),
};

const submitDescription =
  "The body is the picture itself (`image/*`, keys of the dictionary as further query parameters), a form, a request dictionary, or many of them. " +
  "Many are answered with 202 when at least one was accepted, each with its prediction or its problem; `Prefer` is ignored for them.";

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
      requestParams: { path: onePath },
      responses: {
        200: { description: "The stream.", content: { "text/event-stream": { schema: z.string() } } },
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
];
