/** `/v2`: the Open Inference Protocol over HTTP, with Triton's extensions. */
import type { Request, Response } from "express";
import { z } from "zod";
import type { ZodOpenApiOperationObject } from "zod-openapi";
import { pathParameter, type Api, type Route } from "../../api/api.ts";
import { parseJson, readWholeBody, textOf } from "../../api/body/read.ts";
import { jsonAnswer, modelParameter, problemAnswers } from "../../api/operations.ts";
import type { EncodeError } from "../../api/problems.ts";
import { checkReadiness } from "../../api/readiness.ts";
import { clientOf } from "../../api/waiting.ts";
import { parseWith } from "../../core/faults.ts";
import { InfermillError } from "../../errors.ts";
import {
  isModelReady,
  modelConfiguration,
  modelMetadata,
  repositoryIndex,
  serverMetadata,
  statistics,
} from "./describe.ts";
import { readInferBody, sendAnswer } from "./httpBody.ts";
import { checkVersion, infer, knownDescription } from "./infer.ts";
import { inferRequestSchema } from "./inferRequest.ts";

/** Models are loaded and unloaded by the configuration. */
export class NotSupportedError extends InfermillError {
  override readonly code = "not_supported";
  override readonly title = "Not supported";
  override readonly status = 501;
}

export const LOADING_REFUSED =
  "models can't be loaded or unloaded here: the configuration says which are served (POST /v1/models/{model}/load loads one again that failed)";

/** The protocol's own form; what is wrong with a request is 400 here. */
export const encodeError: EncodeError = (_error, { status, detail }) => ({
  status: status === 422 ? 400 : status,
  body: { error: detail },
});

type Handler = (api: Api, req: Request, res: Response, model: string) => void | Promise<void>;

async function answerInfer(api: Api, req: Request, res: Response, model: string): Promise<void> {
  const request = await readInferBody(req, api.config.max_body_bytes, () => knownDescription(api, model));
  sendAnswer(res, model, request, await infer(api, model, request, clientOf(res)));
}

async function getModelReady(api: Api, _req: Request, res: Response, name: string): Promise<void> {
  const ready = await isModelReady(api, name);
  res.status(ready ? 200 : 503).json({ name, ready });
}

async function serverReady(api: Api, _req: Request, res: Response): Promise<void> {
  const ready = (await checkReadiness(api)).status === "ready";
  res.status(ready ? 200 : 503).json({ live: true, ready });
}

async function postIndex(api: Api, req: Request, res: Response): Promise<void> {
  const text = textOf(await readWholeBody(req, api.config.max_body_bytes));
  const { ready } = parseWith(indexRequestSchema, text.trim() === "" ? {} : parseJson(text, "the body"));
  res.json(await repositoryIndex(api, ready));
}

function refuseLoading(): void {
  throw new NotSupportedError(LOADING_REFUSED);
}

const errorSchema = z
  .object({ error: z.string().meta({ description: "What was expected, what came, what to do." }) })
  .meta({ id: "InferenceError", description: "The Open Inference Protocol's form of an error." });
const errors = (...statuses: number[]) => problemAnswers(statuses, errorSchema, "application/json");

const indexRequestSchema = z
  .object({
    ready: z
      .boolean({ error: "must be true or false" })
      .default(false)
      .meta({ description: "Only models that are ready." }),
  })
  .meta({ id: "RepositoryIndexRequest" });
const indexSchema = z
  .array(
    z.object({
      name: z.string(),
      version: z.string(),
      state: z.enum(["READY", "UNAVAILABLE"]),
      reason: z.string().meta({ description: "Why it is not ready." }),
    }),
  )
  .meta({ id: "RepositoryIndex" });

const tensorMetadataSchema = z.object({
  name: z.string(),
  datatype: z.string(),
  shape: z.array(z.int()).meta({ description: "-1 where a dimension is free." }),
});
const modelMetadataSchema = z
  .object({
    name: z.string(),
    versions: z.array(z.string()),
    platform: z.string(),
    inputs: z.array(tensorMetadataSchema),
    outputs: z.array(tensorMetadataSchema),
  })
  .meta({ id: "ModelMetadata" });
const serverMetadataSchema = z
  .object({ name: z.string(), version: z.string(), extensions: z.array(z.string()) })
  .meta({ id: "ServerMetadata" });
const modelConfigurationSchema = z
  .looseObject({ name: z.string(), max_batch_size: z.int() })
  .meta({ id: "ModelConfiguration", description: "Triton's ModelConfig, as far as it has a meaning here." });
const statisticsSchema = z
  .object({
    model_stats: z.array(
      z.looseObject({
        name: z.string(),
        version: z.string(),
        inference_count: z.int(),
        execution_count: z.int(),
      }),
    ),
  })
  .meta({ id: "ModelStatistics", description: "Since the live workers started; durations in ns." });
const readySchema = z.object({ name: z.string(), ready: z.boolean() }).meta({ id: "OipModelReady" });
const serverReadySchema = z.object({ live: z.boolean(), ready: z.boolean() }).meta({ id: "OipServerReady" });
const binary = { schema: z.string().meta({ override: { type: "string", format: "binary" } }) };

const answerSchema = z
  .object({
    model_name: z.string(),
    model_version: z.string(),
    id: z.string().optional(),
    outputs: z.array(
      z.object({
        name: z.string(),
        datatype: z.string(),
        shape: z.array(z.int()),
        parameters: z.looseObject({}).optional(),
        data: z.array(z.unknown()).optional().meta({ description: "Left out for binary data." }),
      }),
    ),
  })
  .meta({ id: "InferResponse" });

