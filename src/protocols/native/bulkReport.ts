/** What came out of a bulk run: `GET /v1/bulk/{run}/summary`, its entries a page at a time, their pictures, the report. */
import type { Request, Response } from "express";
import { z } from "zod";
import { pathParameter, type Api, type Route } from "../../api/api.ts";
import { jsonAnswer, problemAnswers, problemSchema } from "../../api/operations.ts";
import { hasEnded, SKIP_REASONS } from "../../core/bulkRun.ts";
import {
  ENTRY_SORTS,
  SCORE_BINS,
  STAGES,
  type BulkEntryPage,
  type BulkSummary,
} from "../../core/bulkSummary.ts";
import { parseWith } from "../../core/faults.ts";
import { PICTURE_FORMATS } from "../../core/pictureFormats.ts";
import { NotFoundError } from "../../errors.ts";
import { entryOf, findResult, readEntryPage } from "../../report/entries.ts";
import { forBrowsers, readEntryPicture } from "../../report/entryPicture.ts";
import { makeReport } from "../../report/report.ts";
import { REPORT_POLICY } from "../../report/reportPage.ts";
import { readThumbnail } from "../../report/thumbnails.ts";
import { bulkRunSchema, runParameter } from "./bulkRunSchema.ts";
import { limitParameter, numberOfQuery, wholeParameter } from "./parameters.ts";
import { count, outputSchema } from "./schemas.ts";

const milliseconds = z.number().meta({ description: "Milliseconds." });
const entryName = {
  index: count.meta({ description: "Of the entry, from 0." }),
  path: z.string().optional().meta({ description: "Of a file, below the run's folder." }),
  custom_id: z.string().optional().meta({ description: "Of a manifest's entry." }),
};

const summarySchema = z
  .object({
    run: bulkRunSchema,
    verdict: z.string().meta({
      description: "The outcome in one line.",
      example: "204 of 205, 1 failed, 17 s, 12.2/s",
    }),
    counts: z.object({
      total: count,
      done: count,
      succeeded: count,
      failed: count,
      skipped: count,
      findings: count,
      without_findings: count.meta({
        description: "Entries that succeeded and in which nothing was found; 0 where the model has none.",
      }),
    }),
    seconds: z.number().nullable().meta({ description: "Time that was worked, without interruptions." }),
    per_second: z.number().nullable().meta({ description: "Entries a second over that time." }),
    rate: z
      .object({
        interval_seconds: z.number(),
        points: z.array(
          z.object({ at: z.string().meta({ format: "date-time" }), succeeded: count, failed: count }),
        ),
      })
      .meta({ description: "Entries by the time at which they ended, at most 120 points." }),
    stages: z
      .array(
        z.object({
          stage: z.enum(STAGES),
          mean_ms: milliseconds,
          p50_ms: milliseconds,
          p95_ms: milliseconds,
          max_ms: milliseconds,
          share: z
            .number()
            .nullable()
            .meta({ description: "Of the time in the engine, 0 to 1; null for queue." }),
        }),
      )
      .meta({ description: "Where the time of the entries that succeeded went." }),
    labels: z
      .array(
        z.object({
          label: z.string(),
          count: count.meta({ description: "Findings." }),
          entries: count.meta({ description: "Entries with at least one of them." }),
          mean_score: z.number(),
          colour: z.string().meta({ description: "As it is drawn everywhere.", example: "#1f77b4" }),
        }),
      )
      .meta({ description: "The most frequent, at most 100." }),
    more_labels: count.meta({ description: "Findings with other labels." }),
    scores: z
      .object({
        bins: z.array(count).length(SCORE_BINS),
        mean: z.number(),
        min: z.number(),
        max: z.number(),
      })
      .nullable()
      .meta({ description: "Of all findings; `bins[0]` counts the scores below 0.05, and so on." }),
    failures: z
      .array(
        z.object({
          code: z.string(),
          title: z.string(),
          reason: z
            .string()
            .meta({ description: "The details, with what differs from one to the next as “…”." }),
          count,
          examples: z.array(z.object({ ...entryName, detail: z.string() })),
        }),
      )
      .meta({ description: "The most frequent reasons, at most 50." }),
    more_failures: count.meta({ description: "Entries that failed for other reasons." }),
    slowest: z
      .array(z.object({ ...entryName, duration_ms: milliseconds }))
      .meta({ description: "The longest in the engine, at most 20." }),
    left_out: z.array(
      z.object({
        reason: z.enum(SKIP_REASONS),
        count,
        examples: z.array(
          z.object({ path: z.string(), reason: z.enum(SKIP_REASONS), detail: z.string().optional() }),
        ),
      }),
    ),
    copies: z
      .object({ drawn: count, failed: count, first_failure: z.string().nullable() })
      .nullable()
      .meta({ description: "Annotated copies, once the run has ended; null where it makes none." }),
    configuration: z.object({
      model: z.string(),
      used: z
        .object({
          version: z.string(),
          loader: z.string(),
          model_path: z.array(z.string()),
          device: z.array(z.string()),
          settings: z.record(
            z.string(),
            z.union([z.number(), z.boolean(), z.array(z.union([z.string(), z.number()]))]),
          ),
        })
        .nullable()
        .meta({ description: "The model as it was configured when the run began." }),
      folder: z.string().nullable(),
      glob: z.string().nullable(),
      request: z.record(z.string(), z.unknown()),
      annotate: z.string().nullable().meta({ description: "Where annotated copies go." }),
      from_command_line: z.boolean(),
    }),
  })
  .meta({ id: "BulkSummary" });
