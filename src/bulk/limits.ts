/** When a run gives up before each of its entries has a line. */
import type { BulkLimits } from "../core/bulkOptions.ts";
import { InfermillError } from "../errors.ts";

export class TooManyFailuresError extends InfermillError {
  override readonly code = "too_many_failures";
  override readonly title = "More entries failed than may";
}

export class DeadlineExceededError extends InfermillError {
  override readonly code = "deadline_exceeded";
  override readonly title = "The run did not end in time";
}

/** Of a run that has ended before: what failed by then counts no more, and its deadline is over. */
export interface Resumption {
  isResumed: boolean;
  failedBefore: number;
}

/** Timers can't count further; whoever waits for so long asks again. */
const MAX_TIMER_MS = 2_000_000_000;

export interface LimitWatch {
  /** @param failed entries of the run that failed so far */
  check(failed: number): void;
  stop(): void;
}

/** @param onExceeded called at most once */
export function watchLimits(
  { max_failures: maxFailures, deadline }: BulkLimits,
  { isResumed, failedBefore }: Resumption,
  onExceeded: (error: InfermillError) => void,
): LimitWatch {
  let timer: NodeJS.Timeout | undefined;
  let isExceeded = false;
  const exceed = (error: InfermillError) => {
    if (isExceeded) return;
    isExceeded = true;
    clearTimeout(timer);
    onExceeded(error);
  };
  const wait = (until: number) => {
    const ms = until - Date.now();
    if (ms > 0) timer = setTimeout(wait, Math.min(ms, MAX_TIMER_MS), until);
    else exceed(new DeadlineExceededError(`its deadline was ${new Date(until).toISOString()}`));
  };
  if (deadline !== undefined && !isResumed) wait(deadline);
  return {
    check(failed) {
      if (maxFailures === undefined || failed - failedBefore <= maxFailures) return;
      const some = `${failed - failedBefore} ${failed - failedBefore === 1 ? "entry" : "entries"} failed`;
      exceed(
        new TooManyFailuresError(
          `${some}${isResumed ? " since it was resumed" : ""}, and max_failures is ${maxFailures}`,
        ),
      );
    },
    stop: () => clearTimeout(timer),
  };
}
