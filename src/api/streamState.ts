/** Server-sent events of something that changes until it ends. */
import type { Request, Response } from "express";
import { abortWhenGone, clientOf } from "./waiting.ts";
import { formatJson } from "../core/json.ts";
import { withPublicPath } from "./publicLinks.ts";
import { publicPathOf } from "./publicPath.ts";

const HEARTBEAT_MS = 15_000;

export interface StreamedState<T> {
  /** Name of each event. */
  event: string;
  /** Of the event that tells a state: two with the same one need no telling apart. */
  idOf: (state: T) => string;
  hasEnded: (state: T) => boolean;
  /** The state after a while, or as soon as there is another, or where `signal` is aborted. */
  next: (signal: AbortSignal) => Promise<T>;
}

/**
 * Sends the state now and whenever it changes, until it has ended. An event tells all there is to know, so that whoever
 * comes back needs the present one only, and none if it is the one of its Last-Event-ID.
 * @param closing aborted to end the stream early
 */
export async function streamState<T>(
  req: Request,
  res: Response,
  closing: AbortSignal,
  first: T,
  { event, idOf, hasEnded, next }: StreamedState<T>,
): Promise<void> {
  let state = first;
  let told = req.get("Last-Event-ID");
  if (hasEnded(state) && told === idOf(state)) {
    // A browser connects again after the end, too; this tells it not to.
    res.status(204).end();
    return;
  }
  res.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no" });
  res.flushHeaders();
  const heartbeat = setInterval(() => res.write(": still here\n\n"), HEARTBEAT_MS);
  const gone = abortWhenGone(clientOf(res), closing);
  try {
    for (;;) {
      const id = idOf(state);
      if (id !== told)
        res.write(
          `event: ${event}\nid: ${id}\ndata: ${formatJson(withPublicPath(state, publicPathOf(res)))}\n\n`,
        );
      told = id;
      if (hasEnded(state) || gone.signal.aborted) break;
      state = await next(gone.signal);
    }
    res.end();
  } finally {
    clearInterval(heartbeat);
    gone.stop();
  }
}
