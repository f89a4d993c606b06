/** Text files as they come: UTF-8 or UTF-16, with or without a byte order mark. */
import { readFile } from "node:fs/promises";
import { decodeText } from "../core/text.ts";

/** @throws Error of the file system where it can't be read, TypeError where it is no text */
export async function readTextFile(file: string): Promise<string> {
  return decodeText(await readFile(file));
}
