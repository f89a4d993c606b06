/** Waits of the api end with their client and with the api itself. */
import type { Response } from "express";

/** Why waits end early. Without a reason of its own, each abort makes an exception with a stack. */
const ENDED = "the client is gone, or the api closes";

/** Aborted when the client of an HTTP request is gone, or has its answer. */
export function clientOf(res: Response): AbortSignal {
  const controller = new AbortController();
  if (res.destroyed) controller.abort(ENDED);
  else res.once("close", () => controller.abort(ENDED));
  return controller.signal;
}

/** A signal that is aborted when the client is gone or the api closes; `stop()` when the wait is over. */
export function abortWhenGone(
  client: AbortSignal,
  closing: AbortSignal,
): { signal: AbortSignal; stop(): void } {
  const controller = new AbortController();
  const abort = () => controller.abort(ENDED);
  if (closing.aborted || client.aborted) abort();
  // Not AbortSignal.any: on Node 20 it keeps what it made for as long as `closing` lives.
  closing.addEventListener("abort", abort);
  client.addEventListener("abort", abort);
  return {
    signal: controller.signal,
    stop() {
      closing.removeEventListener("abort", abort);
      client.removeEventListener("abort", abort);
    },
  };
}
