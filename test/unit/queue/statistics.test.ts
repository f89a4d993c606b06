import { describe, expect, test } from "vitest";
import { combinePoints, IntervalCounter, STATISTICS_INTERVAL_MS } from "../../../src/queue/statistics.ts";

const START = Date.UTC(2026, 10, 26, 12, 0, 0);

function counterAt(start = START) {
  let now = start;
  const counter = new IntervalCounter(() => now);
  return { counter, wait: (ms: number) => (now += ms) };
}

describe("the statistics of the last minutes", () => {
  test("an interval is told once, when it is over, and not at all where nothing ended in it", () => {
    const { counter, wait } = counterAt(START + 4000);
    counter.addEnd("succeeded", 2);
    counter.addEnd("succeeded", 2);
    counter.addEnd("failed", 0);
    expect(counter.takeClosed()).toEqual([]);
    wait(STATISTICS_INTERVAL_MS - 4001);
    expect(counter.takeClosed()).toEqual([]);
    wait(1);
    expect(counter.takeClosed()).toEqual([
      { at: START, succeeded: 2, failed: 1, batched: 2, batches: 1, run_ms: {} },
    ]);
    wait(10 * STATISTICS_INTERVAL_MS);
    expect(counter.takeClosed()).toEqual([]);
    counter.addEnd("failed", 1);
    wait(STATISTICS_INTERVAL_MS);
    expect(counter.takeClosed()).toMatchObject([{ at: START + 11 * STATISTICS_INTERVAL_MS, failed: 1 }]);
  });

  test.each([0.2, 1, 7, 33, 250, 4000, 90_000])("percentiles around %d ms are at most 5 %% off", (ms) => {
    const { counter, wait } = counterAt();
    // 94 that are quick, then six that take three times as long.
    for (let index = 0; index < 94; index++) counter.addRun(ms * (0.9 + index / 470));
    for (let index = 0; index < 6; index++) counter.addRun(3 * ms);
    counter.addEnd("succeeded", 1);
    wait(STATISTICS_INTERVAL_MS);
    const { p50_ms, p95_ms } = combinePoints(START, counter.takeClosed());
    const expected = (real: number) => [Math.max(1, real * 0.95), Math.max(1, real * 1.05) + 0.05];
    const [least, most] = expected(ms * (0.9 + 49.5 / 470));
    expect(p50_ms).toBeGreaterThanOrEqual(least! - 0.05);
    expect(p50_ms).toBeLessThanOrEqual(most!);
    const [leastOfSlow, mostOfSlow] = expected(3 * ms);
    expect(p95_ms).toBeGreaterThanOrEqual(leastOfSlow! - 0.05);
    expect(p95_ms).toBeLessThanOrEqual(mostOfSlow!);
  });

  test("what several workers counted adds up", () => {
    const point = (succeeded: number, batches: number, ms: number) => {
      const { counter, wait } = counterAt();
      for (let index = 0; index < succeeded; index++) {
        counter.addEnd("succeeded", succeeded / batches);
        counter.addRun(ms);
      }
      wait(STATISTICS_INTERVAL_MS);
      return counter.takeClosed()[0]!;
    };
    expect(combinePoints(START, [point(30, 10, 10), point(10, 10, 100)])).toEqual({
      at: "2026-11-26T12:00:00.000Z",
      succeeded: 40,
      failed: 0,
      p50_ms: expect.closeTo(10, 0),
      p95_ms: expect.closeTo(100, -1),
      mean_batch_size: 2,
    });
    const { counter, wait } = counterAt();
    counter.addEnd("failed", 0);
    wait(STATISTICS_INTERVAL_MS);
    expect(combinePoints(START, counter.takeClosed())).toMatchObject({
      p50_ms: null,
      p95_ms: null,
      mean_batch_size: null,
    });
  });
});
