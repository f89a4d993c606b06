/**
 * Decides which waiting predictions go to an engine together, and when. Pure
 * bookkeeping: it starts nothing and knows no engine.
 */

export interface BatcherOptions {
  /** Most predictions that the model runs together. */
  maxBatchSize: number;
  /** Longest wait in milliseconds for a batch to fill, counted from its first prediction. */
  maxQueueDelayMs: number;
}

/** Small batches are cheaper to send several at a time: most predictions that one message carries for that reason. */
const MESSAGE_SIZE = 128;
/** But no more of them than an engine works off in this time, so that what comes later need not wait long. */
const MESSAGE_WORK_MS = 40;

interface Waiting<T> {
  item: T;
  priority: number;
  since: number;
  expiresAt: number;
}

export class Batcher<T> {
  #options: BatcherOptions;
  readonly #now: () => number;
  /** By priority (1 first), then by arrival. */
  #waiting: Waiting<T>[] = [];
  /** No one that waits expires before. */
  #firstExpiry = Infinity;

  constructor(options: BatcherOptions, now: () => number = Date.now) {
    this.#options = options;
    this.#now = now;
  }

  get size(): number {
    return this.#waiting.length;
  }

  /** Narrows the batch size to what the loaded model really takes. */
  limitBatchSize(limit: number): void {
    this.#options = {
      ...this.#options,
      maxBatchSize: Math.max(1, Math.min(limit, this.#options.maxBatchSize)),
    };
  }

  /**
   * @param priority the lower the sooner, from 1
   * @param expiresAt when it has waited for too long
   */
  add(item: T, priority: number, expiresAt = Infinity): void {
    let index = this.#waiting.length;
    while (index > 0 && this.#waiting[index - 1]!.priority > priority) index--;
    this.#waiting.splice(index, 0, { item, priority, since: this.#now(), expiresAt });
    this.#firstExpiry = Math.min(this.#firstExpiry, expiresAt);
  }

  /**
   * The predictions that go to an engine now; none while waiting for more is better.
   * @param engine whether it has nothing to do, and what it needs for one prediction in milliseconds (0 if unknown)
   * @param below only those that are more urgent than this priority
   */
  take(engine: { isIdle: boolean; msPerPrediction: number }, engines: number, below = Infinity): T[] {
    const count = this.#countBelow(below);
    const { maxBatchSize } = this.#options;
    if (count >= maxBatchSize)
      return this.#shift(Math.min(count, this.messageSize(count, engine.msPerPrediction, engines)));
    const mayWait = this.msUntilDue();
    return count > 0 && engine.isIdle && mayWait <= 0 ? this.#shift(count) : [];
  }

  /**
   * Of those that are more urgent than `priority`, one batch, for an engine that is busy with the less urgent; none
   * while waiting for more is better.
   */
  takeUrgent(priority: number): T[] {
    const urgent = this.#waiting.slice(0, this.#countBelow(priority));
    const { maxBatchSize, maxQueueDelayMs } = this.#options;
    const isDue = urgent.some(({ since }) => since + maxQueueDelayMs <= this.#now());
    return isDue || urgent.length >= maxBatchSize ? this.#shift(Math.min(urgent.length, maxBatchSize)) : [];
  }

  /** Milliseconds until an idle engine takes a batch that is not full; Infinity while nothing waits. */
  msUntilDue(): number {
    let since = Infinity;
    for (const waiting of this.#waiting) since = Math.min(since, waiting.since);
    return since + this.#options.maxQueueDelayMs - this.#now();
  }

  /** Takes away those that have waited for too long. */
  takeExpired(): T[] {
    const now = this.#now();
    if (now < this.#firstExpiry) return [];
    const expired = this.#waiting.filter(({ expiresAt }) => expiresAt <= now);
    this.#waiting = this.#waiting.filter(({ expiresAt }) => expiresAt > now);
    this.#firstExpiry = this.#waiting.reduce((first, { expiresAt }) => Math.min(first, expiresAt), Infinity);
    return expired.map(({ item }) => item);
  }

  /** Milliseconds until `takeExpired` is worth a call; Infinity while none can have waited for too long. */
  msUntilExpiry(): number {
    return this.#firstExpiry - this.#now();
  }

  /** Takes away those that are wanted no more. */
  takeWhere(isUnwanted: (item: T) => boolean): T[] {
    const unwanted = this.#waiting.filter(({ item }) => isUnwanted(item));
    if (unwanted.length > 0) this.#waiting = this.#waiting.filter(({ item }) => !isUnwanted(item));
    return unwanted.map(({ item }) => item);
  }

  /** Takes everything away, for a shutdown. */
  drain(): T[] {
    return this.#shift(this.#waiting.length);
  }

  /**
   * Predictions that go in one message when `count` wait: a multiple of the batch size, more than one batch only of
   * quick models, and no more than an equal share for each engine.
   */
  messageSize(count: number, msPerPrediction: number, engines: number): number {
    const { maxBatchSize } = this.#options;
    const quick = msPerPrediction > 0 ? MESSAGE_WORK_MS / msPerPrediction : 1;
    const share = Math.ceil(count / engines);
    const batches = Math.floor(Math.min(MESSAGE_SIZE, quick, share) / maxBatchSize);
    return Math.max(1, batches) * maxBatchSize;
  }

  #countBelow(priority: number): number {
    const count = this.#waiting.findIndex((waiting) => waiting.priority >= priority);
    return count < 0 ? this.#waiting.length : count;
  }

  #shift(count: number): T[] {
    return this.#waiting.splice(0, count).map(({ item }) => item);
  }
}
