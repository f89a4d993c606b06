/** `GET …/predictions/{id}/events`: server-sent events, one for each change of status, until it ends. */
import type { Request, Response } from "express";
import { isFinal, type Status } from "../../queue/jobs.ts";
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
  res.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no" });
  res.flushHeaders();
  const heartbeat = setInterval(() => res.write(": still here\n\n"), HEARTBEAT_MS);
  const gone = abortWhenGone(res, closing);
  try {
    let told: Status | undefined;
    for (;;) {
      if (prediction.status !== told) res.write(`event: status\ndata: ${JSON.stringify(prediction)}\n\n`);
      told = prediction.status;
      if (isFinal(told) || gone.signal.aborted) break;
      prediction = await predictions.wait(model, id, LOOK_INTERVAL_MS, gone.signal);
    }
    res.end();
  } finally {
    clearInterval(heartbeat);
    gone.stop();
  }
}
