/** `GET /v1/models`, `GET /v1/models/{model}` and `…/ready`: what is served, and how it stands. */
import { inputsOfDescription } from "../../core/description.ts";
import type { ModelStatus } from "../../core/modelStatus.ts";
import { modelLinks } from "../../core/links.ts";
import type { Request, Response } from "express";
import { z } from "zod";
import { pathParameter, type Api, type Route } from "../../api/api.ts";
import { jsonAnswer, modelParameter, problemAnswers, problemSchema } from "../../api/operations.ts";
import { checkModel, modelReadinessSchema, reportsOf } from "../../api/readiness.ts";
import { DEFAULT_MAX_BATCH_SIZE } from "../../config/schema.ts";
import { STATISTICS_INTERVAL_MS } from "../../queue/statistics.ts";
import type { EngineReport, WorkerReport } from "../../queue/workerReports.ts";
import { count } from "./schemas.ts";

/** What OpenAI's clients read of a model, so that they can list them, too. */
const openAiModelSchema = z.object({
  id: z.string().meta({ description: "Its name." }),
  object: z.literal("model"),
  created: z
    .int()
    .meta({ description: "When its first live worker started, in Unix seconds; 0 without one." }),
  owned_by: z.string(),
});

const statisticsSchema = z
  .object({
    interval_seconds: count,
    points: z
      .array(
        z.object({
          at: z.string().meta({ description: "When the interval began.", format: "date-time" }),
          succeeded: count,
          failed: count,
          p50_ms: z.number().nullable().meta({ description: "In an engine, of those that succeeded." }),
          p95_ms: z.number().nullable(),
          mean_batch_size: z.number().nullable(),
        }),
      )
      .meta({ description: "The oldest first. Intervals in which nothing ended are left out." }),
  })
  .meta({
    id: "RecentStatistics",
    description: "Of the last 15 minutes, bulk runs included, by intervals that are over.",
  });

const modelSchema = z
  .object({
    name: z.string(),
    loader: z.string(),
    device: z.array(z.string()),
    ready: z.boolean().meta({ description: "Whether an engine of a live worker is ready." }),
    state: z
      .enum(["ready", "loading", "failed", "no_worker"])
      .meta({ description: "loading also of engines that start again." }),
    reason: z.string().nullable().meta({ description: "Why it is not ready." }),
    advice: z.string().nullable().meta({ description: "What to do about it." }),
    labels: z.array(z.string()).nullable().meta({ description: "null until a worker has told." }),
    picture: z.enum(["required", "optional", "none"]).nullable(),
    inputs: z
      .array(
        z.object({
          name: z.string(),
          media_types: z.array(z.string()),
          required: z.boolean(),
          multiple: z.boolean(),
        }),
      )
      .nullable()
      .meta({ description: "Bytes that a request may bring: form fields by name, with their media types." }),
    required_keys: z
      .array(z.string())
      .nullable()
      .meta({ description: "Keys that a request must have beside its inputs, such as Prompt." }),
    embeds: z
      .enum(["text", "picture"])
      .nullable()
      .meta({ description: "What it turns into vectors; null of others." }),
    tensors: z.unknown(),
    takes_tensors: z.boolean().nullable().meta({
      description: "Whether a request may bring inputs as the Open Inference Protocol writes them.",
    }),
    facts: z
      .record(z.string(), z.string())
      .nullable()
      .meta({ description: "What was read from the model's file and the files beside it." }),
    notes: z.array(z.string()).nullable().meta({
      description: "What was found when it was loaded and decided for it, with the setting that changes it.",
    }),
    batch: z.object({
      max_batch_size: count,
      max_queue_delay_ms: z.number(),
      batch_limit: count.nullable().meta({ description: "What the model itself can take." }),
      in_use: count.nullable().meta({ description: "Most that run together now; null until it is loaded." }),
    }),
    limits: z.object({
      timeout_ms: count,
      result_ttl_seconds: count,
      max_queue_length: count,
      attempts: count,
    }),
    engines: z.array(
      z.object({
        id: z.string(),
        worker: z.string(),
        device: z.string(),
        state: z.enum(["loading", "ready", "restarting", "failed"]),
        pid: z.int().nullable(),
        restarts: count,
        error: z.string().nullable(),
      }),
    ),
    queue: z.object({
      waiting: count,
      running: count,
      delayed: count,
      failed: count,
      completed: count,
      oldest_wait_seconds: z
        .number()
        .min(0)
        .meta({ description: "Of the prediction that has waited longest; 0 where none waits." }),
    }),
    totals: z
      .object({
        batches: count,
        predictions: count,
        succeeded: count,
        failed: count,
        mean_batch_size: z.number().nullable(),
      })
      .meta({ description: "Since the live workers started." }),
    statistics: statisticsSchema,
    links: z.object({ self: z.string(), predictions: z.string() }),
    ...openAiModelSchema.shape,
  })
  .meta({ id: "Model" });

