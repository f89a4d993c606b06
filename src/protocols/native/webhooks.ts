/** Webhook deliveries: those of a prediction, lists, and sending one again. */
import type { Request, Response } from "express";
import { z } from "zod";
import { limitParameter, wholeParameter } from "./parameters.ts";
import { count, time } from "./schemas.ts";
import { parseWith } from "../../core/faults.ts";
import { jsonAnswer, modelParameter, problemAnswers } from "../../api/operations.ts";
import { WEBHOOK_EVENTS } from "../../config/webhooks.ts";
import { DELIVERY_STATUSES, type Delivery } from "../../queue/deliveries.ts";
import { pathParameter, type Api, type Route } from "../../api/api.ts";

const MAX_LISTED = 1000;

const deliveriesQuerySchema = z.object({
  status: z
    .enum(DELIVERY_STATUSES, { error: `must be one of ${DELIVERY_STATUSES.join(", ")}` })
    .optional()
    .meta({
      description:
        "Default: failed, the deliveries that are tried no more; with `prediction` or `run` those of every status.",
    }),
  prediction: z.string().optional().meta({ description: "Only those of the prediction with this id." }),
  run: z.string().optional().meta({ description: "Only those of the bulk run with this id." }),
  cursor: wholeParameter(0, 1_000_000, "must be the next_cursor of a page")
    .optional()
    .meta({ description: "`next_cursor` of the page before." }),
  limit: limitParameter(MAX_LISTED, 100),
  offset: wholeParameter(0, 1_000_000)
    .default(0)
    .meta({ description: "How many of the newest to leave out. Default: 0." }),
});

const deliverySchema = z
  .object({
    id: z.string().meta({ description: "The webhook-id of every attempt." }),
    url: z.string(),
    status: z.enum(DELIVERY_STATUSES).meta({
      description:
        "pending until it was delivered, or failed in the last attempt; skipped where webhook_events leaves its event out.",
    }),
    event: z.enum(WEBHOOK_EVENTS).nullable(),
    prediction: z.object({ model: z.string(), id: z.string() }).nullable(),
    run: z.string().nullable().meta({ description: "Id of the bulk run whose end it tells." }),
    created_at: z.string().meta({ format: "date-time" }),
    finished_at: time("When it was delivered or given up."),
    next_attempt_at: time("When a delivery that failed is tried again."),
    error: z.string().nullable().meta({ description: "Of the last attempt." }),
    attempts: z.array(
      z.object({
        at: z.string().meta({ format: "date-time" }),
        status: z.int().nullable().meta({ description: "HTTP status; null where there was no answer." }),
        error: z.string().nullable(),
        ms: z.int(),
      }),
    ),
    links: z.object({ self: z.string(), replay: z.string() }),
  })
  .meta({ id: "Delivery" });
deliverySchema satisfies z.ZodType<Delivery>;

const deliveriesOfPredictionSchema = z.object({
  deliveries: z.array(deliverySchema).meta({ description: "One where it has a webhook, else none." }),
});

const deliveriesSchema = z
  .object({
    deliveries: z.array(deliverySchema).meta({ description: "The newest of each status first." }),
    next_cursor: z.string().nullable().meta({ description: "Of the next page; null where there is none." }),
    counts: z
      .object({ pending: count, delivered: count, failed: count })
      .meta({ description: "Of all that are on record; delivered includes skipped." }),
    gone: z
      .array(z.object({ url: z.string(), until: z.string().meta({ format: "date-time" }) }))
      .meta({ description: "URLs that answered 410 and are left alone." }),
  })
  .meta({ id: "Deliveries" });

/** `GET …/predictions/{id}/deliveries` */
async function getDeliveriesOfPrediction({ predictions }: Api, req: Request, res: Response): Promise<void> {
  const { delivery } = await predictions.webhookOf(pathParameter(req, "model"), pathParameter(req, "id"));
  const found = delivery === undefined ? undefined : await predictions.deliveries.find(delivery);
  res.json({ deliveries: found ? [found] : [] });
}

/** `GET /v1/webhooks/deliveries` */
async function listDeliveries(
  { predictions: { deliveries } }: Api,
  req: Request,
  res: Response,
): Promise<void> {
  const { status, prediction, run, limit, offset, cursor } = parseWith(deliveriesQuerySchema, req.query);
  const usual = prediction === undefined && run === undefined ? "failed" : undefined;
  const [{ deliveries: listed, next }, counts, gone] = await Promise.all([
    deliveries.search({ status: status ?? usual, prediction, run, limit, offset: cursor ?? offset }),
    deliveries.count(),
    deliveries.listGone(),
  ]);
  res.json({ deliveries: listed, next_cursor: next === null ? null : String(next), counts, gone });
}

/** `GET /v1/webhooks/deliveries/{delivery}` */
async function getDelivery({ predictions }: Api, req: Request, res: Response): Promise<void> {
  res.json(await predictions.deliveries.read(pathParameter(req, "delivery")));
}

/** `POST /v1/webhooks/deliveries/{delivery}/replay` */
async function replayDelivery({ predictions }: Api, req: Request, res: Response): Promise<void> {
  res.status(202).json(await predictions.deliveries.replay(pathParameter(req, "delivery")));
}

const deliveryId = z.string().meta({ description: "Id of the delivery, its webhook-id." });
const onePath = z.object({
  model: modelParameter,
  id: z.string().meta({ description: "Id of the prediction." }),
});

export const webhookRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v1/models/{model}/predictions/{id}/deliveries",
    handler: getDeliveriesOfPrediction,
    operation: {
      operationId: "getDeliveriesOfPrediction",
      summary: "The webhook delivery of a prediction, with its attempts",
      tags: ["webhooks"],
      requestParams: { path: onePath },
      responses: {
        200: jsonAnswer("The deliveries.", deliveriesOfPredictionSchema),
        ...problemAnswers([404, 503]),
      },
    },
  },
  {
    method: "get",
    path: "/v1/webhooks/deliveries",
    handler: listDeliveries,
    operation: {
      operationId: "listDeliveries",
      summary: "List webhook deliveries",
      tags: ["webhooks"],
      requestParams: { query: deliveriesQuerySchema },
      responses: { 200: jsonAnswer("The deliveries.", deliveriesSchema), ...problemAnswers([422, 503]) },
    },
  },
  {
    method: "get",
    path: "/v1/webhooks/deliveries/{delivery}",
    handler: getDelivery,
    operation: {
      operationId: "getDelivery",
      summary: "Read a webhook delivery",
      tags: ["webhooks"],
      requestParams: { path: z.object({ delivery: deliveryId }) },
      responses: { 200: jsonAnswer("The delivery.", deliverySchema), ...problemAnswers([404, 503]) },
    },
  },
  {
    method: "post",
    path: "/v1/webhooks/deliveries/{delivery}/replay",
    handler: replayDelivery,
    operation: {
      operationId: "replayDelivery",
      summary: "Send a webhook again",
      description:
        "With all attempts before it, under the same webhook-id; one that waits for its next attempt goes out at once. A URL that answered 410 gets another chance.",
      tags: ["webhooks"],
      requestParams: { path: z.object({ delivery: deliveryId }) },
      responses: { 202: jsonAnswer("The delivery.", deliverySchema), ...problemAnswers([404, 503]) },
    },
  },
];
