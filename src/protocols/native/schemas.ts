/** Predictions as the native protocol answers them, as zod schemas: the OpenAPI document is made from them. */
import { z } from "zod";
import { problemSchema } from "../../api/operations.ts";
import { responseSchema } from "../../imil/responseSchema.ts";
import { STATUSES, type Prediction, type PredictionEntry } from "../../core/prediction.ts";

/** A time that is null until it has come. */
export const time = (description: string) => z.string().nullable().meta({ description, format: "date-time" });
export const count = z.int().min(0);

export const outputSchema = z
  .object({
    name: z.string(),
    media_type: z.string(),
    bytes: count.meta({ description: "Size in bytes." }),
    data: z.string().optional().meta({ description: "The bytes as base64, where they are few." }),
    url: z.string().meta({ description: "Where the bytes can be read." }),
  })
  .meta({ id: "Output" });

const errorSchema = z.object({ code: z.string(), title: z.string(), detail: z.string() });

const linksSchema = z.object({
  self: z.string(),
  cancel: z.string(),
  events: z.string(),
  retry: z.string().meta({ description: "To run it again." }),
  deliveries: z.string().meta({ description: "Its webhook deliveries." }),
  thumbnail: z.string().optional().meta({ description: "A small picture of its input, where there is one." }),
});

const timelineSchema = z
  .object({
    queued_at: z.string().meta({ description: "It was accepted.", format: "date-time" }),
    taken_at: time("A worker took it from the queue, the last time."),
    batch_at: time("Its batch was handed to an engine; known once it has succeeded."),
    infer_at: time("The model began to run; known once it has succeeded."),
    ended_at: time("It ended."),
  })
  .meta({ id: "Timeline" });

export const predictionSchema = z
  .object({
    id: z.string(),
    model: z.string(),
    status: z.enum(STATUSES).meta({ description: "succeeded, failed, cancelled and expired are final." }),
    created_at: z.string().meta({ format: "date-time" }),
    started_at: time("When it last began to run."),
    finished_at: time("When it ended."),
    attempts: count.meta({ description: "How often it was started." }),
    result: z
      .union([responseSchema, z.looseObject({})])
      .nullable()
      .meta({
        description:
          "The response dictionary of a prediction that succeeded: IMIL's of models that find things, else the loader's own.",
      }),
    outputs: z
      .array(outputSchema)
      .meta({ description: "Bytes beside the result: pictures, masks, large tensors." }),
    error: errorSchema
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
    timeline: timelineSchema,
    stack: z.string().optional().meta({
      description: "Where its last attempt failed, as far as its loader says; only where one is read.",
    }),
    links: linksSchema,
  })
  .meta({ id: "Prediction" });

// Fails to compile when the document and the queue no longer mean the same prediction.
predictionSchema satisfies z.ZodType<Omit<Prediction, "result">>;

export const predictionListSchema = z
  .object({ predictions: z.array(predictionSchema) })
  .meta({ id: "PredictionList" });

/** Of `GET /v1/predictions`. */
export const predictionEntrySchema = z
  .object({
    id: z.string(),
    model: z.string(),
    status: z.enum(STATUSES),
    created_at: z.string().meta({ format: "date-time" }),
    started_at: time("When it last began to run."),
    finished_at: time("When it ended."),
    wait_ms: z.number().nullable().meta({
      description: "From acceptance until an engine, or until now; null of one that ended waiting.",
    }),
    run_ms: z.number().nullable().meta({ description: "In an engine; null until it has succeeded." }),
    attempts: count,
    batch_size: z.int().nullable(),
    engine: z.string().nullable(),
    error: errorSchema.nullable(),
    links: linksSchema,
  })
  .meta({ id: "PredictionEntry", description: "A prediction without its response." });
predictionEntrySchema satisfies z.ZodType<PredictionEntry>;

export const predictionEntriesSchema = z
  .object({
    predictions: z.array(predictionEntrySchema).meta({
      description:
        "Those that have not ended first, the newest first; then those that ended, the last first.",
    }),
    next_cursor: z.string().nullable().meta({ description: "Of the next page; null where there is none." }),
  })
  .meta({ id: "PredictionEntries" });

export const manyPredictionsSchema = z
  .object({
    predictions: z.array(z.union([predictionSchema, problemSchema])).meta({
      description: "In the order of the requests: a prediction, or a problem with its line or index.",
    }),
  })
  .meta({ id: "Predictions" });
