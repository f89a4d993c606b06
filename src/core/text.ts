/**
 * Text as it comes from anywhere: UTF-8 with or without a byte order mark, or UTF-16, as Windows' Notepad, Excel and
 * PowerShell write it.
 */

/** How bytes that begin like this are encoded, and how many of them are the mark. */
function encodingOf(bytes: Uint8Array): { encoding: "utf-8" | "utf-16le" | "utf-16be"; mark: number } {
  const [first, second, third] = bytes;
  if (first === 0xef && second === 0xbb && third === 0xbf) return { encoding: "utf-8", mark: 3 };
  if (first === 0xff && second === 0xfe) return { encoding: "utf-16le", mark: 2 };
  if (first === 0xfe && second === 0xff) return { encoding: "utf-16be", mark: 2 };
  // Without a mark: text of ours begins with an ASCII character.
  if (first !== undefined && first > 0 && second === 0) return { encoding: "utf-16le", mark: 0 };
  if (first === 0 && second !== undefined && second > 0) return { encoding: "utf-16be", mark: 0 };
  return { encoding: "utf-8", mark: 0 };
}

/**
 * The text that bytes are, without a byte order mark.
 * @throws TypeError where they are neither UTF-8 nor UTF-16
 */
export function decodeText(bytes: Uint8Array): string {
  const { encoding, mark } = encodingOf(bytes);
  return new TextDecoder(encoding, { fatal: true }).decode(bytes.subarray(mark));
}

/** A stream of text as UTF-8 without a byte order mark. */
export async function* toUtf8(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let beginning: Buffer | undefined = Buffer.alloc(0);
  let decoder: InstanceType<typeof TextDecoder> | undefined;
  for await (const chunk of chunks) {
    let bytes = chunk;
    if (beginning) {
      beginning = Buffer.concat([beginning, chunk]);
      if (beginning.length < 3) continue;
      const { encoding, mark } = encodingOf(beginning);
      if (encoding !== "utf-8") decoder = new TextDecoder(encoding);
      bytes = beginning.subarray(mark);
      beginning = undefined;
    }
    yield decoder ? Buffer.from(decoder.decode(bytes, { stream: true })) : bytes;
  }
  if (beginning) yield Buffer.from(decodeText(beginning));
  else if (decoder) yield Buffer.from(decoder.decode());
}
