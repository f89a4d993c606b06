/** What the api answers, as zod schemas: the OpenAPI document is made from them. */
import { z } from "zod";
import { STATUSES, type Prediction } from "../queue/jobs.ts";

const time = (description: string) => z.string().nullable().meta({ description, format: "date-time" });
const count = z.int().min(0);

export const findingSchema = z
  .looseObject({
    Cs: z.number().meta({ description: "Confidence, 0 to 1." }),
    Lb: z.string().meta({ description: "Label." }),
    Dm: z.unknown().meta({
      description:
        "Box as fractions of the picture: {X, Y, W, H} with X, Y the top-left corner; {} where there is none.",
      example: { X: 0.1, Y: 0.2, W: 0.3, H: 0.4 },
    }),
  })
  .meta({ id: "Finding" });

export const responseSchema = z
  .looseObject({
    Fs: z.array(findingSchema).meta({ description: "What was found; [] where nothing was." }),
    Rc: z.string().meta({ description: 'Response code, "200".' }),
    Rm: z.string().meta({ description: 'Response message, "Success".' }),
  })
  .meta({
    id: "PredictionResponse",
    description: "The response dictionary: the request's keys echoed, and the findings.",
  });

export const predictionSchema = z
  .object({
    id: z.string(),
    model: z.string(),
    status: z.enum(STATUSES).meta({ description: "succeeded, failed, cancelled and expired are final." }),
    created_at: z.string().meta({ format: "date-time" }),
    started_at: time("When it last began to run."),
    finished_at: time("When it ended."),
    attempts: count.meta({ description: "How often it was started." }),
    result: responseSchema
      .nullable()
      .meta({ description: "The response dictionary of a prediction that succeeded." }),
    error: z
      .object({ code: z.string(), title: z.string(), detail: z.string() })
      .nullable()
      .meta({ description: "Why it failed, expired or was cancelled. The code is stable." }),
    timings: z
      .object({
        queue_ms: z.number(),
        read_ms: z.number(),
        preprocess_ms: z.number(),
        infer_ms: z.number(),
        postprocess_ms: z.number(),
      })
      .nullable(),
    batch_size: z
      .int()
      .nullable()
      .meta({ description: "How many predictions the model ran together with this one, itself included." }),
    engine: z.string().nullable(),
    links: z.object({ self: z.string(), cancel: z.string(), events: z.string() }),
  })
  .meta({ id: "Prediction" });

// Fails to compile when the document and the queue no longer mean the same prediction.
predictionSchema satisfies z.ZodType<Omit<Prediction, "result">>;

export const problemSchema = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string().meta({ description: "What was expected, what came, what to do." }),
    code: z.string().meta({ description: "Stable, made to be compared with." }),
    errors: z
      .array(z.object({ key: z.string(), problem: z.string() }))
      .optional()
      .meta({ description: "Every fault, where there may be several." }),
  })
  .meta({ id: "Problem", description: "RFC 9457." });

export const manyPredictionsSchema = z
  .object({
    predictions: z.array(z.union([predictionSchema, problemSchema])).meta({
      description: "In the order of the requests: a prediction, or a problem with its line or index.",
    }),
  })
  .meta({ id: "Predictions" });

export const modelSchema = z
  .object({
    name: z.string(),
    loader: z.string(),
    device: z.array(z.string()),
    ready: z.boolean().meta({ description: "Whether an engine of a live worker is ready." }),
    labels: z.array(z.string()).nullable().meta({ description: "null until a worker has told." }),
    picture: z.enum(["required", "optional", "none"]).nullable(),
    tensors: z.unknown(),
    batch: z.object({
      max_batch_size: count,
      max_queue_delay_ms: z.number(),
      batch_limit: count.nullable().meta({ description: "What the model itself can take." }),
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
    queue: z.object({ waiting: count, running: count, delayed: count, failed: count, completed: count }),
    totals: z
      .object({
        batches: count,
        predictions: count,
        succeeded: count,
        failed: count,
        mean_batch_size: z.number().nullable(),
      })
      .meta({ description: "Since the live workers started." }),
    links: z.object({ self: z.string(), predictions: z.string() }),
  })
  .meta({ id: "Model" });

export const modelsSchema = z.object({ models: z.array(modelSchema) }).meta({ id: "Models" });

export const readinessSchema = z
  .object({
    status: z.enum(["ready", "not_ready"]),
    problems: z.array(z.string()).meta({ description: "What keeps all of it from being ready." }),
    models: z.record(
      z.string(),
      z.object({
        ready: z.boolean(),
        engines: z.object({ ready: count, all: count }),
        problems: z.array(z.string()),
      }),
    ),
  })
  .meta({ id: "Readiness" });

export type ModelDescription = z.output<typeof modelSchema>;
export type Readiness = z.output<typeof readinessSchema>;
