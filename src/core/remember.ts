/** Answers that many ask for and that may be a little old. */

/** Answers what was read last where it can't be read now. */
export function orLast<T>(read: () => Promise<T>): () => Promise<T> {
  let last: { value: T } | undefined;
  return async () => {
    try {
      last = { value: await read() };
    } catch (error) {
      if (!last) throw error;
    }
    return last.value;
  };
}

/** Asks at most once in `maxAgeMs`, however many ask; an answer that failed is asked for again at once. */
export function rememberBriefly<T>(read: () => Promise<T>, maxAgeMs: number): () => Promise<T> {
  let known: Promise<T> | undefined;
  let readAt = 0;
  return () => {
    if (!known || Date.now() - readAt > maxAgeMs) {
      readAt = Date.now();
      const reading = read();
      reading.catch(() => known === reading && (known = undefined));
      known = reading;
    }
    return known;
  };
}
