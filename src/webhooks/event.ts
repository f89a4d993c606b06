/** The webhook event of a prediction's end. */
import type { WebhookEvent } from "../queue/deliveries.ts";
import type { Prediction } from "../core/prediction.ts";

/** @param publicUrl where the api is reached; undefined leaves the links the paths that they are */
export function withAbsoluteLinks(event: WebhookEvent, publicUrl: string | undefined): WebhookEvent {
  if (publicUrl === undefined) return event;
  const base = publicUrl.replace(/\/+$/, "");
  const links = Object.entries(event.data.links).map(([name, path]) => [name, base + path]);
  return { ...event, data: { ...event.data, links: Object.fromEntries(links) } };
}

/** @param inlineBytes a result of more JSON than this is left to its link */
export function eventOfPrediction(prediction: Prediction, inlineBytes: number): WebhookEvent {
  const { status, result, links } = prediction;
  if (status === "queued" || status === "running") throw new Error(`${prediction.id} has not ended`);
  const isInline = result === null || Buffer.byteLength(JSON.stringify(result)) <= inlineBytes;
  const data = isInline
    ? { ...prediction, links: { ...links } }
    : { ...prediction, result: null, links: { ...links, result: links.self } };
  return {
    type: `prediction.${status}`,
    timestamp: prediction.finished_at ?? new Date().toISOString(),
    data,
  };
}
