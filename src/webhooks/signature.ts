/** Signatures after Standard Webhooks, made by that specification's own library. */
import { Webhook } from "standardwebhooks";

/**
 * @param id stays the same in every attempt
 * @param at time of this attempt
 * @param secrets each makes a signature of its own
 */
export function signatureHeaders(
  secrets: readonly string[],
  id: string,
  at: Date,
  body: string,
): Record<string, string> {
  return {
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
    "webhook-signature": secrets.map((secret) => new Webhook(secret).sign(id, at, body)).join(" "),
  };
}
