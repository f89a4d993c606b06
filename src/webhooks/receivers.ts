/**
 * How many deliveries each receiver may have in flight, so that a slow or dead
 * one takes no room from the others. What finds no room is woken when there is
 * some, in the order in which it came.
 */

/** A receiver that isn't known yet might hang; each answer doubles what it gets. */
const FIRST_LIMIT = 8;
const MAX_IN_FLIGHT = 64;
/** Of the room that nobody takes, one receiver may take this much: however many are slow, some is left for one more. */
const SHARE = 1 / 16;
/** More receivers than this are forgotten where nothing is in flight. */
const MAX_REMEMBERED = 10_000;

interface Receiver {
  inFlight: number;
  limit: number;
  /** Until when each delivery sleeps, by its id, in the order in which they came. */
  waiting: Map<string, number>;
}

export interface Visit {
  /** @param hasAnswered undefined where nothing was sent; one that didn't answer gets a single one until it does */
  leave(hasAnswered: boolean | undefined): void;
}

export class Receivers {
  readonly #receivers = new Map<string, Receiver>();
  readonly #capacity: number;
  readonly #wake: (delivery: string) => void;
  #inFlight = 0;

  /** @param capacity deliveries in flight to all receivers together */
  constructor(capacity: number, wake: (delivery: string) => void) {
    this.#capacity = capacity;
    this.#wake = wake;
  }

  /**
   * @param host name and port
   * @param delivery its id; it waits no longer if it finds room
   * @returns undefined where there is no room
   */
  visit(host: string, delivery: string): Visit | undefined {
    const receiver = this.#find(host);
    if (this.#roomOf(receiver) <= 0) return undefined;
    receiver.waiting.delete(delivery);
    receiver.inFlight++;
    this.#inFlight++;
    return {
      leave: (hasAnswered) => {
        const before = receiver.limit;
        if (hasAnswered !== undefined) receiver.limit = hasAnswered ? Math.min(MAX_IN_FLIGHT, 2 * before) : 1;
        receiver.inFlight--;
        this.#inFlight--;
        // One for the room that was left, and those who the limit lets in now. Who was woken before may be on its way.
        const more = 1 + Math.max(0, receiver.limit - before);
        this.#wakeFirst(receiver, Math.min(more, this.#roomOf(receiver)));
      },
    };
  }

  /**
   * Wakes a delivery when there is room for it; right now, if there is some.
   * @param until Unix time in ms at which it wakes by itself, and may go elsewhere
   */
  whenFree(host: string, delivery: string, until: number): void {
    const receiver = this.#find(host);
    // One that is there already keeps its place.
    receiver.waiting.set(delivery, until);
    if (this.#roomOf(receiver) > 0) this.#wakeFirst(receiver, 1);
  }

  #roomOf({ inFlight, limit }: Receiver): number {
    const share = Math.floor((this.#capacity - this.#inFlight) * SHARE);
    return Math.min(limit, Math.max(1, share)) - inFlight;
  }

  countWaiting(host: string): number {
    return this.#find(host).waiting.size;
  }

  #wakeFirst({ waiting }: Receiver, count: number): void {
    let left = count;
    for (const [delivery, until] of waiting) {
      if (left <= 0) return;
      waiting.delete(delivery);
      // One that woke by itself may be anywhere: with another coordinator, or waiting for its next attempt.
      if (until <= Date.now()) continue;
      this.#wake(delivery);
      left--;
    }
  }

  #find(host: string): Receiver {
    const known = this.#receivers.get(host);
    if (known) return known;
    if (this.#receivers.size >= MAX_REMEMBERED) {
      for (const [name, { inFlight }] of this.#receivers) if (inFlight === 0) this.#receivers.delete(name);
    }
    const receiver: Receiver = { inFlight: 0, limit: FIRST_LIMIT, waiting: new Map() };
    this.#receivers.set(host, receiver);
    return receiver;
  }
}
