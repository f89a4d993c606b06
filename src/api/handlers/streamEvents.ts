/**
 * `GET …/predictions/{id}/events`: server-sent events, one for each change of
 * status, until it ends. An event tells all there is to know, so that whoever
 * comes back needs the present one only, and none if it is the one it saw last.
 */
import type { Request, Response } from "express";
import { isFinal, type Prediction } from "../../queue/jobs.ts";
import { pathParameter, type Api } from "../api.ts";
import { abortWhenGone } from "./waiting.ts";

const HEARTBEAT_MS = 15_000;
/** Only endings are announced; that it began to run is seen by looking. */
const LOOK_INTERVAL_MS = 1000;

export async function streamEvents(
  { predictions, closing }: Api,
  req: Request,
  res: Response,
): Promise<void> {
  const [model, id] = [pathParameter(req, "model"), pathParameter(req, "id")];
  let prediction = await predictions.read(model, id);
  let told = req.get("Last-Event-ID");
  if (isFinal(prediction.status) && told === eventId(prediction)) {
    // A browser connects again after the end, too; this tells it not to.
    res.status(204).end();
    return;
  }
  res.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no" });
  res.flushHeaders();
  const heartbeat = setInterval(() => res.write(": still here\n\n"), HEARTBEAT_MS);
  const gone = abortWhenGone(res, closing);
  try {
    for (;;) {
      const current = eventId(prediction);
      if (current !== told)
        res.write(`event: status\nid: ${current}\ndata: ${JSON.stringify(prediction)}\n\n`);
      told = current;
      if (isFinal(prediction.status) || gone.signal.aborted) break;
      prediction = await predictions.wait(model, id, LOOK_INTERVAL_MS, gone.signal);
    }
    res.end();
  } finally {
    clearInterval(heartbeat);
    gone.stop();
  }
}

/** The same status comes again where a prediction is tried again. */
function eventId({ attempts, status }: Prediction): string {
  return `${attempts}-${status}`;
}
