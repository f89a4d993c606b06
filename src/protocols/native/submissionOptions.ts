/** How a prediction is to be run and answered: the query parameters and headers of a submission. */
import type { Request } from "express";
import { z } from "zod";
import type { Config } from "../../config/schema.ts";
import { MAX_DURATION_MS, PREDICTION_EVENTS, type WebhookEventType } from "../../config/webhooks.ts";
import { parseOutsideUrl, refuseForbiddenAddress } from "../../egress/egress.ts";
import { BadInputError, InvalidRequestError, type Fault } from "../../errors.ts";
import { faultOf } from "../../core/faults.ts";
import { promptOfText } from "../../imil/prompt.ts";
import type { SubmissionOptions } from "../../api/service.ts";
import type { Webhook } from "../../queue/deliveries.ts";
import { PRIORITIES, type Priority } from "../../core/prediction.ts";
import { checkPredictionId, idOfIdempotencyKey } from "../../queue/names.ts";

import { numberOfQuery, wholeParameter } from "./parameters.ts";

export const MAX_WAIT_SECONDS = 60;

const milliseconds = (description: string) =>
  wholeParameter(1, MAX_DURATION_MS, `must be a whole number of milliseconds from 1 to ${MAX_DURATION_MS}`)
    .optional()
    .meta({ description });

export const submissionQuerySchema = z.object({
  priority: z
    .enum(Object.keys(PRIORITIES) as [Priority, ...Priority[]], { error: "must be high, normal or low" })
    .optional()
    .meta({ description: "Default: normal." }),
  ttl_ms: milliseconds("Longest wait in the queue; then the prediction expires."),
  timeout_ms: milliseconds("Longest run, at most the model's timeout_ms, which is the default."),
  webhook: z.string({ error: "must be one URL" }).optional().meta({
    description: "URL that is notified of the end. Default: webhooks.url of the configuration, if any.",
  }),
  webhook_events: z
    .string({ error: "must be a list separated by commas" })
    .optional()
    .meta({
      description: `Ends to notify of, separated by commas: ${PREDICTION_EVENTS.join(", ")}. Default: all.`,
    }),
});

export const waitQuerySchema = z.object({
  wait: z
    .preprocess(
      numberOfQuery,
      z
        .number({ error: "must be a number of seconds" })
        .min(0, { error: "must be 0 or more seconds" })
        .max(MAX_WAIT_SECONDS, { error: `must be at most ${MAX_WAIT_SECONDS} seconds` }),
    )
    .optional()
    .meta({ description: "Seconds to wait for the prediction to end." }),
});

/** How a prediction is to be run and answered. */
export interface NativeOptions extends SubmissionOptions {
  /** From `Prefer: wait`; undefined where it was not asked for. */
  waitSeconds?: number | undefined;
  /** The client's id or Idempotency-Key stand for a prediction of the client's naming. */
  clientId?: string | undefined;
  /** Of the Idempotency-Key, where there is no id in the path. */
  idempotencyKey?: string | undefined;
  /** Query parameters that are keys of the dictionary. */
  dictionary: Record<string, unknown>;
}

/**
 * @param req with the query parameters and headers
 * @param takesDictionary whether other query parameters are keys of the dictionary, as with `image/*` bodies
 * @throws InvalidRequestError with all faults
 */
export function readSubmissionOptions(req: Request, takesDictionary: boolean, config: Config): NativeOptions {
  const { priority, ttl_ms, timeout_ms, webhook, webhook_events, ...others } = req.query;
  const query = { priority, ttl_ms, timeout_ms, webhook, webhook_events };
  const checked = submissionQuerySchema.safeParse(query, { reportInput: true });
  const faults = checked.success ? [] : checked.error.issues.map(faultOf);
  const given = { webhook: textOrNone(webhook), webhook_events: textOrNone(webhook_events) };
  const hook = readWebhook(given, PREDICTION_EVENTS, config, faults);
  for (const key of Object.keys(others)) {
    if (!takesDictionary)
      faults.push({ key, problem: "is no query parameter here; keys of the dictionary go into the body" });
  }
  const idempotencyKey = req.get("Idempotency-Key");
  faults.push(...faultsOfKey(idempotencyKey));
  if (!checked.success || faults.length > 0) throw new InvalidRequestError(faults);
  const { id } = req.params;
  return {
    priority: checked.data.priority,
    ttlMs: checked.data.ttl_ms,
    timeoutMs: checked.data.timeout_ms,
    waitSeconds: preferredWait(req.get("Prefer")),
    clientId: id === undefined ? undefined : checkPredictionId(String(id)),
    idempotencyKey,
    webhook: hook,
    dictionary: takesDictionary ? dictionaryOfQuery(others) : {},
  };
}

