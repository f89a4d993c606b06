/** Lines that say the same again and again: some are written, the rest are counted and summed up once a minute. */

const WINDOW_MS = 60_000;
/** Beyond this many kinds at a time, further ones share a count. */
const MAX_KINDS = 500;

export interface Repeats {
  /** Whether a line of this kind is to be written; if not, it is counted. */
  allow(kind: string, sumUp: (text: string) => void): boolean;
}

interface Seen {
  written: number;
  counted: number;
}

/** @param limit lines of one kind that are written in a minute */
export function createRepeats(limit = 1): Repeats {
  const kinds = new Map<string, Seen>();
  return {
    allow(kind, sumUp) {
      const key = kinds.has(kind) || kinds.size < MAX_KINDS ? kind : "other";
      const seen = kinds.get(key);
      if (seen && seen.written >= limit) {
        seen.counted++;
        return false;
      }
      if (seen) {
        seen.written++;
        return true;
      }
      const fresh: Seen = { written: 1, counted: 0 };
      kinds.set(key, fresh);
      const close = () => {
        if (fresh.counted === 0) {
          kinds.delete(key);
          return;
        }
        sumUp(`… and ${fresh.counted.toLocaleString("en-US")} more in the last minute`);
        // It goes on: what comes now is the same news still.
        fresh.counted = 0;
        fresh.written = limit;
        setTimeout(close, WINDOW_MS).unref();
      };
      setTimeout(close, WINDOW_MS).unref();
      return true;
    },
  };
}

/** A text without what differs from one line of its kind to the next: numbers and ids. */
export function kindOf(text: string): string {
  return text.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}|\b[\w-]*\d[\w-]*\b/gi, "#").slice(0, 200);
}