const modelsSchema = z
  .object({
    models: z.array(modelSchema),
    object: z.literal("list"),
    data: z.array(openAiModelSchema).meta({ description: "The same for OpenAI's clients." }),
  })
  .meta({ id: "Models" });

type ModelDescription = z.output<typeof modelSchema>;
// Fails to compile when the document and what clients read no longer mean the same.
modelSchema satisfies z.ZodType<ModelStatus>;

async function listModels(api: Api, _req: Request, res: Response): Promise<void> {
  const reports = await api.predictions.workers();
  const names = Object.keys(api.config.models);
  const models = await Promise.all(names.map((name) => describeModel(api, name, reports)));
  const data = models.map(({ id, object, created, owned_by }) => ({ id, object, created, owned_by }));
  res.json({ models, object: "list", data });
}

async function getModel(api: Api, req: Request, res: Response): Promise<void> {
  res.json(await describeModel(api, pathParameter(req, "model"), await api.predictions.workers()));
}

async function modelReady(api: Api, req: Request, res: Response): Promise<void> {
  const readiness = await checkModel(api, pathParameter(req, "model"), await api.predictions.workers());
  res.status(readiness.ready ? 200 : 503).json(readiness);
}

async function loadModel(api: Api, req: Request, res: Response): Promise<void> {
  const model = pathParameter(req, "model");
  await api.predictions.requestLoad(model);
  const description = await describeModel(api, model, await api.predictions.workers());
  res.status(202).set("Location", `${description.links.self}/ready`).json(description);
}

/** A model's settings, and what the live workers report of it. */
export async function describeModel(
  { predictions }: Pick<Api, "predictions">,
  name: string,
  reports: readonly WorkerReport[],
): Promise<ModelDescription> {
  const model = predictions.model(name);
  const served = reportsOf(reports, name);
  const loaded = served.find(({ description }) => description !== null);
  const description = loaded?.description;
  const engines = served.flatMap(({ worker, engines: own }) => own.map((engine) => ({ ...engine, worker })));
  const sum = (key: "batches" | "predictions" | "succeeded" | "failed") =>
    served.reduce((total, { totals }) => total + totals[key], 0);
  const maxBatchSize = model.max_batch_size ?? DEFAULT_MAX_BATCH_SIZE;
  const [depth, waitMs, points] = await Promise.all([
    predictions.depth(name),
    predictions.longestWait(name),
    predictions.statistics(name),
  ]);
  return {
    name,
    loader: model.loader,
    device: [model.device].flat(),
    ready: engines.some(({ state }) => state === "ready"),
    ...stateOf(name, engines),
    labels: description?.labels.slice() ?? null,
    picture: description?.picture ?? null,
    inputs: description
      ? inputsOfDescription(description).map(({ name: input, mediaTypes, required, multiple }) => ({
          name: input,
          media_types: [...mediaTypes],
          required,
          multiple,
        }))
      : null,
    required_keys: description ? [...(description.requiredKeys ?? [])] : null,
    embeds: description?.embeds ?? null,
    tensors: description?.tensors ?? null,
    takes_tensors: description ? description.takesTensors === true : null,
    facts: description ? { ...description.facts } : null,
    notes: description ? [...(description.notes ?? [])] : null,
    batch: {
      max_batch_size: maxBatchSize,
      max_queue_delay_ms: model.max_queue_delay_ms,
      batch_limit: loaded?.batch_limit ?? null,
      in_use: loaded ? Math.min(maxBatchSize, loaded.batch_limit ?? Infinity) : null,
    },
    limits: {
      timeout_ms: model.timeout_ms,
      result_ttl_seconds: model.result_ttl_seconds,
      max_queue_length: model.max_queue_length,
      attempts: model.attempts,
    },
    engines,
    queue: { ...depth, oldest_wait_seconds: Math.round(waitMs / 100) / 10 },
    totals: {
      batches: sum("batches"),
      predictions: sum("predictions"),
      succeeded: sum("succeeded"),
      failed: sum("failed"),
      mean_batch_size:
        sum("batches") > 0 ? Math.round((sum("predictions") / sum("batches")) * 100) / 100 : null,
    },
    statistics: { interval_seconds: STATISTICS_INTERVAL_MS / 1000, points },
    links: modelLinks(name),
    id: name,
    object: "model",
    created: served.length > 0 ? startedAt(name, reports) : 0,
    owned_by: "infermill",
  };
}

