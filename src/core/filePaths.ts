/**
 * Paths of files whose names need not be UTF-8. In JSON and in Redis a path is a string; bytes that are no UTF-8 stand
 * in it as U+DC80 to U+DCFF, as Python has them (`os.fsdecode`), which no name of valid UTF-8 can hold.
 */

const REPLACEMENT = "\uFFFD";
const ESCAPED = /[\uDC80-\uDCFF]/;

/** A name as the file system has it, as a string. */
export function decodeFileName(name: Buffer): string {
  const text = name.toString("utf8");
  if (!text.includes(REPLACEMENT) || Buffer.from(text).equals(name)) return text;
  let decoded = "";
  for (let at = 0; at < name.length;) {
    const length = lengthOfCharacter(name, at);
    decoded +=
      length === 0 ? String.fromCharCode(0xdc00 + name[at]!) : name.toString("utf8", at, at + length);
    at += length || 1;
  }
  return decoded;
}

/** What to give to the file system for a path that `decodeFileName` had a part in. */
export function toFilePath(path: string): string | Buffer {
  if (!ESCAPED.test(path)) return path;
  const parts: Buffer[] = [];
  // By code point, so that the second half of a pair is no escaped byte.
  for (const character of path) {
    const code = character.codePointAt(0)!;
    parts.push(code >= 0xdc80 && code <= 0xdcff ? Buffer.from([code - 0xdc00]) : Buffer.from(character));
  }
  return Buffer.concat(parts);
}

/** Bytes of the UTF-8 character that begins at `at`; 0 where none does. */
function lengthOfCharacter(bytes: Buffer, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length++) {
    const text = bytes.toString("utf8", at, at + length);
    if (!text.includes(REPLACEMENT)) return length;
  }
  // U+FFFD itself.
  return bytes.toString("hex", at, at + 3) === "efbfbd" ? 3 : 0;
}
