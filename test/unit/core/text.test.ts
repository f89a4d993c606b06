import { describe, expect, it } from "vitest";
import { decodeText, toUtf8 } from "../../../src/core/text.ts";

const TEXT = '{"Did":"Füße 足 😀"}\n';
const utf16be = (text: string) => Buffer.from(text, "utf16le").swap16();
const ENCODED: readonly [name: string, bytes: Buffer][] = [
  ["UTF-8", Buffer.from(TEXT)],
  ["UTF-8 with a mark", Buffer.from(`\uFEFF${TEXT}`)],
  ["UTF-16, little-endian, with a mark", Buffer.from(`\uFEFF${TEXT}`, "utf16le")],
  ["UTF-16, big-endian, with a mark", utf16be(`\uFEFF${TEXT}`)],
  ["UTF-16, little-endian, without a mark", Buffer.from(TEXT, "utf16le")],
  ["UTF-16, big-endian, without a mark", utf16be(TEXT)],
];

describe("text is read in every encoding that Windows writes", () => {
  it.each(ENCODED)("%s", async (_name, bytes) => {
    expect(decodeText(bytes)).toBe(TEXT);
    for (const size of [1, 2, 3, 5, 1000]) {
      const chunks: Buffer[] = [];
      for await (const chunk of toUtf8(pieces(bytes, size))) chunks.push(chunk);
      expect(Buffer.concat(chunks).toString(), `in pieces of ${size}`).toBe(TEXT);
    }
  });

  it("and what is none of them is refused", () => {
    expect(() => decodeText(Buffer.from([0x7b, 0xff, 0x7d]))).toThrow(TypeError);
    expect(decodeText(Buffer.alloc(0))).toBe("");
  });
});

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
