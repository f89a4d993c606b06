/** COCO's run lengths as the console decodes them; the texts are what COCO's own algorithm (rleToString) makes of the runs. */
import { expect, test } from "vitest";
import { decodeRunLengths } from "../../../src/console/runLengths.ts";
import { encodeRunLengths } from "../../../src/loaders/vision/masks.ts";

/** The mask that runs stand for, column by column. */
function maskOf(...runs: number[]): number[] {
  return runs.flatMap((length, index) => Array.from({ length }, () => index % 2));
}

test.each([
  ["a small mask", "1230N", [1, 2, 3, 2, 1], 3, 3],
  ["runs of more than five bits", "Xo0h0", [1000, 24], 32, 32],
  ["differences below zero", "51le02VZOU1Rl0", [5, 1, 700, 3, 2, 40, 900], 127, 13],
])("%s column by column", (_what, counts, runs, height, width) => {
  expect([...decodeRunLengths(counts, height, width)]).toEqual(maskOf(...runs));
});

test("what the loaders write", () => {
  // Rows of a picture of 5 × 4, a ring with a dot beside it.
  const rows = ["01110", "01010", "01110", "00001"];
  const bitmap = { data: Uint8Array.from(rows.join(""), Number), width: 5, height: 4 };
  const size = { width: 5, height: 4 };
  const mask = decodeRunLengths(encodeRunLengths(bitmap, { left: 0, top: 0 }, size), 4, 5);
  expect(rows).toEqual(rows.map((row, y) => Array.from(row, (_pixel, x) => mask[x * 4 + y]).join("")));
});

test.each([
  ["runs that are longer than the mask", "99"],
  ["a text that ends in the middle of a run", "P"],
  ["characters that no run has", "1 2"],
])("%s are refused", (_what, counts) => {
  expect(() => decodeRunLengths(counts, 2, 2)).toThrow(RangeError);
});
