import { setTimeout as sleep } from "node:timers/promises";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { checkDecodedBytes, decodedBytes, withinBudget } from "../../../src/loaders/pictures/decodingCost.ts";
import { decodePicture } from "../../../src/loaders/pictures/picture.ts";

/** A PNG as far as its header goes, which is all that may be read of it. */
function pngHeader(side: number, depth: number, colourType: number, interlace: 0 | 1): Buffer {
  const bytes = Buffer.alloc(60);
  bytes.set([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
  bytes.writeUInt32BE(13, 8);
  bytes.write("IHDR", 12, "latin1");
  bytes.writeUInt32BE(side, 16);
  bytes.writeUInt32BE(side, 20);
  bytes.set([depth, colourType, 0, 0, interlace], 24);
  bytes.write("IDAT", 37, "latin1");
  return bytes;
}

const LIMIT = 384 * 1024 ** 2;
const options = {
  size: { width: 8, height: 8 },
  fit: "stretch",
  maxPixels: 64_000_000,
  maxBytes: LIMIT,
} as const;

describe("what a picture decodes to", () => {
  test.each([
    ["RGB of 8 bits", 8, 2, 0, 192e6],
    ["RGB of 16 bits", 16, 2, 0, 384e6],
    ["interlaced RGB of 16 bits", 16, 2, 1, 768e6],
    ["interlaced grey of 8 bits", 8, 0, 1, 128e6],
    ["RGB with alpha", 8, 6, 0, 256e6],
  ] as const)("is known by its header: a PNG of 8000 × 8000, %s", (_name, depth, type, interlace, bytes) => {
    const png = pngHeader(8000, depth, type, interlace);
    expect(decodedBytes(png, "PNG", { width: 8000, height: 8000 }, depth)).toBe(bytes);
  });

  test("is refused beyond the limit, before anything is decoded", async () => {
    const bomb = pngHeader(8000, 16, 2, 1);
    await expect(decodePicture(bomb, options)).rejects.toThrow(
      /8000×8000\) decodes to 768000000 bytes, more than max_decoded_bytes/,
    );
    expect(() => checkDecodedBytes([pngHeader(8000, 8, 2, 0)], LIMIT)).not.toThrow();
    expect(() => checkDecodedBytes(Array(16).fill(pngHeader(8000, 8, 2, 0)), LIMIT)).toThrow(
      /the pictures decode to 3072000000 bytes/,
    );
  });

  test("counts twice for a progressive JPEG", async () => {
    const picture = sharp({ create: { width: 64, height: 32, channels: 3, background: "#123456" } });
    const size = { width: 64, height: 32 };
    const [baseline, progressive] = await Promise.all(
      [false, true].map((isProgressive) => picture.clone().jpeg({ progressive: isProgressive }).toBuffer()),
    );
    expect(decodedBytes(baseline!, "JPEG", size, 8)).toBe(64 * 32 * 3);
    expect(decodedBytes(progressive!, "JPEG", size, 8)).toBe(64 * 32 * 6);
    await expect(decodePicture(progressive!, options)).resolves.toMatchObject({ width: 8, height: 8 });
  });

  test("is decoded side by side up to a budget, which small pictures don't wait for", async () => {
    const order: string[] = [];
    let atOnce = 0;
    let most = 0;
    const decode = (name: string, megabytes: number) =>
      withinBudget(megabytes * 1024 ** 2, async () => {
        const counted = megabytes > 16 ? megabytes : 0;
        most = Math.max(most, (atOnce += counted));
        await sleep(megabytes > 16 ? 50 : 1);
        atOnce -= counted;
        order.push(name);
      });
    await Promise.all([
      decode("large 1", 300),
      decode("large 2", 300),
      decode("alone", 900),
      decode("small", 1),
    ]);
    expect(order).toEqual(["small", "large 1", "large 2", "alone"]);
    expect(most).toBe(900);
  });
});
