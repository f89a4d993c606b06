/** A bulk run as the native protocol answers it, as a zod schema. */
import { z } from "zod";
import { BULK_STATUSES, SKIP_REASONS, type BulkRun } from "../../core/bulkRun.ts";
import { count, time } from "./schemas.ts";

export const runParameter = z.string().meta({ description: "Id of the bulk run." });

export const bulkRunSchema = z
  .object({
    id: z.string(),
    model: z.string(),
    status: z.enum(BULK_STATUSES).meta({
      description:
        "completed: every entry has its line, whether it succeeded or failed; failed: the run itself could not continue.",
    }),
    folder: z.string().nullable().meta({ description: "null for a manifest." }),
    glob: z.string().nullable(),
    priority: z.enum(["high", "normal", "low"]),
    max_failures: count
      .nullable()
      .meta({ description: "Entries that may fail before the run gives up; null for any number." }),
    deadline: time("When it gives up if it has not ended."),
    metadata: z.record(z.string(), z.string()).meta({ description: "As its client gave it." }),
    counts: z.object({
      total: count.meta({ description: "While the folder is walked, what was found so far." }),
      done: count,
      succeeded: count,
      failed: count,
    }),
    skipped: z.object({ total: count, by_reason: z.partialRecord(z.enum(SKIP_REASONS), count) }).meta({
      description: "What was found in the folder and left out, by reason; see /v1/bulk/{run}/skipped.",
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
    links: z.object({
      self: z.string(),
      results: z.string(),
      skipped: z.string(),
      events: z.string(),
      cancel: z.string(),
      summary: z.string(),
      entries: z.string(),
      report: z.string(),
    }),
  })
  .meta({ id: "BulkRun" });
// Fails to compile when the document and src/bulk no longer mean the same run.
bulkRunSchema satisfies z.ZodType<BulkRun>;
