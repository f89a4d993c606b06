/** Waits of the api end with their client and with the api itself. */
import type { Response } from "express";

/** A signal that is aborted when the client is gone or the api closes; `stop()` when the wait is over. */
export function abortWhenGone(res: Response, closing: AbortSignal): { signal: AbortSignal; stop(): void } {
  const controller = new AbortController();
  const abort = () => controller.abort();
  if (closing.aborted) abort();
  // Not AbortSignal.any: on Node 20 it keeps what it made for as long as `closing` lives.
  closing.addEventListener("abort", abort);
  res.once("close", abort);
  return {
    signal: controller.signal,
    stop() {
      closing.removeEventListener("abort", abort);
      res.off("close", abort);
    },
  };
}
