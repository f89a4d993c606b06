import { expect, test } from "vitest";
import { CountedResults } from "../../../src/bulk/countedResults.ts";
import type { BulkResult } from "../../../src/core/bulkRun.ts";

const START = Date.parse("2026-01-01T00:00:00.000Z");
const timings = (infer_ms: number) => ({
  queue_ms: 10,
  read_ms: 1,
  preprocess_ms: 2,
  infer_ms,
  postprocess_ms: 1,
});
const succeeded = (
  index: number,
  findings: [string, number][],
  more: Partial<BulkResult> = {},
): BulkResult => ({
  index,
  status: "succeeded",
  line: index + 1,
  path: `${index}.jpg`,
  result: { Fs: findings.map(([Lb, Cs]) => ({ Lb, Cs, Dm: {} })) },
  timings: timings(index + 1),
  finished_at: new Date(START + index * 1000).toISOString(),
  ...more,
});
const failed = (index: number, detail: string, code = "bad_input"): BulkResult => ({
  index,
  status: "failed",
  line: index + 1,
  path: `a/${index}.jpg`,
  error: { code, title: "The input can't be used", detail },
});

function countAll(results: Iterable<BulkResult>) {
  const counted = new CountedResults();
  for (const result of results) counted.add(result);
  return counted.read();
}

test("labels are counted by findings and by entries, the most frequent first", () => {
  const { labels, counts } = countAll([
    succeeded(0, [
      ["cat", 0.5],
      ["dog", 0.9],
      ["cat", 0.7],
    ]),
    succeeded(1, [["cat", 0.6]]),
    succeeded(2, []),
    succeeded(3, [], { result: { embedding: [1] } }),
  ]);
  expect(labels).toMatchObject([
    { label: "cat", count: 3, entries: 2, mean_score: 0.6 },
    { label: "dog", count: 1, entries: 1, mean_score: 0.9 },
  ]);
  // An answer that knows no findings is no entry in which nothing was found.
  expect(counts).toEqual({ succeeded: 4, failed: 0, findings: 4, without_findings: 1 });
});

test("each score falls into the bin that it begins, and 1 into the last", () => {
  const { scores } = countAll([
    succeeded(0, [
      ["a", 0],
      ["a", 0.049],
      ["a", 0.05],
      ["a", 0.15],
      ["a", 0.3],
      ["a", 1],
    ]),
  ]);
  const filled = scores!.bins.flatMap((count, bin) => (count > 0 ? [[bin, count]] : []));
  expect(filled).toEqual([
    [0, 2],
    [1, 1],
    [3, 1],
    [6, 1],
    [19, 1],
  ]);
  expect(scores).toMatchObject({ min: 0, max: 1 });
});

test("however long a run takes, its rate has at most 120 points, in which every entry is", () => {
  const results = Array.from({ length: 5000 }, (_, index) => succeeded(index, []));
  const { rate } = countAll(results);
  expect(rate.points.length).toBeLessThanOrEqual(120);
  expect(rate.points.length).toBeGreaterThan(60);
  expect(rate.points.reduce((sum, point) => sum + point.succeeded, 0)).toBe(5000);
  expect(rate.points[0]).toEqual({
    at: "2026-01-01T00:00:00.000Z",
    succeeded: rate.interval_seconds,
    failed: 0,
  });
});

test("quantiles of a stage are right to 3 %", () => {
  const { stages } = countAll(Array.from({ length: 1000 }, (_, index) => succeeded(index, [])));
  const infer = stages.find(({ stage }) => stage === "infer")!;
  expect(infer.mean_ms).toBeCloseTo(500.5, 1);
  expect(Math.abs(infer.p50_ms / 500 - 1)).toBeLessThan(0.03);
  expect(Math.abs(infer.p95_ms / 950 - 1)).toBeLessThan(0.03);
  expect(infer.max_ms).toBe(1000);
  expect(stages.find(({ stage }) => stage === "queue")!.share).toBeNull();
  const shares = stages.flatMap(({ share }) => share ?? []);
  expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 3);
});

test("failures that differ in a path, a number or a quotation are one reason with examples", () => {
  const { failures } = countAll([
    ...Array.from({ length: 7 }, (_, index) =>
      failed(index, `/data/a/${index}.jpg: got ${index + 5} bytes that begin with "x${index}\\n"`),
    ),
    failed(8, "no memory", "loader_failed"),
    failed(9, "no memory", "loader_failed"),
  ]);
  expect(failures.map(({ reason, count }) => [reason, count])).toEqual([
    ['…: got … bytes that begin with "…"', 7],
    ["no memory", 2],
  ]);
  expect(failures[0]!.examples).toHaveLength(5);
  expect(failures[0]!.examples[1]).toEqual({
    index: 1,
    path: "a/1.jpg",
    detail: '/data/a/1.jpg: got 6 bytes that begin with "x1\\n"',
  });
});

test("the slowest come first, without the wait in the queue", () => {
  const { slowest } = countAll(Array.from({ length: 100 }, (_, index) => succeeded((index * 37) % 100, [])));
  expect(slowest).toHaveLength(20);
  expect(slowest.slice(0, 2)).toEqual([
    { index: 99, path: "99.jpg", duration_ms: 104 },
    { index: 98, path: "98.jpg", duration_ms: 103 },
  ]);
});

test("a label of its own for each finding takes no more memory than many", () => {
  const { labels, more_labels } = countAll(
    Array.from({ length: 30_000 }, (_, index) => succeeded(index, [[`text ${index}`, 0.9]])),
  );
  expect(labels).toHaveLength(100);
  expect(more_labels).toBe(29_900);
});
