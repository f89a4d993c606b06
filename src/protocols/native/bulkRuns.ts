/** `/v1/bulk`: start a bulk run over a folder or a manifest, list the runs, read one, cancel, resume or delete it. */
import { createHash, type Hash } from "node:crypto";
import type { Request, Response } from "express";
import { stringify } from "safe-stable-stringify";
import { z } from "zod";
import { acceptedHeaders, bulkRunLinks, jsonAnswer, problemAnswers } from "../../api/operations.ts";
import { streamRoutes } from "./bulkStreams.ts";
import { bulkRunSchema, runParameter } from "./bulkRunSchema.ts";
import { reportRoutes } from "./bulkReport.ts";
import type { BulkRuns } from "../../bulk/runs.ts";
import type { BulkSpec } from "../../bulk/spec.ts";
import { hasEnded, type BulkRun } from "../../core/bulkRun.ts";
import { RedisUnavailableError } from "../../errors.ts";
import { parseWith } from "../../core/faults.ts";
import { descriptionOf } from "../../api/service.ts";
import { limitParameter } from "./parameters.ts";
import { idempotencyKeyHeader, readIdempotencyKey } from "./submissionOptions.ts";
import { pathParameter, type Api, type Route } from "../../api/api.ts";
import { bulkForm, limitBody, readJson } from "../../api/body/read.ts";
import { manifestLineSchema, readManifest } from "./manifest.ts";
import {
  bulkFolderSchema,
  manifestQuerySchema,
  readFolderRequest,
  readManifestQuery,
} from "./bulkRequest.ts";

const bulkRunsSchema = z.object({ runs: z.array(bulkRunSchema) }).meta({ id: "BulkRuns" });

/** What Redis holds of a run, roughly; its entries come later, by and by. */
const RUN_BYTES = 8192;
/** How long a cancellation is waited for; a coordinator looks once a second. */
const CANCEL_WAIT_MS = 5000;
const CANCEL_LOOK_MS = 100;

async function createBulkRun(api: Api, req: Request, res: Response): Promise<void> {
  const { bulk, config, predictions } = api;
  const form = bulkForm(req, config);
  predictions.checkDisk();
  predictions.claimStorage(RUN_BYTES);
  const key = readIdempotencyKey(req);
  const named = (spec: BulkSpec): BulkSpec => (key === undefined ? spec : { ...spec, idempotency_key: key });
  const digest = createHash("sha256");
  const fingerprint = () => digest.digest("base64url");
  let run: BulkRun;
  if (form === "folder") {
    const body = await readJson(req, config.max_body_bytes);
    const spec = await readFolderRequest(api, body);
    digest.update(stringify(body)!);
    run = await bulk.start(named(spec), undefined, fingerprint);
  } else {
    const { spec, hasUniqueIds } = await readManifestQuery(api, req);
    const body = limitBody(req, config.max_manifest_bytes, "max_manifest_bytes");
    digest.update(stringify([spec.model, form]));
    const needs = await descriptionOf(api, spec.model);
    const entries = readManifest(form, key === undefined ? body : digested(body, digest), config, {
      model: spec.model,
      needs,
      hasUniqueIds,
    });
    run = await bulk.start(named(spec), entries, fingerprint);
  }
  res.status(202).set("Location", run.links.self).set("Retry-After", "1").json(run);
}

async function* digested(body: AsyncIterable<Buffer>, digest: Hash): AsyncGenerator<Buffer> {
  for await (const chunk of body) {
    digest.update(chunk);
    yield chunk;
  }
}

const bulkListQuerySchema = z.object({ limit: limitParameter(1000, 100) });

async function listBulkRuns({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const checked = parseWith(bulkListQuerySchema, req.query);
  res.json({ runs: await bulk.list(checked.limit) });
}

async function getBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const run = await bulk.read(pathParameter(req, "run"));
  if (!hasEnded(run.status)) res.set("Retry-After", "1");
  res.json(run);
}

async function deleteBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const id = pathParameter(req, "run");
  const before = await bulk.read(id);
  if (!hasEnded(before.status)) return cancel(bulk, before, res);
  await bulk.remove(id);
  res.status(204).end();
}

async function cancelBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const before = await bulk.read(pathParameter(req, "run"));
  if (!hasEnded(before.status)) return cancel(bulk, before, res);
  res.json(before);
}

async function cancel(bulk: BulkRuns, before: BulkRun, res: Response): Promise<void> {
  const run = (await bulk.cancel(before.id)) ?? (await readOnceEnded(bulk, before));
  res.status(hasEnded(run.status) ? 200 : 202).json(run);
}

