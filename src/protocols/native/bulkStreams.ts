/** `GET /v1/bulk/{run}/results` and `…/events`: the outcomes as NDJSON and the progress as server-sent events, until the run ends. */
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Request, Response } from "express";
import { z } from "zod";
import { eventStreamAnswers, lastEventIdHeader, problemAnswers } from "../../api/operations.ts";
import { followResults } from "../../bulk/resultsFile.ts";
import { InvalidRequestError, NotEndedError } from "../../errors.ts";
import {
  convertResults,
  FILE_ENDINGS,
  FORMATS,
  MEDIA_TYPES,
  type ResultsFormat,
} from "../../report/formats.ts";
import { hasEnded, type BulkRun } from "../../core/bulkRun.ts";
import { parseWith } from "../../core/faults.ts";
import { wholeParameter } from "./parameters.ts";
import { pathParameter, type Api, type Route } from "../../api/api.ts";
import { linesWithPublicPath } from "../../api/publicLinks.ts";
import { publicPathOf } from "../../api/publicPath.ts";
import { runParameter } from "./bulkRunSchema.ts";
import { streamState } from "../../api/streamState.ts";
import { abortWhenGone, clientOf } from "../../api/waiting.ts";

/** A run's progress is told about once a second. */
const LOOK_INTERVAL_MS = 1000;

const resultsQuerySchema = z.object({
  status: z
    .enum(["succeeded", "failed"], { error: "must be succeeded or failed" })
    .optional()
    .meta({ description: "Only entries that ended like this." }),
  after: wholeParameter(0, Number.MAX_SAFE_INTEGER, "must be the number of a line")
    .default(0)
    .meta({ description: "Continues behind this `line`." }),
  follow: z
    .enum(["true", "false"], { error: "must be true or false" })
    .default("true")
    .meta({ description: "Whether to continue until the run has ended; false sends what is there now." }),
  format: z
    .enum(FORMATS, { error: `must be ${FORMATS.join(", ")}` })
    .default("ndjson")
    .meta({
      description:
        "csv and parquet: a row for each finding, and one for an entry without any; coco: COCO's format, for findings with boxes. They take `follow` alone beside it, and are answered at once: of a run that continues with `follow=false` only.",
    }),
});

async function streamBulkResults(api: Api, req: Request, res: Response): Promise<void> {
  const { bulk, closing } = api;
  const { status, after, follow, format } = parseWith(resultsQuerySchema, req.query);
  if (format !== "ndjson") return sendConverted(api, req, res, format);
  const id = pathParameter(req, "run");
  const spec = await bulk.readSpec(id);
  res.set({ "Content-Type": "application/x-ndjson", "Cache-Control": "no-store", "X-Accel-Buffering": "no" });
  res.flushHeaders();
  const gone = abortWhenGone(clientOf(res), closing);
  try {
    const lines = followResults(bulk.resultsFile(spec), {
      after,
      status,
      signal: gone.signal,
      hasEnded: async () => follow === "false" || hasEnded((await bulk.read(id)).status),
    });
    for await (const text of lines) {
      const linked = linesWithPublicPath(text, id, publicPathOf(res));
      // A client that has gone never drains; then the lines end by the same signal.
      if (!res.write(linked)) await once(res, "drain", { signal: gone.signal }).catch(() => {});
    }
    res.end();
  } finally {
    gone.stop();
  }
}

async function sendConverted(
  { bulk, config }: Api,
  req: Request,
  res: Response,
  format: Exclude<ResultsFormat, "ndjson">,
): Promise<void> {
  const id = pathParameter(req, "run");
  const given = ["status", "after"].filter((key) => key in req.query);
  if (given.length > 0)
    throw new InvalidRequestError(given.map((key) => ({ key, problem: "goes with format=ndjson only" })));
  const run = await bulk.read(id);
  if (!hasEnded(run.status) && req.query["follow"] !== "false")
    throw new NotEndedError(
      `${id} has not ended: it is ${run.status}. Ask again at its end, or with follow=false for what is there now`,
    );
  const parts = await convertResults(format, bulk, id, config);
  res.set({
    "Content-Type": MEDIA_TYPES[format],
    "Content-Disposition": `attachment; filename="${id}${FILE_ENDINGS[format]}"`,
    "Cache-Control": "no-store",
  });
  await pipeline(parts, res).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ERR_STREAM_PREMATURE_CLOSE") throw error;
  });
}

/** Of a run that is still walked, nothing yet. */
async function streamBulkSkipped({ bulk }: Api, req: Request, res: Response): Promise<void> {
  const id = pathParameter(req, "run");
  await bulk.readSpec(id);
  res.set({ "Content-Type": "application/x-ndjson", "Cache-Control": "no-store" });
  try {
    await pipeline(createReadStream(bulk.folder(id).skippedFile), res);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") res.end();
    else if (code !== "ERR_STREAM_PREMATURE_CLOSE") throw error;
  }
}

async function streamBulkEvents({ bulk, closing }: Api, req: Request, res: Response): Promise<void> {
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

export const streamRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v1/bulk/{run}/results",
    handler: streamBulkResults,
    operation: {
      operationId: "streamBulkResults",
      summary: "Read the outcomes, also while the run continues",
      description:
        "A line of JSON for each entry, in the order in which they ended: `index`, `status`, `line`, `path` or `custom_id`, `result` or `error`, `timings`.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }), query: resultsQuerySchema },
      responses: {
        200: {
          description: "The stream.",
          content: Object.fromEntries(
            FORMATS.map((format) => [MEDIA_TYPES[format].split(";")[0]!, { schema: z.string() }]),
          ),
        },
        ...problemAnswers([404, 409, 422, 503]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/skipped",
    handler: streamBulkSkipped,
    operation: {
      operationId: "streamBulkSkipped",
      summary: "Read what was found in the folder and left out",
      description:
        "A line of JSON for each: `path`, `reason` and, where it is known, `detail`. Empty until the folder is walked.",
      tags: ["bulk runs"],
      requestParams: { path: z.object({ run: runParameter }) },
      responses: {
        200: { description: "The lines.", content: { "application/x-ndjson": { schema: z.string() } } },
        ...problemAnswers([404, 503]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/events",
    handler: streamBulkEvents,
    operation: {
      operationId: "streamBulkEvents",
      summary: "Follow a bulk run",
      description: "Server-sent events: `progress` with the run as data, about once a second, until it ends.",
      tags: ["bulk runs"],
      requestParams: {
        path: z.object({ run: runParameter }),
        header: lastEventIdHeader,
      },
      responses: {
        ...eventStreamAnswers,
        ...problemAnswers([404, 503]),
      },
    },
  },
];
