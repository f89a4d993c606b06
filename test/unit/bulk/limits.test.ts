import { describe, expect, test } from "vitest";
import { watchLimits } from "../../../src/bulk/limits.ts";
import { metadataSchema, readLimits } from "../../../src/core/bulkOptions.ts";

const NOW = Date.parse("2026-11-26T12:00:00Z");

describe("the limits of a run", () => {
  test("are read as numbers of entries, and as a time or seconds from its acceptance", () => {
    expect(readLimits({}, NOW)).toEqual({});
    expect(readLimits({ fail_fast: true }, NOW)).toEqual({ max_failures: 0 });
    expect(readLimits({ fail_fast: false, max_failures: 3 }, NOW)).toEqual({ max_failures: 3 });
    for (const deadline of [90, "90", "2026-11-26T12:01:30Z", "2026-11-26T14:01:30+02:00"])
      expect(readLimits({ deadline }, NOW)).toEqual({ deadline: NOW + 90_000 });
  });

  test.each([
    0,
    -1,
    1.5,
    40_000_000,
    "2026-11-26T11:59:59Z",
    "2026-11-27",
    "2026-11-27T12:00:00",
    "soon",
    "",
  ])("don't take %j for a deadline", (deadline) => {
    expect(readLimits({ deadline }, NOW)).toMatchObject({
      key: "deadline",
      problem: expect.stringContaining("must be a time as"),
    });
  });

  test("can't be to fail fast and to let some fail", () => {
    expect(readLimits({ fail_fast: true, max_failures: 2 }, NOW)).toMatchObject({ key: "max_failures" });
  });

  test("are exceeded by one failure more than may be, counted since the run was resumed", () => {
    const exceeded: string[] = [];
    const watch = (resumption: { isResumed: boolean; failedBefore: number }) =>
      watchLimits({ max_failures: 2 }, resumption, ({ code, message }) =>
        exceeded.push(`${code}: ${message}`),
      );
    const first = watch({ isResumed: false, failedBefore: 0 });
    first.check(2);
    expect(exceeded).toEqual([]);
    first.check(3);
    first.check(4);
    expect(exceeded).toEqual(["too_many_failures: 3 entries failed, and max_failures is 2"]);
    const second = watch({ isResumed: true, failedBefore: 4 });
    second.check(6);
    expect(exceeded).toHaveLength(1);
    second.check(7);
    expect(exceeded[1]).toContain("3 entries failed since it was resumed");
  });

  test("have no deadline any more where the run was resumed", async () => {
    const exceeded: string[] = [];
    for (const isResumed of [true, false])
      watchLimits({ deadline: 1000 }, { isResumed, failedBefore: 0 }, ({ code }) =>
        exceeded.push(`${code} ${isResumed}`),
      ).stop();
    expect(exceeded).toEqual(["deadline_exceeded false"]);
  });
});

test("metadata are a few short texts", () => {
  expect(metadataSchema.safeParse({ order: "7", note: "" }).success).toBe(true);
  const many = Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`k${index}`, ""]));
  for (const wrong of [
    { order: 7 },
    { "": "x" },
    { k: "x".repeat(513) },
    { ["k".repeat(65)]: "x" },
    many,
    [],
  ])
    expect(metadataSchema.safeParse(wrong).success).toBe(false);
});
