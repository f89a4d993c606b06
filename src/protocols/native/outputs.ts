/** The bytes of outputs: of a prediction, and of the entries of bulk runs. */
import type { Request, Response } from "express";
import { z } from "zod";
import { pathParameter, type Api, type Route } from "../../api/api.ts";
import { modelParameter, problemAnswers } from "../../api/operations.ts";
import { parseWith } from "../../core/faults.ts";
import { UNKNOWN_MEDIA_TYPE } from "../../core/request.ts";

/** What a browser may show of an output that its model made; everything else is saved. */
const SHOWN = /^(image\/(?!svg)|audio\/|video\/|text\/plain|application\/json)/;

/** `GET …/predictions/{id}/outputs/{name}` */
async function getOutput({ predictions }: Api, req: Request, res: Response): Promise<void> {
  const [model, id, name] = (["model", "id", "name"] as const).map((each) => pathParameter(req, each));
  const { mediaType, bytes } = await predictions.readOutput(model!, id!, name!);
  sendBytes(res, name!, mediaType, bytes);
}

const bulkOutputQuerySchema = z.object({
  type: z
    .string()
    .regex(/^[a-z]+\/[\w.+-]+$/, { error: "must be a media type" })
    .default(UNKNOWN_MEDIA_TYPE)
    .meta({ description: "Its media type, as the line of results has it." }),
});

/** `GET /v1/bulk/{run}/outputs/{index}/{name}` */
async function getBulkOutput({ bulk, predictions }: Api, req: Request, res: Response): Promise<void> {
  const { type } = parseWith(bulkOutputQuerySchema, req.query);
  const [run, index, name] = (["run", "index", "name"] as const).map((each) => pathParameter(req, each));
  const spec = await bulk.readSpec(run!);
  sendBytes(res, name!, type, await predictions.readBulkOutput(spec, index!, name!));
}

function sendBytes(res: Response, name: string, mediaType: string, bytes: Buffer): void {
  const disposition = SHOWN.test(mediaType) ? "inline" : "attachment";
  res.set({
    "Content-Type": mediaType,
    "Content-Disposition": `${disposition}; filename="${name.replaceAll(/[^\w.-]/g, "_")}"`,
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
  });
  res.send(bytes);
}

const name = z.string().meta({ description: "Name of the output, as `outputs` has it." });
const bytesAnswer = {
  description: "The bytes, with their media type.",
  content: {
    "*/*": { schema: z.string().meta({ override: { type: "string", format: "binary" } }) },
  },
};

export const outputRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v1/models/{model}/predictions/{id}/outputs/{name}",
    handler: getOutput,
    operation: {
      operationId: "getOutput",
      summary: "Read an output of a prediction",
      description: "It is kept for as long as its prediction.",
      tags: ["predictions"],
      requestParams: {
        path: z.object({
          model: modelParameter,
          id: z.string().meta({ description: "Id of the prediction." }),
          name,
        }),
      },
      responses: { 200: bytesAnswer, ...problemAnswers([404, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/bulk/{run}/outputs/{index}/{name}",
    handler: getBulkOutput,
    operation: {
      operationId: "getBulkOutput",
      summary: "Read an output of an entry of a bulk run",
      description: "It is kept for as long as its run.",
      tags: ["bulk runs"],
      requestParams: {
        path: z.object({
          run: z.string().meta({ description: "Id of the bulk run." }),
          index: z.string().meta({ description: "Of the entry, from 0." }),
          name,
        }),
        query: bulkOutputQuerySchema,
      },
      responses: { 200: bytesAnswer, ...problemAnswers([404, 422, 503]) },
    },
  },
];
