/** COCO's compressed run lengths, as pycocotools reads and writes them: a mask column by column, beginning with what is outside. */
import type { Mask } from "./dictionaries.ts";

/** Pixels of a mask at some size: 1 where it is. */
export interface Bitmap {
  width: number;
  height: number;
  /** Row by row. */
  data: Uint8Array;
}

/** As COCO writes runs: from the fourth on their difference to the one before the last, 5 bits to a letter, lowest first. */
export function compressRuns(runs: readonly number[]): string {
  let text = "";
  for (const [index, run] of runs.entries()) {
    let value = index > 2 ? run - runs[index - 2]! : run;
    for (let more = true; more;) {
      let bits = value & 0x1f;
      value >>= 5;
      more = bits & 0x10 ? value !== -1 : value !== 0;
      if (more) bits |= 0x20;
      text += String.fromCharCode(bits + 48);
    }
  }
  return text;
}

/** The runs that `compressRuns` wrote. */
export function expandRuns(text: string): number[] {
  const runs: number[] = [];
  for (let at = 0; at < text.length;) {
    let value = 0;
    let shift = 0;
    for (let more = true; more; shift += 5) {
      const bits = text.charCodeAt(at++) - 48;
      value |= (bits & 0x1f) << shift;
      more = (bits & 0x20) !== 0;
      if (!more && bits & 0x10) value |= -1 << (shift + 5);
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2]! : value);
  }
  return runs;
}

/** The pixels that run lengths mean, row by row. */
export function decodeRunLengths({ size: [height, width], counts }: Mask["Rle"]): Bitmap {
  const data = new Uint8Array(width * height);
  let at = 0;
  for (const [index, run] of expandRuns(counts).entries()) {
    if (index % 2 === 1)
      for (let each = at; each < at + run; each++)
        data[(each % height) * width + Math.floor(each / height)] = 1;
    at += run;
  }
  return { width, height, data };
}