export const idempotencyKeyHeader = (description: string) =>
  z.string().min(1).max(255).optional().meta({ description });

/** @throws InvalidRequestError */
export function readIdempotencyKey(req: Request): string | undefined {
  const key = req.get("Idempotency-Key");
  const faults = faultsOfKey(key);
  if (faults.length > 0) throw new InvalidRequestError(faults);
  return key;
}

function faultsOfKey(key: string | undefined): Fault[] {
  if (key === undefined || /^[\x20-\x7e]{1,255}$/.test(key)) return [];
  return [{ key: "Idempotency-Key", problem: "must be 1 to 255 printable ASCII characters" }];
}

function textOrNone(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/**
 * Where it is delivered: what the client named, else what the configuration names, else undefined.
 * @param known events that there are for what is submitted
 * @param faults is added to
 */
export function readWebhook(
  given: { webhook?: string | undefined; webhook_events?: string | undefined },
  known: readonly WebhookEventType[],
  { webhooks }: Config,
  faults: Fault[],
): Webhook | undefined {
  const url = given.webhook ?? webhooks.url;
  if (given.webhook !== undefined) {
    try {
      const { allow } = webhooks;
      refuseForbiddenAddress(parseOutsideUrl(given.webhook, "webhook"), {
        allow,
        allowKey: "webhooks.allow",
      });
    } catch (error) {
      faults.push({ key: "webhook", problem: (error as Error).message.replace(/^webhook /, "") });
    }
  }
  const names = given.webhook_events?.split(",").map((name) => name.trim());
  const unknown = names?.filter((name) => !known.includes(name as WebhookEventType)) ?? [];
  if (unknown.length > 0) {
    faults.push({
      key: "webhook_events",
      problem: `must be of ${known.join(", ")}, got ${JSON.stringify(unknown.join(",").slice(0, 200))}`,
    });
  }
  if (names && url === undefined) {
    faults.push({ key: "webhook_events", problem: "needs a webhook, which is the URL that is told" });
  }
  if (url === undefined) return undefined;
  return { url, events: (names as WebhookEventType[] | undefined) ?? webhooks.events };
}

/** The id of the one prediction that a submission of several, or its only one, asks for; undefined for a new one. */
export function clientIdOf(options: NativeOptions, index?: number): string | undefined {
  if (options.clientId !== undefined) return options.clientId;
  if (options.idempotencyKey === undefined) return undefined;
  // No key holds a line break, so that these can't be another client key.
  return idOfIdempotencyKey(
    index === undefined ? options.idempotencyKey : `${options.idempotencyKey}\n${index}`,
  );
}

/**
 * RFC 7240: a preference that isn't understood is ignored, and a longer wait than we grant is shortened. `wait` alone
 * waits for as long as we grant.
 */
function preferredWait(header: string | undefined): number | undefined {
  const wait = /(?:^|,)\s*wait\s*(?:=\s*"?(\d+(?:\.\d+)?)"?)?\s*(?:[,;]|$)/i.exec(header ?? "");
  return wait ? Math.min(Number(wait[1] ?? MAX_WAIT_SECONDS), MAX_WAIT_SECONDS) : undefined;
}

function dictionaryOfQuery(query: Record<string, unknown>): Record<string, unknown> {
  for (const key of ["Base_64", "image"]) {
    if (key in query)
      throw new BadInputError(`${key} can't be a query parameter here, where the body is the picture`);
  }
  return "Prompt" in query ? { ...query, Prompt: promptOfText(query["Prompt"]) } : query;
}
