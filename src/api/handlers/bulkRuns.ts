/** `/v1/bulk`: start a bulk run over a folder or a manifest, list the runs, read one, cancel, resume or delete it. */
import type { Request, Response } from "express";
import { z } from "zod";
import type { BulkRuns } from "../../bulk/runs.ts";
import { hasEnded, type BulkRun } from "../../bulk/spec.ts";
import { RedisUnavailableError } from "../../errors.ts";
import { parseWith } from "../../core/faults.ts";
import { needsOf } from "../accept.ts";
import { pathParameter, type Api } from "../api.ts";
import { bulkForm, limitBody, readJson } from "../body/read.ts";
import { readManifest } from "../bulk/manifest.ts";
import { readFolderRequest, readManifestQuery } from "../bulk/request.ts";

/** How long a cancellation is waited for; a coordinator looks once a second. */
const CANCEL_WAIT_MS = 5000;
const CANCEL_LOOK_MS = 100;

export async function createBulkRun(api: Api, req: Request, res: Response): Promise<void> {
  const { bulk, config } = api;
  const form = bulkForm(req, config);
  const spec =
    form === "folder"
      ? await readFolderRequest(api, await readJson(req, config.max_body_bytes))
      : readManifestQuery(api, req);
  if (form === "folder") {
    await bulk.create(spec);
  } else {
    const body = limitBody(req, config.max_manifest_bytes, "max_manifest_bytes");
    await bulk.create(spec, readManifest(body, config, spec.model, await needsOf(api, spec.model)));
  }
  await bulk.enqueue(spec);
  const run = await bulk.read(spec.id);
  res.status(202).set("Location", run.links.self).set("Retry-After", "1").json(run);
}

export const bulkListQuerySchema = z.object({
  limit: z.coerce
    .number({ error: "must be a number" })
    .int({ error: "must be a whole number" })
    .min(1, { error: "must be 1 or more" })
    .max(1000, { error: "must be at most 1000" })
    .default(100)
    .meta({ description: "Most runs to list; the newest come first." }),
});

export async function listBulkRuns({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const checked = parseWith(bulkListQuerySchema, req.query);
  res.json({ runs: await bulk.list(checked.limit) });
}

export async function getBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const run = await bulk.read(pathParameter(req, "run"));
  if (!hasEnded(run.status)) res.set("Retry-After", "1");
  res.json(run);
}

export async function deleteBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const id = pathParameter(req, "run");
  const before = await bulk.read(id);
  if (!hasEnded(before.status)) return cancel(bulk, before, res);
  await bulk.remove(id);
  res.status(204).end();
}

export async function cancelBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const before = await bulk.read(pathParameter(req, "run"));
  if (!hasEnded(before.status)) return cancel(bulk, before, res);
  res.json(before);
}

async function cancel(bulk: BulkRuns, before: BulkRun, res: Response): Promise<void> {
  const run = (await bulk.cancel(before.id)) ?? (await readOnceEnded(bulk, before));
  res.status(hasEnded(run.status) ? 200 : 202).json(run);
}

export async function resumeBulkRun({ bulk }: Api, req: Request, res: Response): Promise<void> {
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
