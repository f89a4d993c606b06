/** Predictions as the native protocol answers them, as zod schemas: the OpenAPI document is made from them. */
import { z } from "zod";
import { problemSchema } from "../../api/operations.ts";
import { responseSchema } from "../../imil/responseSchema.ts";
import { STATUSES, type Prediction } from "../../core/prediction.ts";

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

export const manyPredictionsSchema = z
  .object({
    predictions: z.array(z.union([predictionSchema, problemSchema])).meta({
      description: "In the order of the requests: a prediction, or a problem with its line or index.",
    }),
  })
  .meta({ id: "Predictions" });
