import fc from "fast-check";
import { expect, test } from "vitest";
import { Batcher } from "../../../src/worker/batcher.ts";

const idle = { isIdle: true, msPerPrediction: 100 };
const busy = { isIdle: false, msPerPrediction: 100 };

function batcherAt(clock: { now: number }, maxBatchSize: number, maxQueueDelayMs: number): Batcher<string> {
  return new Batcher<string>({ maxBatchSize, maxQueueDelayMs }, () => clock.now);
}

test("an idle engine with delay 0 takes what is there", () => {
  const batcher = batcherAt({ now: 0 }, 8, 0);
  batcher.add("a", 2);
  batcher.add("b", 2);
  expect(batcher.take(idle, 1)).toEqual(["a", "b"]);
  expect(batcher.take(idle, 1)).toEqual([]);
});

test("a busy engine is handed a full batch only, so that the next one can fill", () => {
  const batcher = batcherAt({ now: 0 }, 2, 0);
  batcher.add("a", 2);
  expect(batcher.take(busy, 1)).toEqual([]);
  batcher.add("b", 2);
  expect(batcher.take(busy, 1)).toEqual(["a", "b"]);
});

test("the delay counts from the first waiting request and a full batch goes at once", () => {
  const clock = { now: 0 };
  const batcher = batcherAt(clock, 3, 10);
  batcher.add("a", 2);
  clock.now = 6;
  batcher.add("b", 2);
  expect(batcher.take(idle, 1)).toEqual([]);
  expect(batcher.msUntilDue()).toBe(4);
  clock.now = 10;
  expect(batcher.take(idle, 1)).toEqual(["a", "b"]);
  for (const item of ["c", "d", "e"]) batcher.add(item, 2);
  expect(batcher.take(idle, 1)).toEqual(["c", "d", "e"]);
  expect(batcher.msUntilDue()).toBe(Infinity);
});

test("a higher priority goes first, arrival decides within one", () => {
  const batcher = batcherAt({ now: 0 }, 2, 0);
  for (const [item, priority] of [
    ["low", 3],
    ["normal 1", 2],
    ["high", 1],
    ["normal 2", 2],
  ] as const) {
    batcher.add(item, priority);
  }
  expect(batcher.take(idle, 1)).toEqual(["high", "normal 1"]);
  expect(batcher.take(idle, 1)).toEqual(["normal 2", "low"]);
});

test("several batches of a quick model travel in one message, one of a slow model", () => {
  const fill = () => {
    const batcher = batcherAt({ now: 0 }, 1, 0);
    for (let index = 0; index < 200; index++) batcher.add(String(index), 2);
    return batcher;
  };
  expect(fill().take({ isIdle: true, msPerPrediction: 0.1 }, 1)).toHaveLength(128);
  expect(fill().take({ isIdle: true, msPerPrediction: 1 }, 1)).toHaveLength(40);
  expect(fill().take({ isIdle: true, msPerPrediction: 10 }, 1)).toHaveLength(4);
  expect(fill().take({ isIdle: true, msPerPrediction: 500 }, 1)).toHaveLength(1);
  // Each of ten engines gets its share of 200.
  expect(fill().take({ isIdle: true, msPerPrediction: 1 }, 10)).toHaveLength(20);
});

test("whatever comes in whatever order, each item leaves exactly once and no message breaks the batch size", () => {
  const step = fc.oneof(
    fc.record({ add: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ take: fc.boolean(), msPerPrediction: fc.integer({ min: 0, max: 100 }) }),
    fc.record({ pass: fc.integer({ min: 0, max: 20 }) }),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 0, max: 15 }),
      fc.integer({ min: 1, max: 4 }),
      fc.array(step, { maxLength: 200 }),
      (maxBatchSize, maxQueueDelayMs, engines, steps) => {
        const clock = { now: 0 };
        const batcher = new Batcher<number>({ maxBatchSize, maxQueueDelayMs }, () => clock.now);
        let added = 0;
        const taken: number[] = [];
        for (const each of steps) {
          if ("add" in each) batcher.add(added++, each.add);
          else if ("pass" in each) clock.now += each.pass;
          else {
            const chunk = batcher.take({ isIdle: each.take, msPerPrediction: each.msPerPrediction }, engines);
            // More than one batch must be whole batches.
            if (chunk.length > maxBatchSize) expect(chunk.length % maxBatchSize).toBe(0);
            expect(chunk.length).toBeLessThanOrEqual(Math.max(32, maxBatchSize));
            taken.push(...chunk);
          }
        }
        taken.push(...batcher.drain());
        expect(taken.toSorted((a, b) => a - b)).toEqual(Array.from({ length: added }, (_, index) => index));
      },
    ),
  );
});

test("an engine that is busy with the less urgent is handed the more urgent alone", () => {
  const batcher = batcherAt({ now: 0 }, 2, 0);
  for (const item of ["bulk 1", "bulk 2"]) batcher.add(item, 3);
  expect(batcher.takeUrgent(3)).toEqual([]);
  for (const item of ["a", "b", "c"]) batcher.add(item, 2);
  expect(batcher.takeUrgent(2)).toEqual([]);
  expect(batcher.takeUrgent(3)).toEqual(["a", "b"]);
  expect(batcher.takeUrgent(3)).toEqual(["c"]);
  expect(batcher.take(idle, 1)).toEqual(["bulk 1", "bulk 2"]);
});

test("the more urgent, too, waits for its batch to fill", () => {
  const clock = { now: 0 };
  const batcher = batcherAt(clock, 2, 10);
  batcher.add("a", 2);
  expect(batcher.takeUrgent(3)).toEqual([]);
  clock.now = 10;
  expect(batcher.takeUrgent(3)).toEqual(["a"]);
});

test("where the less urgent are to leave room, they make no batch full", () => {
  const batcher = batcherAt({ now: 0 }, 2, 0);
  batcher.add("a", 2);
  batcher.add("bulk", 3);
  expect(batcher.take(busy, 1, 3)).toEqual([]);
  batcher.add("b", 2);
  expect(batcher.take(busy, 1, 3)).toEqual(["a", "b"]);
});
