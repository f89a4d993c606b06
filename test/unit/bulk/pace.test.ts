import { expect, test } from "vitest";
import { Pace } from "../../../src/bulk/pace.ts";

/** The plan after entries ended at this rate for three seconds. */
function planAt(rate: number, { workers = 1, capacity = 32, rowBytes = 200, sharing = 1 } = {}) {
  let now = 0;
  const pace = new Pace(() => now);
  for (let step = 1; step <= 30; step++) {
    now = step * 100;
    pace.noteEnded(rate / 10, (rate / 10) * rowBytes);
  }
  return pace.plan({ workers, capacity }, sharing);
}

test("quick entries travel in whole chunks, and enough of them wait", () => {
  expect(planAt(20_000)).toEqual({ chunk: 32, window: 4096 });
  expect(planAt(400)).toEqual({ chunk: 32, window: 100 });
});

test("slow ones travel alone, so that a chunk never lasts much longer than one of them", () => {
  expect(planAt(0.1, { capacity: 4 })).toEqual({ chunk: 1, window: 12 });
  expect(planAt(10)).toEqual({ chunk: 5, window: 96 });
});

test("no worker of several gets more than its part", () => {
  expect(planAt(100, { workers: 10, capacity: 320 })).toEqual({ chunk: 5, window: 960 });
});

test("the rows of a chunk stay small together", () => {
  expect(planAt(1000, { rowBytes: 100_000 }).chunk).toBe(10);
  expect(planAt(1000, { rowBytes: 5_000_000 }).chunk).toBe(1);
});

test("runs side by side share the window", () => {
  expect(planAt(400, { sharing: 4 }).window).toBe(25);
});

test("before anything is known, a few entries travel one by one", () => {
  const pace = new Pace(() => 0);
  expect(pace.plan({ workers: 0, capacity: 0 }, 1)).toEqual({ chunk: 1, window: 64 });
});
