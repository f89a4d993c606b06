/** Text files as they come: UTF-8 or UTF-16, with or without a byte order mark. */
import { readFile } from "node:fs/promises";

/** @throws Error of the file system where it can't be read */
export async function readTextFile(file: string): Promise<string> {
  return decodeText(await readFile(file));
}

export function decodeText(bytes: Uint8Array): string {
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  return new TextDecoder("utf-8").decode(bytes);
}
