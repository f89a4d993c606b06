/** Lines of a stream or a file, one at a time: what is read ahead is a chunk, never a file. */
import { createReadStream } from "node:fs";
import { BadInputError } from "../errors.ts";

/** A line without its break. */
export interface Line {
  text: string;
  /** Counted from 1. */
  number: number;
  /** Bytes from the beginning up to and with its break. */
  end: number;
  /** Whether it ended in a break; only the last one may not. */
  isWhole: boolean;
}

const LINE_BREAK = 10;

/**
 * @param longest bytes of a line
 * @throws BadInputError naming the line that is longer
 */
export async function* splitLines(
  chunks: AsyncIterable<Buffer>,
  longest = Number.POSITIVE_INFINITY,
): AsyncGenerator<Line> {
  let parts: Buffer[] = [];
  let length = 0;
  let number = 1;
  let end = 0;
  for await (const chunk of chunks) {
    let start = 0;
    for (;;) {
      const at = chunk.indexOf(LINE_BREAK, start);
      const part = chunk.subarray(start, at < 0 ? undefined : at);
      length += part.length;
      if (length > longest)
        throw new BadInputError(`line ${number} must be at most ${longest} bytes long, it is longer`);
      if (at < 0) {
        if (part.length > 0) parts.push(part);
        break;
      }
      end += length + 1;
      yield { text: textOf(parts, part), number: number++, end, isWhole: true };
      parts = [];
      length = 0;
      start = at + 1;
    }
  }
  if (length > 0) yield { text: textOf(parts), number, end: end + length, isWhole: false };
}

export function readLines(path: string): AsyncGenerator<Line> {
  return splitLines(createReadStream(path, { highWaterMark: 256 * 1024 }) as AsyncIterable<Buffer>);
}

function textOf(parts: Buffer[], last?: Buffer): string {
  if (parts.length === 0) return last?.toString("utf8") ?? "";
  return Buffer.concat(last ? [...parts, last] : parts).toString("utf8");
}
