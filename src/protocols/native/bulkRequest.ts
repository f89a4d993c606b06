/** What a bulk run is asked to do: the JSON body that names a folder, or the query parameters beside a manifest. */
import type { Request } from "express";
import { z } from "zod";
import { compileGlob } from "../../bulk/glob.ts";
import { checkFolderOfRun } from "../../bulk/entry.ts";
import { placeForCopies } from "../../bulk/copies.ts";
import { readResultsName } from "../../bulk/publish.ts";
import { parseFolderName, type RootedPath } from "../../config/bulkRoots.ts";
import type { Config } from "../../config/schema.ts";
import type { BulkSpec } from "../../bulk/spec.ts";
import { BULK_EVENTS } from "../../config/webhooks.ts";
import { BadInputError, InvalidRequestError, type Fault } from "../../errors.ts";
import { checkRequest } from "../../imil/requestSchema.ts";
import {
  deadlineSchema,
  failFastSchema,
  maxFailuresSchema,
  metadataSchema,
  prioritySchema,
  readLimits,
  type AskedLimits,
} from "../../core/bulkOptions.ts";
import { faultOf } from "../../core/faults.ts";
import type { Priority } from "../../core/prediction.ts";
import { newBulkRunId } from "../../queue/names.ts";
import { descriptionOf } from "../../api/service.ts";
import type { Api } from "../../api/api.ts";
import { checkRequestSize } from "../../api/requestDictionary.ts";
import { numberOfQuery } from "./parameters.ts";
import { readWebhook } from "./submissionOptions.ts";

const priority = prioritySchema.default("low").meta({
  description: "Against other predictions; low lets every interactive one of normal priority go first.",
});
const webhook = z.string({ error: "must be one URL" }).optional().meta({
  description: "URL that is notified of the end. Default: webhooks.url of the configuration, if any.",
});
const eventsText = `Ends to notify of: ${BULK_EVENTS.join(", ")}. Default: all.`;

const results = z.string({ error: "must be one name" }).min(1).optional().meta({
  description:
    "File that the results are also written to once the run is completed, below one of the configuration's results_roots, as <root>/<path>.ndjson. Default: none.",
  example: "found/2024/results.ndjson",
});

export const bulkFolderSchema = z
  .strictObject({
    model: z.string().meta({ description: "Name of a configured model." }),
    folder: z.string().min(1).meta({
      description:
        "A folder, or a prefix of a bucket, below one of the configuration's bulk_roots, as <root> or <root>/<path>.",
      example: "photos/2024",
    }),
    glob: z.string().max(1000).optional().meta({
      description:
        'Which files, by their path below the folder; a pattern without "/" is matched with the name alone. Upper and lower case are the same. Default: what is called like a picture or begins like one.',
      example: "**/*.jpg",
    }),
    request: z
      .record(z.string(), z.unknown())
      .default({})
      .meta({ description: "Keys for the request dictionary of every file.", example: { C_threshold: 0.4 } }),
    annotate: z.string().min(1).optional().meta({
      description:
        "Folder for copies of the pictures with what was found drawn in, below one of the configuration's annotate_roots, as <root> or <root>/<path>. Default: none are made.",
      example: "marked/2024",
    }),
    results,
    priority,
    fail_fast: failFastSchema.optional(),
    max_failures: maxFailuresSchema.optional(),
    deadline: deadlineSchema.optional(),
    metadata: metadataSchema.optional(),
    webhook,
    webhook_events: z
      .union([z.array(z.string()), z.string()])
      .optional()
      .meta({ description: eventsText }),
  })
  .meta({ id: "BulkFolder" });

