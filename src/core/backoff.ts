/** How long to wait before something that died is started again, or was refused is tried again: twice as long each time, up to a limit. */

export interface BackoffOptions {
  firstMs: number;
  maxMs: number;
  /** What lived for longer than this begins with `firstMs` again. Default: only what is reset does. */
  steadyMs?: number;
}

export interface Backoff {
  /** How often it was started again since it was steady. */
  readonly restarts: number;
  /** The next delay in milliseconds, for what lived for `livedMs`. */
  next(livedMs?: number): number;
  reset(): void;
}

export function createBackoff({ firstMs, maxMs, steadyMs = Infinity }: BackoffOptions): Backoff {
  let restarts = 0;
  return {
    get restarts() {
      return restarts;
    },
    next(livedMs = 0) {
      if (livedMs > steadyMs) restarts = 0;
      return Math.min(firstMs * 2 ** restarts++, maxMs);
    },
    reset: () => void (restarts = 0),
  };
}