// Fails to compile when the document and src/core no longer mean the same.
summarySchema satisfies z.ZodType<BulkSummary>;

const entrySchema = z
  .object({
    ...entryName,
    id: z.string().meta({ description: "Of its prediction: `<run>-<index>`." }),
    line: count.meta({ description: "Of its line in the results, from 1." }),
    status: z.enum(["succeeded", "failed"]),
    response: z.record(z.string(), z.unknown()).nullable().optional(),
    outputs: z.array(outputSchema).optional(),
    error: z.object({ code: z.string(), title: z.string(), detail: z.string() }).optional(),
    timings: z
      .object({
        queue_ms: milliseconds,
        read_ms: milliseconds,
        preprocess_ms: milliseconds,
        infer_ms: milliseconds,
        postprocess_ms: milliseconds,
      })
      .optional(),
    duration_ms: milliseconds
      .nullable()
      .meta({ description: "In the engine, without the wait in the queue; null where it failed." }),
    score: z.number().nullable().meta({
      description: "The best of its findings, of those with `label` where that is asked for.",
    }),
    finished_at: z.string().nullable().meta({ format: "date-time" }),
    links: z.object({ thumbnail: z.string().nullable(), picture: z.string().nullable() }),
  })
  .meta({ id: "BulkEntry" });

const entryPageSchema = z
  .object({
    entries: z.array(entrySchema),
    next_cursor: z
      .string()
      .nullable()
      .meta({ description: "Continues behind the last entry; null where no more will come." }),
  })
  .meta({ id: "BulkEntryPage" });
entryPageSchema satisfies z.ZodType<BulkEntryPage>;

const error = "must be a number from 0 to 1";
const score = (description: string) =>
  z
    .preprocess(numberOfQuery, z.number({ error }).min(0, { error }).max(1, { error }))
    .optional()
    .meta({ description });

const entriesQuerySchema = z.object({
  status: z.enum(["succeeded", "failed"], { error: "must be succeeded or failed" }).optional(),
  label: z.string().optional().meta({ description: "Only entries with a finding of this label." }),
  min_score: score("Only entries with a finding of this score or more; with `label`, of that label."),
  max_score: score("Only entries with a finding of this score or less; with `label`, of that label."),
  sort: z
    .enum(ENTRY_SORTS, { error: `must be ${ENTRY_SORTS.join(", ")}` })
    .default("line")
    .meta({
      description:
        "line: as they ended; -duration: the slowest first; score: the least sure first, -score: the surest first, by `score`. Entries without a duration or a score are left out of those orders.",
    }),
  limit: limitParameter(200, 50),
  cursor: z.string().optional().meta({ description: "`next_cursor` of the page before." }),
});

async function getBulkSummary({ bulk }: Api, req: Request, res: Response): Promise<void> {
  res.json(await bulk.summarize(pathParameter(req, "run")));
}