async function resumeBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const id = pathParameter(req, "run");
  await bulk.resume(id);
  const run = await bulk.read(id);
  res.status(202).set("Location", run.links.self).set("Retry-After", "1").json(run);
}

/** A run has ended once what was running at the cancellation is written down. */
async function readOnceEnded(bulk: BulkRuns, before: BulkRun): Promise<BulkRun> {
  const deadline = Date.now() + CANCEL_WAIT_MS;
  let run = before;
  for (;;) {
    // It is cancelled already: a 503 now would have it asked for again, and that deletes a run that has ended.
    run = await bulk.read(run.id).catch((error: unknown) => {
      if (!(error instanceof RedisUnavailableError)) throw error;
      return run;
    });
    if (hasEnded(run.status) || Date.now() > deadline) return run;
    await new Promise((resolve) => setTimeout(resolve, CANCEL_LOOK_MS));
  }
}

export const bulkRoutes: readonly Route[] = [
  {
    method: "post",
    path: "/v1/bulk",
    handler: createBulkRun,
    operation: {
      operationId: "createBulkRun",
      summary: "Start a bulk run",
      description:
        "Over a folder below `bulk_roots` (a JSON body), or over the entries of a manifest (NDJSON, CSV or Parquet with the columns image, custom_id and request; the rest as query parameters), which are all checked before anything runs.",
      tags: ["bulk runs"],
      requestParams: {
        query: manifestQuerySchema.partial(),
        header: z.object({
          "Idempotency-Key": idempotencyKeyHeader(
            "The same key and the same request give the first run again.",
          ),
        }),
      },
      requestBody: {
        required: true,
        content: {
          "application/json": { schema: bulkFolderSchema },
          "application/x-ndjson": { schema: manifestLineSchema },
          "text/csv": { schema: z.string() },
          "application/vnd.apache.parquet": {
            schema: z.string().meta({ override: { type: "string", format: "binary" } }),
          },
        },
      },
      responses: {
        202: { ...jsonAnswer("Accepted.", bulkRunSchema, acceptedHeaders), ...bulkRunLinks },
        ...problemAnswers([400, 404, 408, 413, 415, 422, 503, 507]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/bulk",
    handler: listBulkRuns,
    operation: {
      operationId: "listBulkRuns",
      summary: "List the bulk runs, the newest first",
      tags: ["bulk runs"],
      requestParams: { query: bulkListQuerySchema },
      responses: { 200: jsonAnswer("The runs.", bulkRunsSchema), ...problemAnswers([422, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}",
    handler: getBulkRun,
    operation: {
      operationId: "getBulkRun",
      summary: "Read how a bulk run stands",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }) },
      responses: { 200: jsonAnswer("The run.", bulkRunSchema), ...problemAnswers([404, 503]) },
    },
  },
  {
    method: "delete",
    path: "/v1/bulk/{run}",
    handler: deleteBulkRun,
    operation: {
      operationId: "deleteBulkRun",
      summary: "Cancel a bulk run, or delete one that has ended",
      description: "A cancelled run keeps the results that are there; deleting it removes them.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }) },
      responses: {
        200: jsonAnswer("It is cancelled.", bulkRunSchema),
        202: jsonAnswer("It will be cancelled once what runs has ended.", bulkRunSchema),
        204: { description: "It had ended and is deleted." },
        ...problemAnswers([404, 503]),
      },
    },
  },
  {
    method: "post",
    path: "/v1/bulk/{run}/cancel",
    handler: cancelBulkRun,
    operation: {
      operationId: "cancelBulkRun",
      summary: "Cancel a bulk run, and leave one that has ended as it is",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }) },
      responses: {
        200: jsonAnswer("It has ended.", bulkRunSchema),
        202: jsonAnswer("It will be cancelled once what runs has ended.", bulkRunSchema),
        ...problemAnswers([404, 503]),
      },
    },
  },
  {
    method: "post",
    path: "/v1/bulk/{run}/resume",
    handler: resumeBulkRun,
    operation: {
      operationId: "resumeBulkRun",
      summary: "Resume a bulk run that failed or was cancelled",
      description: "It continues behind the results that are there, with the entries that have none.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }) },
      responses: {
        202: jsonAnswer("Accepted.", bulkRunSchema, acceptedHeaders),
        ...problemAnswers([404, 409, 503]),
      },
    },
  },
  ...streamRoutes,
  ...reportRoutes,
];