function stateOf(
  name: string,
  engines: readonly EngineReport[],
): Pick<ModelDescription, "state" | "reason" | "advice"> {
  const reason = engines.find(({ error }) => error !== null)?.error ?? null;
  if (engines.some(({ state }) => state === "ready")) return { state: "ready", reason: null, advice: null };
  if (engines.length === 0) {
    return {
      state: "no_worker",
      reason: "no live worker serves it",
      advice: `start one that does: infermill start, or infermill worker --models ${name}`,
    };
  }
  if (engines.every(({ state }) => state === "failed")) {
    return {
      state: "failed",
      reason,
      advice: `fix what the reason names; it is loaded again when one of its files changes, or by POST ${modelLinks(name).self}/load`,
    };
  }
  const restarting = engines.some(({ state }) => state === "restarting");
  return {
    state: "loading",
    reason: reason ?? (restarting ? "its engines start again" : "its engines load it"),
    advice: restarting ? "the log of the worker says why they ended" : null,
  };
}

/** Unix seconds. */
function startedAt(name: string, reports: readonly WorkerReport[]): number {
  const times = reports.filter(({ models }) => models[name]).map(({ started_at }) => Date.parse(started_at));
  return Math.floor(Math.min(...times) / 1000);
}

export const modelRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v1/models",
    handler: listModels,
    operation: {
      operationId: "listModels",
      summary: "List the models",
      tags: ["models"],
      responses: { 200: jsonAnswer("What is served.", modelsSchema), ...problemAnswers([503]) },
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
      requestParams: { path: z.object({ model: modelParameter }) },
      responses: { 200: jsonAnswer("The model.", modelSchema), ...problemAnswers([404, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/models/{model}/ready",
    handler: modelReady,
    operation: {
      operationId: "modelReady",
      summary: "Whether a model is ready",
      tags: ["models"],
      requestParams: { path: z.object({ model: modelParameter }) },
      responses: {
        200: jsonAnswer("The model is ready.", modelReadinessSchema),
        ...problemAnswers([404]),
        503: {
          description: "What is missing, or Redis can't be reached.",
          content: {
            "application/json": { schema: modelReadinessSchema },
            "application/problem+json": { schema: problemSchema },
          },
        },
      },
    },
  },
  {
    method: "post",
    path: "/v1/models/{model}/load",
    handler: loadModel,
    operation: {
      operationId: "loadModel",
      summary: "Load a model that failed to load again",
      description: "On every worker that could not load it. One that is loaded is left as it is.",
      tags: ["models"],
      requestParams: { path: z.object({ model: modelParameter }) },
      responses: {
        202: jsonAnswer("The workers were asked.", modelSchema, {
          Location: z.string().meta({ description: "Where to see whether it is ready." }),
        }),
        ...problemAnswers([404, 503]),
      },
    },
  },
];
