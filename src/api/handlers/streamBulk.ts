/** `GET /v1/bulk/{run}/results` and `…/events`: the outcomes as NDJSON and the progress as server-sent events, until the run ends. */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Request, Response } from "express";
import { z } from "zod";
import { followResults } from "../../bulk/resultsFile.ts";
import { hasEnded, type BulkRun } from "../../bulk/spec.ts";
import { parseWith } from "../../core/faults.ts";
import { pathParameter, type Api } from "../api.ts";
import { streamState } from "./streamState.ts";
import { abortWhenGone } from "./waiting.ts";

/** A run's progress is told about once a second. */
const LOOK_INTERVAL_MS = 1000;

export const resultsQuerySchema = z.object({
  status: z
    .enum(["succeeded", "failed"], { error: "must be succeeded or failed" })
    .optional()
    .meta({ description: "Only entries that ended like this." }),
  after: z.coerce
    .number({ error: "must be the number of a line" })
    .int({ error: "must be the number of a line" })
    .min(0, { error: "must be 0 or more" })
    .default(0)
    .meta({ description: "Continues behind this `line`." }),
  follow: z
    .enum(["true", "false"], { error: "must be true or false" })
    .default("true")
    .meta({ description: "Whether to go on until the run has ended; false sends what is there now." }),
});

export async function streamBulkResults({ bulk, closing }: Api, req: Request, res: Response): Promise<void> {
  const checked = parseWith(resultsQuerySchema, req.query);
  const { status, after, follow } = checked;
  const id = pathParameter(req, "run");
  const spec = await bulk.readSpec(id);
  res.set({ "Content-Type": "application/x-ndjson", "Cache-Control": "no-store", "X-Accel-Buffering": "no" });
  res.flushHeaders();
  const gone = abortWhenGone(res, closing);
  try {
    const lines = followResults(bulk.resultsFile(spec), {
      after,
      status,
      signal: gone.signal,
      hasEnded: async () => follow === "false" || hasEnded((await bulk.read(id)).status),
    });
    for await (const text of lines) {
      // A client that has gone never drains; then the lines end by the same signal.
      if (!res.write(text)) await once(res, "drain", { signal: gone.signal }).catch(() => {});
    }
    res.end();
  } finally {
    gone.stop();
  }
}

export async function streamBulkEvents({ bulk, closing }: Api, req: Request, res: Response): Promise<void> {
  const id = pathParameter(req, "run");
  await streamState(req, res, closing, await bulk.read(id), {
    event: "progress",
    idOf: eventIdOf,
    hasEnded: ({ status }) => hasEnded(status),
    async next(signal) {
      await sleep(LOOK_INTERVAL_MS, undefined, { signal }).catch(() => {});
      return bulk.read(id);
    },
  });
}

function eventIdOf({ status, counts }: BulkRun): string {
  return `${status}-${counts.total}-${counts.done}`;
}
