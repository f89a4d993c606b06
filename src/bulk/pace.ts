/** How fast the entries of a run end, and from that how many travel together and how many wait in the bulk queue. */
import { MAX_CHUNK } from "../queue/bulkChunks.ts";

/** The rate is that of so long. */
const SPAN_MS = 2000;
/** A chunk is to last about so long, so that a run is cancelled quickly and no worker has much more than the others. */
const CHUNK_MS = 500;
/** What a chunk's rows may come to in Redis. */
const CHUNK_BYTES = 1024 * 1024;
/** The workers hold their capacity, as much again waits for them, and the rest bridges the time between two looks. */
const WINDOW_CAPACITIES = 3;
/** And what ends within this time, so that quick models need not wait for the coordinator. */
const WINDOW_MS = 250;
/** While no worker tells how much it can take. */
export const MIN_WINDOW = 64;
export const MAX_WINDOW = 4096;

/** The live workers of a model. */
export interface Capacity {
  workers: number;
  /** Predictions that they hold to keep their engines busy; 0 without a worker. */
  capacity: number;
}

export interface Plan {
  /** Entries of a chunk. */
  chunk: number;
  /** Entries in the bulk queue. */
  window: number;
}

export class Pace {
  readonly #now: () => number;
  /** When how many had ended; the first is the oldest that counts. */
  #samples: { at: number; ended: number }[];
  #ended = 0;
  #bytes = 0;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#samples = [{ at: now(), ended: 0 }];
  }

  /** @param bytes of the rows of those that ended */
  noteEnded(count: number, bytes: number): void {
    this.#ended += count;
    this.#bytes += bytes;
    const at = this.#now();
    this.#samples.push({ at, ended: this.#ended });
    while (this.#samples.length > 2 && this.#samples[1]!.at < at - SPAN_MS) this.#samples.shift();
  }

  /** Entries per second; 0 while unknown. */
  get rate(): number {
    const [first, last] = [this.#samples[0]!, this.#samples.at(-1)!];
    return last.at > first.at ? (1000 * (last.ended - first.ended)) / (last.at - first.at) : 0;
  }

  /** @param sharing runs of the model that are worked on side by side, this one included: each has its part of the window */
  plan({ workers, capacity }: Capacity, sharing: number): Plan {
    const wanted =
      capacity > 0 ? Math.max(WINDOW_CAPACITIES * capacity, (this.rate * WINDOW_MS) / 1000) : MIN_WINDOW;
    const window = Math.ceil(Math.min(MAX_WINDOW, wanted) / sharing);
    const ofEachWorker = this.rate / Math.max(1, workers);
    const rowBytes = this.#ended > 0 ? this.#bytes / this.#ended : 0;
    const limits = [
      MAX_CHUNK,
      (ofEachWorker * CHUNK_MS) / 1000,
      window / (2 * Math.max(1, workers)),
      rowBytes > 0 ? CHUNK_BYTES / rowBytes : Infinity,
    ];
    return { chunk: Math.max(1, Math.floor(Math.min(...limits))), window };
  }
}