/** A route of a model, and the same with its version in the path. */
function modelRoutes(
  method: Route["method"],
  end: string,
  handle: Handler,
  operation: ZodOpenApiOperationObject & { operationId: string },
): Route[] {
  const handler: Route["handler"] = (api, req, res) => {
    const model = pathParameter(req, "model");
    checkVersion(model, req.params["version"] === undefined ? undefined : pathParameter(req, "version"));
    return handle(api, req, res, model);
  };
  const version = z.string().meta({ description: "1, the only one.", example: "1" });
  return [
    {
      method,
      path: `/v2/models/{model}${end}`,
      handler,
      operation: { ...operation, requestParams: { path: z.object({ model: modelParameter }) } },
    },
    {
      method,
      path: `/v2/models/{model}/versions/{version}${end}`,
      handler,
      operation: {
        ...operation,
        operationId: `${operation.operationId}OfVersion`,
        requestParams: { path: z.object({ model: modelParameter, version }) },
      },
    },
  ];
}

const tags = ["open inference protocol"];

export const openInferenceRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v2",
    handler: (_api, _req, res) => void res.json(serverMetadata),
    operation: {
      operationId: "oipServerMetadata",
      summary: "Name, version and extensions of the server",
      tags,
      responses: { 200: jsonAnswer("The server.", serverMetadataSchema) },
    },
  },
  {
    method: "get",
    path: "/v2/health/live",
    handler: (_api, _req, res) => void res.json({ live: true }),
    operation: {
      operationId: "oipServerLive",
      summary: "Whether the process runs",
      tags,
      responses: { 200: jsonAnswer("It does.", z.object({ live: z.literal(true) })) },
    },
  },
  {
    method: "get",
    path: "/v2/health/ready",
    handler: serverReady,
    operation: {
      operationId: "oipServerReady",
      summary: "Whether every model is ready",
      tags,
      responses: {
        200: jsonAnswer("Every model is ready.", serverReadySchema),
        503: jsonAnswer("Some model is not.", serverReadySchema),
      },
    },
  },
  {
    method: "get",
    path: "/v2/models/stats",
    handler: async (api, _req, res) => void res.json(await statistics(api)),
    operation: {
      operationId: "oipStatistics",
      summary: "Statistics of all models",
      tags,
      responses: { 200: jsonAnswer("The statistics.", statisticsSchema), ...errors(503) },
    },
  },
  ...modelRoutes("get", "", async (api, _req, res, model) => void res.json(await modelMetadata(api, model)), {
    operationId: "oipModelMetadata",
    summary: "Inputs and outputs of a model",
    tags,
    responses: { 200: jsonAnswer("The model.", modelMetadataSchema), ...errors(404, 503) },
  }),
  ...modelRoutes("get", "/ready", getModelReady, {
    operationId: "oipModelReady",
    summary: "Whether a model is ready",
    tags,
    responses: {
      200: jsonAnswer("It is.", readySchema),
      ...errors(404),
      503: jsonAnswer("It is not.", readySchema),
    },
  }),
  ...modelRoutes(
    "get",
    "/config",
    async (api, _req, res, model) => void res.json(await modelConfiguration(api, model)),
    {
      operationId: "oipModelConfiguration",
      summary: "A model's configuration, as Triton writes it",
      tags,
      responses: { 200: jsonAnswer("The configuration.", modelConfigurationSchema), ...errors(404, 503) },
    },
  ),
  ...modelRoutes(
    "get",
    "/stats",
    async (api, _req, res, model) => void res.json(await statistics(api, model)),
    {
      operationId: "oipModelStatistics",
      summary: "Statistics of a model",
      tags,
      responses: { 200: jsonAnswer("The statistics.", statisticsSchema), ...errors(404, 503) },
    },
  ),
  ...modelRoutes("post", "/infer", answerInfer, {
    operationId: "oipInfer",
    summary: "Run a model on tensors",
    description:
      "Answers once the prediction has ended; it goes through the same queue and batches. With `Inference-Header-Content-Length`, the bytes of tensors follow the JSON (binary tensor data extension). " +
      "A model that takes no tensors takes BYTES, each element of which is a prediction, and answers BYTES of JSON texts.",
    tags,
    requestBody: {
      required: true,
      content: { "application/json": { schema: inferRequestSchema }, "application/octet-stream": binary },
    },
    responses: {
      200: {
        description: "The outputs: as JSON, or with their bytes behind it.",
        content: { "application/json": { schema: answerSchema }, "application/octet-stream": binary },
      },
      ...errors(400, 404, 413, 415, 429, 500, 503, 504),
    },
  }),
  {
    method: "post",
    path: "/v2/repository/index",
    handler: postIndex,
    operation: {
      operationId: "oipRepositoryIndex",
      summary: "List the models and whether they are ready",
      tags,
      requestBody: { content: { "application/json": { schema: indexRequestSchema } } },
      responses: { 200: jsonAnswer("The models.", indexSchema), ...errors(400, 413, 503) },
    },
  },
  ...(["load", "unload"] as const).map((action): Route => ({
    method: "post",
    path: `/v2/repository/models/{model}/${action}`,
    handler: refuseLoading,
    operation: {
      operationId: `oip${action === "load" ? "Load" : "Unload"}Model`,
      summary: "Refused: the configuration says which models are served",
      tags,
      requestParams: { path: z.object({ model: modelParameter }) },
      responses: {
        ...errors(404),
        501: {
          description: "Not supported.",
          content: { "application/json": { schema: errorSchema } },
        },
      },
    },
  })),
];
