/**
 * How many deliveries each receiver may have in flight, so that a slow or dead
 * one takes no room from the others. What finds no room is woken when there is
 * some, in the order in which it came.
 */

/** A receiver that isn't known yet might hang; each answer doubles what it gets. */
const FIRST_LIMIT = 8;
const MOST_IN_FLIGHT = 64;
/** More receivers than this are forgotten where nothing is in flight. */
const MOST_REMEMBERED = 10_000;

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
  readonly #wake: (delivery: string) => void;

  constructor(wake: (delivery: string) => void) {
    this.#wake = wake;
  }

  /**
   * @param host name and port
   * @param delivery its id; it waits no longer if it finds room
   * @returns undefined where there is no room
   */
  visit(host: string, delivery: string): Visit | undefined {
    const receiver = this.#find(host);
    if (receiver.inFlight >= receiver.limit) return undefined;
    receiver.waiting.delete(delivery);
    receiver.inFlight++;
    return {
      leave: (hasAnswered) => {
        const before = receiver.limit;
        if (hasAnswered !== undefined)
          receiver.limit = hasAnswered ? Math.min(MOST_IN_FLIGHT, 2 * before) : 1;
        receiver.inFlight--;
        // One for the room that was left, and those who the limit lets in now. Who was woken before may be on its way.
        const room = Math.min(1 + Math.max(0, receiver.limit - before), receiver.limit - receiver.inFlight);
        this.#wakeFirst(receiver, room);
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
    if (receiver.inFlight < receiver.limit) this.#wakeFirst(receiver, 1);
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
    if (this.#receivers.size >= MOST_REMEMBERED) {
      for (const [name, { inFlight }] of this.#receivers) if (inFlight === 0) this.#receivers.delete(name);
    }
    const receiver: Receiver = { inFlight: 0, limit: FIRST_LIMIT, waiting: new Map() };
    this.#receivers.set(host, receiver);
    return receiver;
  }
}
