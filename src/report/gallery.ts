/** Which entries of a run a report shows: the first that failed, the least sure, the first, and a random sample. */
import { createHash } from "node:crypto";
import { readResults } from "../bulk/resultsFile.ts";
import type { BulkResult } from "../core/bulkRun.ts";
import { bestScore } from "./entries.ts";

const MAX_FAILED = 6;
const MAX_SHOWN = 12;

export interface Gallery {
  failed: BulkResult[];
  leastSure: BulkResult[];
  first: BulkResult[];
  sample: BulkResult[];
}

/** In one pass; an entry is in one part only. The same results give the same sample. */
export async function chooseGallery(run: string, resultsFile: string): Promise<Gallery> {
  const random = createRandom(run);
  const failed: BulkResult[] = [];
  const first: BulkResult[] = [];
  // Each as large as it needs to be when the others have taken from it what they show.
  const leastSure = new Least<BulkResult>(2 * MAX_SHOWN);
  const sample = new Least<string>(3 * MAX_SHOWN);
  for await (const { text } of readResults(resultsFile)) {
    const result = JSON.parse(text) as BulkResult;
    if (result.status === "failed") {
      if (failed.length < MAX_FAILED) failed.push(result);
      continue;
    }
    if (first.length < MAX_SHOWN) first.push(result);
    const score = bestScore(result);
    if (score !== null) leastSure.add(score, result);
    sample.add(random(), text);
  }
  const shown = new Set(first.map(({ index }) => index));
  const unseen = (results: BulkResult[]) =>
    results.filter(({ index }) => !shown.has(index) && shown.add(index)).slice(0, MAX_SHOWN);
  return {
    failed,
    first,
    leastSure: unseen(leastSure.values()),
    sample: unseen(sample.values().map((text) => JSON.parse(text) as BulkResult)).toSorted(
      (a, b) => a.index - b.index,
    ),
  };
}

/** The values of the least keys. */
class Least<T> {
  readonly #size: number;
  #kept: { key: number; value: T }[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  add(key: number, value: T): void {
    if (this.#kept.length === this.#size && key >= this.#kept.at(-1)!.key) return;
    const place = this.#kept.findIndex((other) => other.key > key);
    this.#kept.splice(place < 0 ? this.#kept.length : place, 0, { key, value });
    if (this.#kept.length > this.#size) this.#kept.pop();
  }

  values(): T[] {
    return this.#kept.map(({ value }) => value);
  }
}

/** Numbers from 0 to 1 that are the same for the same text (mulberry32). */
function createRandom(text: string): () => number {
  let state = createHash("sha256").update(text).digest().readUInt32LE();
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
