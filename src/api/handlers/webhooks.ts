/** Webhook deliveries: those of a prediction, lists, and sending one again. */
import type { Request, Response } from "express";
import { z } from "zod";
import { parseWith } from "../../core/faults.ts";
import { DELIVERY_STATUSES } from "../../queue/deliveries.ts";
import { pathParameter, type Api } from "../api.ts";

const MAX_LISTED = 1000;

const count = (description: string, least: number, most: number) => {
  const error = `must be a whole number from ${least} to ${most}`;
  return z.coerce
    .number({ error })
    .int({ error })
    .min(least, { error })
    .max(most, { error })
    .meta({ description });
};

export const deliveriesQuerySchema = z.object({
  status: z
    .enum(DELIVERY_STATUSES, { error: `must be one of ${DELIVERY_STATUSES.join(", ")}` })
    .default("failed")
    .meta({ description: "Default: failed, the deliveries that are tried no more." }),
  limit: count("How many to list. Default: 100.", 1, MAX_LISTED).default(100),
  offset: count("How many of the newest to leave out. Default: 0.", 0, 1_000_000).default(0),
});

/** `GET …/predictions/{id}/deliveries` */
export async function getDeliveriesOfPrediction(
  { predictions }: Api,
  req: Request,
  res: Response,
): Promise<void> {
  const { delivery } = await predictions.webhookOf(pathParameter(req, "model"), pathParameter(req, "id"));
  const found = delivery === undefined ? undefined : await predictions.deliveries.find(delivery);
  res.json({ deliveries: found ? [found] : [] });
}

/** `GET /v1/webhooks/deliveries` */
export async function listDeliveries(
  { predictions: { deliveries } }: Api,
  req: Request,
  res: Response,
): Promise<void> {
  const checked = parseWith(deliveriesQuerySchema, req.query);
  const { status, ...range } = checked;
  const [listed, counts, gone] = await Promise.all([
    deliveries.list(status, range),
    deliveries.count(),
    deliveries.listGone(),
  ]);
  res.json({ deliveries: listed, counts, gone });
}

/** `GET /v1/webhooks/deliveries/{delivery}` */
export async function getDelivery({ predictions }: Api, req: Request, res: Response): Promise<void> {
  res.json(await predictions.deliveries.read(pathParameter(req, "delivery")));
}

/** `POST /v1/webhooks/deliveries/{delivery}/replay` */
export async function replayDelivery({ predictions }: Api, req: Request, res: Response): Promise<void> {
  res.status(202).json(await predictions.deliveries.replay(pathParameter(req, "delivery")));
}
