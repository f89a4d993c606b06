/** Numbers and times as the console writes them, and the parts of its addresses. */
import { expect, test } from "vitest";
import { formatAgo, formatBytes, formatDuration, splitDetail } from "../../../src/console/format.ts";
import { parseRoute, routeTo } from "../../../src/console/route.ts";
import { fillStatistics } from "../../../src/console/statistics.ts";

test.each([
  [0, "0 ms"],
  [0.42, "0.4 ms"],
  [84.4, "84 ms"],
  [1234, "1.23 s"],
  [59_940, "59.9 s"],
  [61_000, "1 min 1 s"],
  [3_600_000, "1 h"],
  [93_600_000, "1 d 2 h"],
])("%d milliseconds are %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test("times are told from now", () => {
  const now = Date.parse("2026-11-26T12:00:00Z");
  expect(formatAgo("2026-11-26T11:59:59Z", now)).toBe("just now");
  expect(formatAgo("2026-11-26T11:58:00Z", now)).toBe("2 min ago");
  expect(formatAgo("2026-11-24T11:58:00Z", now)).toBe("2 d ago");
});

test("sizes", () => {
  expect([999, 1500, 25_000, 3_400_000].map(formatBytes)).toEqual(["999 B", "1.5 kB", "25 kB", "3.4 MB"]);
});

test("the stack of an error is parted from what it says", () => {
  expect(splitDetail("it broke\n    at a (b.ts:1)\n    at c")).toEqual({
    head: "it broke",
    rest: "    at a (b.ts:1)\n    at c",
  });
  expect(splitDetail("one line")).toEqual({ head: "one line", rest: "" });
});

test("what an address is made of comes back from it", () => {
  const address = routeTo(["models", "a/b ü"], { label: "traffic light", empty: "", none: undefined });
  const { parts, query } = parseRoute(address);
  expect(parts).toEqual(["models", "a/b ü"]);
  expect([...query]).toEqual([["label", "traffic light"]]);
  expect(parseRoute("#/a%zz").parts).toEqual(["a%zz"]);
  expect(parseRoute("").parts).toEqual([]);
});

test("intervals in which nothing ended are filled in, up to now", () => {
  const point = { succeeded: 3, failed: 1, p50_ms: 5, p95_ms: 9, mean_batch_size: 2 };
  const now = Date.parse("2026-11-26T12:00:05Z");
  const filled = fillStatistics(
    { interval_seconds: 15, points: [{ at: "2026-11-26T11:59:15.000Z", ...point }] },
    now,
  );
  expect(filled).toHaveLength(60);
  expect(filled.at(-1)).toMatchObject({ at: "2026-11-26T11:59:45.000Z", succeeded: 0, p50_ms: null });
  expect(filled.at(-3)).toMatchObject(point);
});
