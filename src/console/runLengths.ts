/** COCO's compressed run lengths, as pycocotools writes them: a mask column by column, beginning with what is outside. */

/** @throws RangeError where the runs are not those of a mask of this size */
export function decodeRunLengths(counts: string, height: number, width: number): Uint8Array {
  const mask = new Uint8Array(height * width);
  let at = 0;
  let isInside = false;
  for (const run of readRuns(counts)) {
    if (run < 0 || at + run > mask.length) {
      throw new RangeError(`the runs of the mask don't fit ${width} × ${height} pixels`);
    }
    if (isInside) mask.fill(1, at, at + run);
    at += run;
    isInside = !isInside;
  }
  return mask;
}

/** Five bits a character, the lowest first, the sixth says that more follow; from the third run on, differences. */
function readRuns(counts: string): number[] {
  const runs: number[] = [];
  let place = 0;
  while (place < counts.length) {
    let value = 0;
    let shift = 0;
    let hasMore = true;
    while (hasMore) {
      const bits = counts.charCodeAt(place++) - 48;
      if (!(bits >= 0 && bits < 64)) throw new RangeError("the runs of the mask are cut off or damaged");
      value += (bits & 31) * 2 ** shift;
      shift += 5;
      hasMore = (bits & 32) !== 0;
      if (!hasMore && (bits & 16) !== 0) value -= 2 ** shift;
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2]! : value);
  }
  return runs;
}
