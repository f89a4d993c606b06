/** Turns: of what has the same key, so many are under way at a time; the others wait in the order of coming. */

export interface Turn {
  /** Once, however often it is called. */
  end(): void;
}

interface Line {
  free: number;
  /** Who wait, each with what lets it go on. */
  waiting: Set<() => void>;
}

export class Turns {
  readonly #limit: number;
  readonly #lines = new Map<string, Line>();

  /** @param limit turns of a key at a time */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Resolves once there is a turn; with undefined where `signal` is aborted before. */
  async take(key: string, signal: AbortSignal): Promise<Turn | undefined> {
    const line = this.#lines.get(key) ?? { free: this.#limit, waiting: new Set() };
    this.#lines.set(key, line);
    if (line.free > 0) line.free--;
    else if (!(await waitIn(line, signal))) return undefined;
    let hasEnded = false;
    const end = () => {
      if (!hasEnded) this.#leave(key, line);
      hasEnded = true;
    };
    return { end };
  }

  /** The next one takes over the place. */
  #leave(key: string, line: Line): void {
    const [next] = line.waiting;
    if (next) {
      line.waiting.delete(next);
      return next();
    }
    line.free++;
    if (line.free === this.#limit) this.#lines.delete(key);
  }
}

/** @returns whether a place was left, and not `signal` aborted */
function waitIn({ waiting }: Line, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    const giveUp = () => {
      if (waiting.delete(enter)) resolve(false);
    };
    const enter = () => {
      signal.removeEventListener("abort", giveUp);
      resolve(true);
    };
    waiting.add(enter);
    signal.addEventListener("abort", giveUp, { once: true });
  });
}