export const manifestQuerySchema = z.strictObject({
  model: z
    .string({ error: "must name a configured model" })
    .meta({ description: "Name of a configured model." }),
  results,
  priority,
  fail_fast: z.preprocess(booleanOfQuery, failFastSchema.optional()),
  max_failures: z.preprocess(numberOfQuery, maxFailuresSchema.optional()),
  deadline: deadlineSchema.optional(),
  metadata: z
    .preprocess(jsonOfQuery, metadataSchema.optional())
    .meta({ description: "JSON: an object of texts, as in the body that names a folder." }),
  unique_custom_ids: z
    .preprocess(booleanOfQuery, z.boolean({ error: "must be true or false" }).default(false))
    .meta({
      description: "Refuses a manifest in which a custom_id comes twice, with both lines.",
    }),
  webhook,
  webhook_events: z
    .string()
    .optional()
    .meta({ description: `${eventsText} Separated by commas.` }),
});

/** @throws InvalidRequestError with all faults, ModelNotFoundError, BadInputError, BodyTooLargeError */
export async function readFolderRequest(api: Api, body: unknown): Promise<BulkSpec> {
  const { config } = api;
  const asked = check(bulkFolderSchema, body);
  const { root, path } = parseFolderName(asked.folder, config.bulk_roots);
  const source = { kind: "folder" as const, root, folder: path, glob: asked.glob };
  await checkFolderOfRun(source, config);
  if (asked.glob !== undefined) compileGlob(asked.glob);
  const needs = await descriptionOf(api, asked.model);
  checkRequest(asked.request, asked.model, needs && { ...needs, picture: "optional" });
  for (const key of ["Base_64", "image"])
    if (key in asked.request)
      throw new BadInputError(`request can't hold ${key}: the files are the pictures`);
  checkRequestSize(asked.request, config);
  const annotate = await readAnnotate(asked.annotate, config);
  return { ...(await specOf(api, asked, source, asked.request)), ...(annotate && { annotate }) };
}

async function readAnnotate(text: string | undefined, config: Config): Promise<RootedPath | undefined> {
  if (text === undefined) return undefined;
  const setting = { key: "annotate", setting: "annotate_roots" };
  const place = parseFolderName(text, config.annotate_roots, setting);
  await placeForCopies(place, config);
  return place;
}

/** @throws InvalidRequestError with all faults, ModelNotFoundError, BadInputError */
export async function readManifestQuery(
  api: Api,
  req: Request,
): Promise<{ spec: BulkSpec; hasUniqueIds: boolean }> {
  const asked = check(manifestQuerySchema, req.query);
  const spec = await specOf(api, asked, { kind: "manifest" }, {});
  return { spec, hasUniqueIds: asked.unique_custom_ids };
}

function booleanOfQuery(value: unknown): unknown {
  return value === "true" || value === "false" ? value === "true" : value;
}

function jsonOfQuery(value: unknown): unknown {
  try {
    return typeof value === "string" ? JSON.parse(value) : value;
  } catch {
    return value;
  }
}

async function specOf(
  { config, predictions }: Api,
  asked: {
    model: string;
    results?: string | undefined;
    priority: Priority;
    webhook?: string | undefined;
    webhook_events?: string | string[] | undefined;
    metadata?: Record<string, string> | undefined;
  } & AskedLimits,
  source: BulkSpec["source"],
  request: BulkSpec["request"],
): Promise<BulkSpec> {
  predictions.model(asked.model);
  const given = { webhook: asked.webhook, webhook_events: asked.webhook_events?.toString() };
  const faults: Fault[] = [];
  const hook = readWebhook(given, BULK_EVENTS, config, faults);
  const created = Date.now();
  const limits = readLimits(asked, created);
  if ("problem" in limits) faults.push(limits);
  if (faults.length > 0 || "problem" in limits) throw new InvalidRequestError(faults);
  return {
    id: newBulkRunId(),
    model: asked.model,
    source,
    request,
    priority: asked.priority,
    ...(Object.keys(limits).length > 0 && { limits }),
    ...(asked.metadata && { metadata: asked.metadata }),
    created,
    webhook: hook,
    ...(asked.results !== undefined && { results: await readResultsName(asked.results, config) }),
  };
}

function check<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const checked = schema.safeParse(value, { reportInput: true });
  if (checked.success) return checked.data;
  throw new InvalidRequestError(
    checked.error.issues.flatMap((issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => ({ key, problem: "is no key that is known here" }))
        : [faultOf(issue)],
    ),
  );
}
