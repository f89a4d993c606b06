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
  waiting: (() => void)[];
}

export interface Visit {
  /** @param hasAnswered undefined where nothing was sent; one that didn't answer gets a single one until it does */
  leave(hasAnswered: boolean | undefined): void;
}

export class Receivers {
  readonly #receivers = new Map<string, Receiver>();

  /**
   * @param host name and port
   * @returns undefined where there is no room
   */
  visit(host: string): Visit | undefined {
    const receiver = this.#find(host);
    if (receiver.inFlight >= receiver.limit) return undefined;
    receiver.inFlight++;
    return {
      leave(hasAnswered) {
        const before = receiver.limit;
        if (hasAnswered !== undefined)
          receiver.limit = hasAnswered ? Math.min(MOST_IN_FLIGHT, 2 * before) : 1;
        receiver.inFlight--;
        // One for the room that was left, and those who the limit lets in now. Who was woken before may be on its way.
        const room = Math.min(1 + Math.max(0, receiver.limit - before), receiver.limit - receiver.inFlight);
        for (const wake of receiver.waiting.splice(0, Math.max(0, room))) wake();
      },
    };
  }

  /** Calls `wake` when there is room for one more; right now, if there is some. */
  whenFree(host: string, wake: () => void): void {
    const receiver = this.#find(host);
    if (receiver.inFlight < receiver.limit) wake();
    else receiver.waiting.push(wake);
  }

  #find(host: string): Receiver {
    const known = this.#receivers.get(host);
    if (known) return known;
    if (this.#receivers.size >= MOST_REMEMBERED) {
      for (const [name, { inFlight }] of this.#receivers) if (inFlight === 0) this.#receivers.delete(name);
    }
    const receiver: Receiver = { inFlight: 0, limit: FIRST_LIMIT, waiting: [] };
    this.#receivers.set(host, receiver);
    return receiver;
  }
}
