/** COCO's run lengths; the texts are what COCO's own algorithm (rleToString) makes of the runs. */
import { expect, test } from "vitest";
import { compressRuns, decodeRunLengths, expandRuns } from "../../../src/imil/runLengths.ts";

test.each([
  ["a small mask", "1230N", [1, 2, 3, 2, 1], 3, 3],
  ["runs of more than five bits", "Xo0h0", [1000, 24], 32, 32],
  ["differences below zero", "51le02VZOU1Rl0", [5, 1, 700, 3, 2, 40, 900], 127, 13],
])("%s is written and read as COCO does it", (_what, counts, runs, height, width) => {
  expect(compressRuns(runs)).toBe(counts);
  expect(expandRuns(counts)).toEqual(runs);
  const columns = runs.flatMap((length, index) => Array.from({ length }, () => index % 2));
  const { data } = decodeRunLengths({ size: [height, width], counts });
  for (let at = 0; at < columns.length; at++) {
    expect(data[(at % height) * width + Math.floor(at / height)]).toBe(columns[at]);
  }
});
