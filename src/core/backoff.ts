/** How long to wait before something that died is started again: twice as long each time, up to a limit. */

export interface BackoffOptions {
  firstMs: number;
  maxMs: number;
  /** What lived for longer than this begins with `firstMs` again. */
  steadyMs: number;
}

export interface Backoff {
  /** How often it was started again since it was steady. */
  readonly restarts: number;
  /** The next delay in milliseconds, for what lived for `livedMs`. */
  next(livedMs: number): number;
}

export function createBackoff({ firstMs, maxMs, steadyMs }: BackoffOptions): Backoff {
  let restarts = 0;
  return {
    get restarts() {
      return restarts;
    },
    next(livedMs) {
      if (livedMs > steadyMs) restarts = 0;
      return Math.min(firstMs * 2 ** restarts++, maxMs);
    },
  };
}
