/** What the api answers, as zod schemas: the OpenAPI document is made from them. */
import { z } from "zod";
import { WEBHOOK_EVENTS } from "../config/webhooks.ts";
import { DELIVERY_STATUSES, type Delivery } from "../queue/deliveries.ts";
import { BULK_STATUSES, type BulkRun } from "../bulk/spec.ts";
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
    Kp: z
      .record(z.string(), z.array(z.number()))
      .optional()
      .meta({ description: 'Key points by number from "1": [x, y, z, score], as fractions of the picture.' }),
    Info: z
      .string()
      .optional()
      .meta({ description: "For a request of several pictures: the index of the picture, from 0." }),
  })
  .meta({ id: "Finding" });

const echoed = z.unknown().optional().meta({ description: "As the request has it." });

export const responseSchema = z
  .looseObject({
    Tid: echoed,
    Did: echoed,
    Fid: echoed,
    Ts: echoed,
    Ts_ntp: echoed,
    Msg_ver: echoed,
    Inf_ver: echoed,
    Ad: echoed,
    Lfp: echoed,
    Ffp: echoed,
    Ltsize: echoed,
    I_fn: echoed,
    Prompt: echoed,
    Hp: echoed,
    Mtp: z
      .array(
        z.looseObject({
          Stime: z.string().optional(),
          Etime: z.string().optional(),
          Src: z.string().optional(),
        }),
      )
      .optional()
      .meta({
        description:
          "The request's message travel path and one more step: start and end in UTC (YYYY-MM-DD,hh:mm:ss.mmm AM|PM) and the model.",
      }),
    Fs: z.array(findingSchema).meta({ description: "What was found; [] where nothing was." }),
    Obase_64: z.array(z.string()).optional().meta({ description: "Output pictures as base64." }),
    Img_url: z.array(z.string()).optional(),
    Rc: z.string().meta({ description: 'Response code: "200", or the HTTP status of the error.' }),
    Rm: z.string().meta({ description: 'Response message: "Success", or what went wrong.' }),
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

export const predictionListSchema = z
  .object({ predictions: z.array(predictionSchema) })
  .meta({ id: "PredictionList" });

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

export const imilProblemSchema = z
  .intersection(problemSchema, responseSchema)
  .meta({ id: "ImilProblem", description: "A problem that is a response dictionary too." });

export const manyPredictionsSchema = z
  .object({
    predictions: z.array(z.union([predictionSchema, problemSchema])).meta({
      description: "In the order of the requests: a prediction, or a problem with its line or index.",
    }),
  })
  .meta({ id: "Predictions" });

export const deliverySchema = z
  .object({
    id: z.string().meta({ description: "The webhook-id of every attempt." }),
    url: z.string(),
    status: z.enum(DELIVERY_STATUSES).meta({
      description:
        "pending until it was delivered, or failed in the last attempt; skipped where webhook_events leaves its event out.",
    }),
    event: z.enum(WEBHOOK_EVENTS).nullable(),
    prediction: z.object({ model: z.string(), id: z.string() }).nullable(),
    created_at: z.string().meta({ format: "date-time" }),
    finished_at: time("When it was delivered or given up."),
    next_attempt_at: time("When a delivery that failed is tried again."),
    error: z.string().nullable().meta({ description: "Of the last attempt." }),
    attempts: z.array(
      z.object({
        at: z.string().meta({ format: "date-time" }),
        status: z.int().nullable().meta({ description: "HTTP status; null where there was no answer." }),
        error: z.string().nullable(),
        ms: z.int(),
      }),
    ),
    links: z.object({ self: z.string(), replay: z.string() }),
  })
  .meta({ id: "Delivery" });

deliverySchema satisfies z.ZodType<Delivery>;

export const deliveriesOfPredictionSchema = z.object({
  deliveries: z.array(deliverySchema).meta({ description: "One where it has a webhook, else none." }),
});

export const deliveriesSchema = z
  .object({
    deliveries: z.array(deliverySchema).meta({ description: "The newest first." }),
    counts: z
      .object({ pending: count, delivered: count, failed: count })
      .meta({ description: "Of all that are on record; delivered includes skipped." }),
    gone: z
      .array(z.object({ url: z.string(), until: z.string().meta({ format: "date-time" }) }))
      .meta({ description: "URLs that answered 410 and are left alone." }),
  })
  .meta({ id: "Deliveries" });

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

export const bulkRunSchema = z
  .object({
    id: z.string(),
    model: z.string(),
    status: z.enum(BULK_STATUSES).meta({
      description:
        "completed: every entry has its line, whether it succeeded or failed; failed: the run itself could not go on.",
    }),
    folder: z.string().nullable().meta({ description: "null for a manifest." }),
    glob: z.string().nullable(),
    priority: z.enum(["high", "normal", "low"]),
    counts: z.object({
      total: count.meta({ description: "While the folder is walked, what was found so far." }),
      done: count,
      succeeded: count,
      failed: count,
    }),
    progress: z.number().nullable().meta({ description: "0 to 1; null until the folder is walked." }),
    images_per_second: z
      .number()
      .nullable()
      .meta({ description: "Of the last seconds; once it has ended, of the whole run." }),
    eta_seconds: count.nullable(),
    created_at: z.string().meta({ format: "date-time" }),
    started_at: time("When a coordinator began."),
    finished_at: time("When it ended."),
    error: z
      .object({ code: z.string(), title: z.string(), detail: z.string() })
      .nullable()
      .meta({ description: "Why the run itself failed." }),
    links: z.object({ self: z.string(), results: z.string(), events: z.string(), cancel: z.string() }),
  })
  .meta({ id: "BulkRun" });

// Fails to compile when the document and src/bulk no longer mean the same run.
bulkRunSchema satisfies z.ZodType<BulkRun>;

export const bulkRunsSchema = z.object({ runs: z.array(bulkRunSchema) }).meta({ id: "BulkRuns" });

export const modelReadinessSchema = z
  .object({
    ready: z.boolean(),
    engines: z.object({ ready: count, all: count }),
    problems: z.array(z.string()).meta({ description: "What keeps the model from being ready." }),
  })
  .meta({ id: "ModelReadiness" });

export const readinessSchema = z
  .object({
    status: z.enum(["ready", "not_ready"]),
    problems: z.array(z.string()).meta({ description: "What keeps all of it from being ready." }),
    models: z.record(z.string(), modelReadinessSchema),
  })
  .meta({ id: "Readiness" });

export type ModelDescription = z.output<typeof modelSchema>;
export type ModelReadiness = z.output<typeof modelReadinessSchema>;
export type Readiness = z.output<typeof readinessSchema>;
