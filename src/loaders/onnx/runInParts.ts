/** Runs any number of rows through a model that takes only so many at a time. */
import type { PictureInput } from "../pictures/OnnxPictureModelLoader.ts";

/**
 * One result for each row, in order. `batch` is what the model's input says of its first axis; where it is free, a run
 * takes up to `most` rows. A model of a fixed batch gets the last row again until it is full.
 */
export async function runInParts<Row, Result>(
  rows: readonly Row[],
  { batch, most }: { batch: PictureInput["batch"]; most: number },
  run: (part: readonly Row[]) => Promise<readonly Result[]>,
): Promise<Result[]> {
  const size = batch === "any" ? most : batch === "none" ? 1 : batch;
  const results: Result[] = [];
  for (let start = 0; start < rows.length; start += size) {
    const part = rows.slice(start, start + size);
    const filler = typeof batch === "number" ? Array<Row>(size - part.length).fill(part.at(-1)!) : [];
    results.push(...(await run([...part, ...filler])).slice(0, part.length));
  }
  return results;
}
