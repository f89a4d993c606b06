/** The settings of webhooks, and the events there are. */
import { z } from "zod";
import { isAllowEntry } from "../egress/addressFilter.ts";

export const PREDICTION_EVENTS = [
  "prediction.succeeded",
  "prediction.failed",
  "prediction.cancelled",
  "prediction.expired",
] as const;
export const BULK_EVENTS = ["bulk.completed", "bulk.cancelled", "bulk.failed"] as const;
export const WEBHOOK_EVENTS = [...PREDICTION_EVENTS, ...BULK_EVENTS] as const;
export type WebhookEventType = (typeof WEBHOOK_EVENTS)[number];

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const RETRY_DELAYS_MS = [0, 5 * SECOND, 5 * MINUTE, 30 * MINUTE].concat(
  [2, 5, 10, 14, 20, 24].map((hours) => hours * HOUR),
);
/** Timers can't count further, about 25 days. */
export const MAX_DURATION_MS = 2_147_483_647;

/** Standard Webhooks asks for 24 to 64 random bytes. */
const secret = z.string().refine(isSecret, {
  error: "must be whsec_ and 24 to 64 bytes in base64, as `infermill webhooks secret` makes one",
});

function isSecret(text: string): boolean {
  const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text)?.[1];
  if (encoded === undefined) return false;
  const bytes = Buffer.from(encoded, "base64");
  return bytes.length >= 24 && bytes.length <= 64 && bytes.toString("base64") === encoded;
}

export const allowListSchema = z
  .array(
    z.string().refine(isAllowEntry, {
      error: "must be an IP address, a CIDR block such as 10.0.0.0/8, or a host name",
    }),
  )
  .default([]);

export const webhooksSchema = z
  .strictObject({
    secret: z
      .union([secret, z.array(secret).min(1).max(2)])
      .optional()
      .meta({
        description:
          "Secret that deliveries are signed with, or two while receivers change from one to the other: each delivery carries a signature of both. Default: one is made at the first start and kept in data_dir/webhook-secret. Two in the environment are separated by a comma. Environment: INFERMILL_WEBHOOK_SECRET.",
      }),
    url: z
      .url({ protocol: /^https?$/, error: "must be an http:// or https:// URL" })
      .optional()
      .meta({ description: "Receiver of predictions and bulk runs that name no webhook. Default: none." }),
    events: z
      .array(z.enum(WEBHOOK_EVENTS))
      .min(1)
      .default([...WEBHOOK_EVENTS])
      .meta({ description: "Events that are told where a call names no webhook_events. Default: all." }),
    allow: allowListSchema.meta({
      description:
        "Receivers that may be reached though their address isn't public: IP addresses, CIDR blocks, host names. Default: none.",
    }),
    retry_delays_ms: z
      .array(z.int().min(0).max(MAX_DURATION_MS))
      .min(1)
      .max(100)
      .default(RETRY_DELAYS_MS)
      .meta({
        description:
          "When a delivery is tried, in milliseconds, each counted from the failure before it; the first from the event. A fifth is added at random. Default: at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.",
      }),
    timeout_ms: z
      .int()
      .min(1)
      .max(MAX_DURATION_MS)
      .default(15 * SECOND)
      .meta({ description: "Longest time in milliseconds that one attempt may take. Default: 15 s." }),
    inline_result_bytes: z
      .int()
      .min(0)
      .default(64 * 1024)
      .meta({
        description:
          "Largest result, in bytes of JSON, that an event carries; a larger one is a link. Default: 64 KiB.",
      }),
  })
  .prefault({})
  .meta({ description: "Webhooks of the ends of predictions and bulk runs, by HTTP." });

export const urlInputsSchema = z
  .strictObject({
    allow: allowListSchema.meta({
      description:
        "Hosts that pictures may be fetched from though their address isn't public: IP addresses, CIDR blocks, host names. webhooks.allow doesn't count here. Default: none.",
    }),
    timeout_ms: z
      .int()
      .min(1)
      .max(MAX_DURATION_MS)
      .default(10 * SECOND)
      .meta({
        description:
          "Longest time in milliseconds that a picture may take, redirects included. Default: 10 s.",
      }),
  })
  .prefault({})
  .meta({ description: "Pictures that a request names by URL." });
