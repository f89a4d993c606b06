/** `GET …/predictions/{id}/events`: server-sent events, one for each change of status, until it ends. */
import type { Request, Response } from "express";
import { isFinal, type Prediction } from "../../queue/jobs.ts";
import { pathParameter, type Api } from "../api.ts";
import { streamState } from "./streamState.ts";

/** Only endings are announced; that it began to run is seen by looking. */
const LOOK_INTERVAL_MS = 1000;

export async function streamEvents(
  { predictions, closing }: Api,
  req: Request,
  res: Response,
): Promise<void> {
  const [model, id] = [pathParameter(req, "model"), pathParameter(req, "id")];
  await streamState(req, res, closing, await predictions.read(model, id), {
    event: "status",
    idOf: eventId,
    hasEnded: ({ status }) => isFinal(status),
    next: (signal) => predictions.wait(model, id, LOOK_INTERVAL_MS, signal),
  });
}

/** The same status comes again where a prediction is tried again. */
function eventId({ attempts, status }: Prediction): string {
  return `${attempts}-${status}`;
}
