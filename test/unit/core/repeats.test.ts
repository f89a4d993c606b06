import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createRepeats, kindOf } from "../../../src/core/repeats.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a kind of line is written once, and what follows is summed up each minute until it stops", () => {
  const lines: string[] = [];
  const repeats = createRepeats();
  const write = (line: string) => {
    if (repeats.allow(kindOf(line), (more) => lines.push(`${line} ${more}`))) lines.push(line);
  };
  for (let count = 0; count < 1205; count++) write(`job ${count} of pred_0a1b2c3d4e5f was refused`);
  write("another kind");
  expect(lines).toEqual(["job 0 of pred_0a1b2c3d4e5f was refused", "another kind"]);
  vi.advanceTimersByTime(60_000);
  expect(lines.at(-1)).toBe("job 0 of pred_0a1b2c3d4e5f was refused … and 1,204 more in the last minute");
  write("job 7 of pred_aaaaaaaaaaa1 was refused");
  vi.advanceTimersByTime(60_000);
  expect(lines.at(-1)).toMatch(/and 1 more in the last minute$/);
  vi.advanceTimersByTime(60_000);
  write("job 8 of pred_aaaaaaaaaaa2 was refused");
  expect(lines.at(-1)).toBe("job 8 of pred_aaaaaaaaaaa2 was refused");
});
