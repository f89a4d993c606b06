/** What the OpenAPI descriptions of the routes have in common: parameters, answers, problems. */
import { z } from "zod";
import type { ZodOpenApiResponsesObject } from "zod-openapi";

export const modelParameter = z.string().meta({ description: "Name of a configured model." });

export const problemSchema = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string().meta({ description: "What was expected, what came, what to do." }),
    code: z.string().meta({ description: "Stable, made to be compared with." }),
    errors: z
      .array(z.object({ key: z.string(), problem: z.string() }))
      .optional()
      .meta({ description: "Every fault, where there may be several." }),
  })
  .meta({ id: "Problem", description: "RFC 9457." });

const PROBLEMS: Readonly<Record<number, string>> = {
  400: "The body can't be read.",
  404: "No such model, prediction or bulk run.",
  409: "The prediction ended already, or has not yet, or the bulk run can't be resumed or has not ended.",
  408: "The body comes too slowly.",
  410: "What was uploaded for the prediction is gone.",
  413: "The body is too large.",
  415: "Unsupported Content-Type.",
  422: "The request can't be used, or its key or id was used with another request.",
  429: "The model's queue is full; see Retry-After.",
  500: "The loader failed, or its engine died.",
  503: "Redis or the object storage can't be reached, Redis refuses or is full; see Retry-After.",
  507: "The disk is full, or nearly.",
  504: "The prediction ran or waited too long.",
};

/** The errors that a route answers, in the form of its protocol. */
export function problemAnswers(
  statuses: readonly number[],
  schema: z.ZodType = problemSchema,
  mediaType = "application/problem+json",
): ZodOpenApiResponsesObject {
  return Object.fromEntries(
    statuses.map((status) => [
      String(status),
      { description: PROBLEMS[status]!, content: { [mediaType]: { schema } } },
    ]),
  );
}

export function jsonAnswer(description: string, schema: z.ZodType, headers?: Record<string, z.ZodType>) {
  return {
    description,
    content: { "application/json": { schema } },
    ...(headers && { headers: z.object(headers) }),
  };
}

/** What an answer's id can be used with, so that tools follow it. */
function linksTo(operationIds: readonly string[], parameters: Record<string, string>) {
  const links = operationIds.map((operationId) => [operationId, { operationId, parameters }] as const);
  return { links: Object.fromEntries(links) };
}

export const predictionLinks = linksTo(["getPrediction", "cancelPrediction", "retryPrediction"], {
  model: "$response.body#/model",
  id: "$response.body#/id",
});

export const bulkRunLinks = linksTo(
  ["getBulkRun", "getBulkSummary", "streamBulkResults", "cancelBulkRun", "resumeBulkRun", "deleteBulkRun"],
  { run: "$response.body#/id" },
);

/** Headers of what was accepted and has not ended. */
export const acceptedHeaders = {
  Location: z.string().meta({ description: "URL of the prediction." }),
  "Retry-After": z.string().meta({ description: "Seconds after which to poll." }),
};

/** Of an endpoint that sends server-sent events. */
export const lastEventIdHeader = z.object({
  "Last-Event-ID": z
    .string()
    .optional()
    .meta({ description: "The event that was seen last; it is not sent again." }),
});

export const eventStreamAnswers = {
  200: { description: "The stream.", content: { "text/event-stream": { schema: z.string() } } },
  204: { description: "Last-Event-ID is the end: there is nothing more to come." },
};
