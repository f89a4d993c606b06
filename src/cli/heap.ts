/** What processes that work on bulk runs ask of V8. */
import { setFlagsFromString } from "node:v8";

/**
 * V8 lets a heap under steady load grow by far more than what lives in it, so that a process would take more memory the
 * longer a bulk run lasts. In steps of a fifth it stays small, at the same rate. Not for a process that many pictures
 * pass through: it would collect all the time. A V8 without this flag says so on stderr and continues.
 */
export function keepHeapSmall(): void {
  setFlagsFromString("--heap-growing-percent=20");
}