async function listBulkEntries({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const query = parseWith(entriesQuerySchema, req.query);
  const id = pathParameter(req, "run");
  const spec = await bulk.readSpec(id);
  // Before the results are read: lines that come in between are behind the cursor.
  const isOver = hasEnded((await bulk.read(id)).status);
  res.json(await readEntryPage(id, bulk.resultsFile(spec), query, isOver));
}

const at = wholeParameter(0, Number.MAX_SAFE_INTEGER)
  .optional()
  .catch(undefined)
  .meta({ description: "Where its line begins in the results, as the link of the entry has it." });
const pictureQuerySchema = z.object({ at });
const thumbnailQuerySchema = z.object({
  annotated: z
    .enum(["true", "false"], { error: "must be true or false" })
    .default("true")
    .meta({ description: "Whether what was found is drawn in." }),
  at,
});

/** Made once and then the same, unless the picture itself changes. */
const CACHED = { "Cache-Control": "private, max-age=3600" };

async function getEntryThumbnail(api: Api, req: Request, res: Response): Promise<void> {
  const { annotated, at: place } = parseWith(thumbnailQuerySchema, req.query);
  const { spec, folder, result } = await readEntry(api, req, place);
  const options = { spec, folder, config: api.config, annotated: annotated === "true" };
  const bytes = await readThumbnail(result, options);
  res.set(CACHED).type("image/jpeg").send(bytes);
}

async function getEntryPicture(api: Api, req: Request, res: Response): Promise<void> {
  const { spec, folder, result } = await readEntry(api, req, parseWith(pictureQuerySchema, req.query).at);
  const picture = await readEntryPicture(spec, folder, result, api.config);
  const { bytes, format } = await forBrowsers(picture, api.config.max_picture_pixels);
  res
    .set({ ...CACHED, "Content-Security-Policy": "default-src 'none'; sandbox" })
    .type(PICTURE_FORMATS[format].mediaTypes[0]!)
    .send(bytes);
}

async function readEntry({ bulk }: Api, req: Request, place: number | undefined) {
  const id = pathParameter(req, "run");
  const spec = await bulk.readSpec(id);
  const folder = bulk.folder(id);
  const index = pathParameter(req, "index");
  const found = /^\d{1,15}$/.test(index)
    ? await findResult(bulk.resultsFile(spec), Number(index), place)
    : undefined;
  if (!found) throw new NotFoundError(`${id} has no entry ${JSON.stringify(index.slice(0, 20))} that ended`);
  return { spec, folder, ...found };
}

async function getBulkEntry(api: Api, req: Request, res: Response): Promise<void> {
  const { spec, result, at: place } = await readEntry(api, req, undefined);
  res.json(entryOf(spec.id, result, place));
}

async function getBulkReport({ bulk, config }: Api, req: Request, res: Response): Promise<void> {
  const page = await makeReport(bulk, pathParameter(req, "run"), config);
  res.set({ "Cache-Control": "no-store", "Content-Security-Policy": `${REPORT_POLICY}; sandbox` });
  res.type("html").send(page);
}

const entryParameters = z.object({
  run: runParameter,
  index: z.string().meta({ description: "Index of the entry." }),
});
const picture = (mediaType: string, description: string) => ({
  description,
  content: { [mediaType]: { schema: z.string().meta({ override: { type: "string", format: "binary" } }) } },
});
const noPicture = {
  404: {
    description: "No such run or entry, or its picture can't be reached from here; `detail` says why.",
    content: { "application/problem+json": { schema: problemSchema } },
  },
};

export const reportRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v1/bulk/{run}/summary",
    handler: getBulkSummary,
    operation: {
      operationId: "getBulkSummary",
      summary: "Read what came out of a bulk run",
      description: "Also while it continues: of the entries that have ended so far.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }) },
      responses: { 200: jsonAnswer("The summary.", summarySchema), ...problemAnswers([404, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/entries",
    handler: listBulkEntries,
    operation: {
      operationId: "listBulkEntries",
      summary: "List the entries of a bulk run that have ended",
      description:
        "A page can have fewer entries than `limit` and yet a `next_cursor`, where few of many lines match.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }), query: entriesQuerySchema },
      responses: { 200: jsonAnswer("A page.", entryPageSchema), ...problemAnswers([404, 422, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/entries/{index}",
    handler: getBulkEntry,
    operation: {
      operationId: "getBulkEntry",
      summary: "Read one entry of a bulk run that has ended",
      tags: ["bulk runs"],
      requestParams: { path: entryParameters },
      responses: { 200: jsonAnswer("The entry.", entrySchema), ...problemAnswers([404, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/entries/{index}/thumbnail",
    handler: getEntryThumbnail,
    operation: {
      operationId: "getBulkEntryThumbnail",
      summary: "A small picture of an entry, with what was found drawn in",
      tags: ["bulk runs"],
      requestParams: { path: entryParameters, query: thumbnailQuerySchema },
      responses: {
        200: picture("image/jpeg", "Upright, its long side 320 pixels."),
        ...noPicture,
        ...problemAnswers([422, 503]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/entries/{index}/picture",
    handler: getEntryPicture,
    operation: {
      operationId: "getBulkEntryPicture",
      summary: "The picture of an entry, without what was found",
      description: "The file as it is; a TIFF or HEIC, which browsers don't show, as a JPEG.",
      tags: ["bulk runs"],
      requestParams: { path: entryParameters, query: pictureQuerySchema },
      responses: { 200: picture("image/*", "The picture."), ...noPicture, ...problemAnswers([422, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/report",
    handler: getBulkReport,
    operation: {
      operationId: "getBulkReport",
      summary: "The report of a bulk run",
      description:
        "One HTML file that opens anywhere: verdict, failures, plots, and thumbnails of some of its entries. Also while it continues: of the entries that have ended so far.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }) },
      responses: {
        200: { description: "The page.", content: { "text/html": { schema: z.string() } } },
        ...problemAnswers([404, 503]),
      },
    },
  },
];
