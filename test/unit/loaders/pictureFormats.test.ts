import { readFile } from "node:fs/promises";
import path from "node:path";
import * as fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import {
  describeBytes,
  hasPictureExtension,
  isPictureMediaType,
  sniffPicture,
} from "../../../src/core/pictureFormats.ts";
import { BadInputError } from "../../../src/errors.ts";
import { repairJpeg } from "../../../src/loaders/pictures/jpegRepair.ts";
import { decodePicture, type DecodeOptions } from "../../../src/loaders/pictures/picture.ts";
import { noSharedModels, sharedField } from "../../support/sharedModels.ts";

type Colour = readonly [red: number, green: number, blue: number];
const PINK: Colour = [200, 40, 90];

/** Decoded without a change of size. */
const decode = async (bytes: Buffer, options: Partial<DecodeOptions> = {}) =>
  decodePicture(bytes, {
    size: { width: 4096, height: 4096 },
    fit: "inside",
    maxPixels: 1_000_000,
    ...options,
  });

const plain = ([r, g, b]: Colour, width = 64, height = 48) =>
  sharp({ create: { width, height, channels: 3, background: { r, g, b } } });

async function refused(bytes: Buffer, options?: Partial<DecodeOptions>): Promise<string> {
  const outcome = await decode(bytes, options).catch((error: unknown) => error);
  expect(outcome).toBeInstanceOf(BadInputError);
  return (outcome as Error).message;
}

function expectPlain({ pixels }: { pixels: Uint8Array }, colour: Colour, tolerance: number) {
  let most = 0;
  for (const [at, value] of pixels.entries()) most = Math.max(most, Math.abs(value - colour[at % 3]!));
  expect(most, `farthest from ${colour.join(" ")}`).toBeLessThanOrEqual(tolerance);
}

describe("a picture is decoded from every format of the list", () => {
  it("TIFF, in the ways that scanners and cameras compress it, and its first page only", async () => {
    for (const compression of ["none", "lzw", "deflate", "jpeg", "packbits", "webp"] as const) {
      const bytes = await plain(PINK).tiff({ compression, quality: 100 }).toBuffer();
      const picture = await decode(bytes);
      expect(picture.original, compression).toEqual({ width: 64, height: 48 });
      expectPlain(picture, PINK, 3);
    }
    const pages = await Promise.all(
      [PINK, [1, 2, 3] as const].map((colour) => plain(colour).raw().toBuffer()),
    );
    const twoPages = await sharp(Buffer.concat(pages), {
      raw: { width: 64, height: 96, channels: 3, pageHeight: 48 },
    })
      .tiff({ compression: "lzw" })
      .toBuffer();
    expect((await sharp(twoPages).metadata()).pages, "the test's own picture").toBe(2);
    expectPlain(await decode(twoPages), PINK, 0);
  });

  it("TIFF turned upright, in CMYK, of one bit", async () => {
    const turned = await plain(PINK).withMetadata({ orientation: 6 }).tiff().toBuffer();
    expect((await decode(turned)).original).toEqual({ width: 48, height: 64 });
    const oneBit = await plain([255, 255, 255]).toColourspace("b-w").tiff({ bitdepth: 1 }).toBuffer();
    expectPlain(await decode(oneBit), [255, 255, 255], 0);
    const cmyk = await decode(await plain(PINK).toColourspace("cmyk").tiff().toBuffer());
    expectPlain(cmyk, PINK, 45);
  });

  it("GIF: its first frame, transparent parts on white", async () => {
    const frames = await Promise.all(
      [PINK, [1, 2, 3] as const].map((colour) => plain(colour).raw().toBuffer()),
    );
    const raw = { width: 64, height: 96, channels: 3, pageHeight: 48 } as const;
    const gif = await sharp(Buffer.concat(frames), { raw })
      .gif({ loop: 0, delay: [100, 100] })
      .toBuffer();
    const picture = await decode(gif);
    expect(picture.original).toEqual({ width: 64, height: 48 });
    expectPlain(picture, PINK, 1);
    const clear = {
      create: { width: 9, height: 9, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } },
    } as const;
    expectPlain(await decode(await sharp(clear).gif().toBuffer()), [255, 255, 255], 0);
  });

  it("AVIF", async () => {
    const picture = await decode(await plain(PINK).avif({ quality: 90 }).toBuffer());
    expect(picture.original).toEqual({ width: 64, height: 48 });
    expectPlain(picture, PINK, 3);
  });

  // 16×16, written by libheif.
  it("HEIC where the decoder has it, and else says so", async () => {
    const bytes = Buffer.from(
      "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAACgAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAEAAAAAEAAAAQAAAAAf///9AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAMG1kYXQAAAAkKAGvGSE5Eu9dpb//TyrFf4FW3ymSgKaXBNeImQsDgYCNkZ04",
      "base64",
    );
    const outcome = await decode(bytes).catch((error: unknown) => error as Error);
    if (outcome instanceof Error) {
      expect(outcome).toBeInstanceOf(BadInputError);
      expect(outcome.message).toBe(
        "the picture (HEIC, 16×16) is compressed in a way that this decoder can't read; convert it to JPEG",
      );
    } else expectPlain(outcome, PINK, 6);
  });

  it("but never more pixels than allowed, whatever the format", async () => {
    for (const format of ["tiff", "gif", "avif"] as const) {
      const bytes = await plain(PINK, 200, 100).toFormat(format).toBuffer();
      expect(await refused(bytes, { maxPixels: 19_999 }), format).toBe(
        "the picture is 200×100 = 20000 pixels, more than max_picture_pixels (19999)",
      );
    }
    const bmp = writeBmp({ width: 30_000, height: 30_000, bits: 1, rows: Buffer.alloc(0) });
    expect(await refused(bmp)).toContain("900000000 pixels, more than max_picture_pixels");
  });

  it("and what is cut short in any of them is refused", async () => {
    const noisy = sharp({
      create: {
        width: 100,
        height: 80,
        channels: 3,
        background: "#808080",
        noise: { type: "gaussian", mean: 128, sigma: 60 },
      },
    });
    for (const format of ["tiff", "gif", "avif"] as const) {
      const whole = await noisy.clone().toFormat(format).toBuffer();
      await decode(whole);
      for (const part of [0.1, 0.5, 0.9])
        expect(
          await refused(whole.subarray(0, Math.floor(whole.length * part))),
          `${format} ${part}`,
        ).toMatch(/^the picture \((TIFF|GIF|AVIF), .*\) is (damaged or cut short|compressed)/);
    }
  });
});

interface Bmp {
  width: number;
  height: number;
  bits: number;
  rows: Buffer;
  compression?: number;
  palette?: readonly Colour[];
  masks?: readonly number[];
}

/** A BMP with the header of Windows 3 (40 bytes). A negative height means that the first row is the top one. */
function writeBmp({ width, height, bits, rows, compression = 0, palette = [], masks = [] }: Bmp): Buffer {
  const header = Buffer.alloc(54);
  header.write("BM", "latin1");
  const offset = 54 + palette.length * 4 + masks.length * 4;
  header.writeUInt32LE(offset + rows.length, 2);
  header.writeUInt32LE(offset, 10);
  header.writeUInt32LE(40, 14);
  header.writeInt32LE(width, 18);
  header.writeInt32LE(height, 22);
  header.writeUInt16LE(1, 26);
  header.writeUInt16LE(bits, 28);
  header.writeUInt32LE(compression, 30);
  header.writeUInt32LE(palette.length, 46);
  const colours = Buffer.from(palette.flatMap(([red, green, blue]) => [blue, green, red, 0]));
  const maskBytes = Buffer.alloc(masks.length * 4);
  for (const [index, mask] of masks.entries()) maskBytes.writeUInt32LE(mask, index * 4);
  return Buffer.concat([header, maskBytes, colours, rows]);
}

describe("a BMP is decoded", () => {
  const RED: Colour = [255, 0, 0];
  const GREEN: Colour = [0, 255, 0];
  const BLUE: Colour = [0, 0, 255];
  const pixelsOf = async (bmp: Bmp) => {
    const { pixels } = await decode(writeBmp(bmp));
    return Array.from({ length: pixels.length / 3 }, (_, at) => [...pixels.subarray(at * 3, at * 3 + 3)]);
  };

  it("of 24 and 32 bits, bottom up and top down", async () => {
    // Two pixels a row, padded to 8 bytes.
    const rows = Buffer.from([255, 0, 0, 0, 255, 0, 9, 9, 0, 0, 255, 255, 0, 0, 9, 9]);
    expect(await pixelsOf({ width: 2, height: 2, bits: 24, rows })).toEqual([RED, BLUE, BLUE, GREEN]);
    expect(await pixelsOf({ width: 2, height: -2, bits: 24, rows })).toEqual([BLUE, GREEN, RED, BLUE]);
    const alpha = Buffer.from([255, 0, 0, 0, 0, 0, 255, 200]);
    expect(await pixelsOf({ width: 2, height: 1, bits: 32, rows: alpha })).toEqual([BLUE, RED]);
  });

  it("of 16 bits, with and without masks", async () => {
    const rows = Buffer.from([0x00, 0x7c, 0xe0, 0x03]);
    expect(await pixelsOf({ width: 2, height: 1, bits: 16, rows })).toEqual([RED, GREEN]);
    const masks = [0xf800, 0x7e0, 0x1f];
    const wide = Buffer.from([0x00, 0xf8, 0xe0, 0x07]);
    expect(await pixelsOf({ width: 2, height: 1, bits: 16, rows: wide, compression: 3, masks })).toEqual([
      RED,
      GREEN,
    ]);
  });

  it("of 8, 4, 2 and 1 bits", async () => {
    const palette = [RED, GREEN, BLUE, PINK];
    const four = [GREEN, RED, BLUE, PINK];
    const all = async (bits: number, bytes: readonly number[]) =>
      pixelsOf({ width: 4, height: 1, bits, rows: Buffer.from(bytes), palette });
    expect(await all(8, [1, 0, 2, 3])).toEqual(four);
    expect(await all(4, [0x10, 0x23, 0, 0])).toEqual(four);
    expect(await all(2, [0b01001011, 0, 0, 0])).toEqual(four);
    expect(await all(1, [0b10100000, 0, 0, 0])).toEqual([GREEN, RED, GREEN, RED]);
    // An index beyond the palette is black, as in Windows.
    expect((await all(8, [9, 0, 0, 0]))[0]).toEqual([0, 0, 0]);
  });

  it("with runs of 8 and 4 bits", async () => {
    const palette = [RED, GREEN, BLUE];
    // Two of 1, plain 2 0 2, end of line; a jump right by 1, three of 2, end.
    const eight = Buffer.from([2, 1, 0, 3, 2, 0, 2, 0, 0, 0, 0, 2, 1, 0, 3, 2, 0, 1]);
    expect(await pixelsOf({ width: 5, height: 2, bits: 8, rows: eight, compression: 1, palette })).toEqual([
      RED,
      BLUE,
      BLUE,
      BLUE,
      RED,
      GREEN,
      GREEN,
      BLUE,
      RED,
      BLUE,
    ]);
    const four = Buffer.from([3, 0x12, 0, 3, 0x01, 0x20, 0, 1]);
    expect(await pixelsOf({ width: 6, height: 1, bits: 4, rows: four, compression: 2, palette })).toEqual([
      GREEN,
      BLUE,
      GREEN,
      RED,
      GREEN,
      BLUE,
    ]);
  });

  it("resized as any other", async () => {
    const rows = Buffer.alloc(64 * 48 * 3, Buffer.from([90, 40, 200]));
    const bytes = writeBmp({ width: 64, height: 48, bits: 24, rows });
    for (const fit of ["stretch", "crop", "letterbox"] as const)
      for (const side of [16, 200])
        expectPlain(await decode(bytes, { size: { width: side, height: side }, fit }), PINK, 0);
  });

  it("or refused where rows are missing, or something else is inside", async () => {
    const rows = Buffer.alloc(64 * 48 * 3 - 500);
    const short = writeBmp({ width: 64, height: 48, bits: 24, rows });
    expect(await refused(short)).toBe(
      "the picture (BMP, 64×48) is damaged or cut short: only 45 of its 48 rows are there",
    );
    const allowed = await decode(short, { truncated: "allow" });
    expect(allowed.warnings).toEqual(["the picture is cut short; what is missing is grey"]);
    expect([...allowed.pixels.subarray(0, 3)]).toEqual([128, 128, 128]);
    expect(await refused(writeBmp({ width: 8, height: 8, bits: 24, rows, compression: 4 }))).toContain(
      "BMP with a JPEG inside is not read",
    );
    expect(await refused(writeBmp({ width: 0, height: 8, bits: 24, rows }))).toContain("BMP");
  });

  it("and no damage makes it throw anything but a bad input, or hang", async () => {
    const palette = [RED, GREEN, BLUE];
    const runs = Buffer.from([2, 1, 0, 3, 2, 0, 2, 0, 0, 0, 0, 2, 1, 0, 3, 2, 0, 1]);
    const wholes = [
      writeBmp({ width: 5, height: 2, bits: 8, rows: runs, compression: 1, palette }),
      writeBmp({ width: 2, height: 2, bits: 24, rows: Buffer.alloc(16) }),
      writeBmp({ width: 2, height: 1, bits: 16, rows: Buffer.alloc(4), compression: 3, masks: [1, 2, 4] }),
    ];
    const damage = fc.record({
      which: fc.nat(2),
      cut: fc.nat(90),
      at: fc.integer({ min: 14, max: 90 }),
      byte: fc.nat(255),
    });
    await fc.assert(
      fc.asyncProperty(damage, async ({ which, cut, at, byte }) => {
        const bytes = Buffer.from(wholes[which]!.subarray(0, wholes[which]!.length - cut));
        if (at < bytes.length) bytes[at] = byte;
        const outcome = await decode(bytes, { size: { width: 8, height: 8 }, fit: "stretch" }).catch(
          (error: unknown) => error,
        );
        if (outcome instanceof Error) expect(outcome).toBeInstanceOf(BadInputError);
      }),
      { numRuns: 500 },
    );
  });
});

describe("what cameras write is read as libjpeg reads it", () => {
  const noisy = (height = 150) =>
    sharp({
      create: {
        width: 200,
        height,
        channels: 3,
        background: "#808080",
        noise: { type: "gaussian", mean: 128, sigma: 60 },
      },
    });

  it("with junk between segments, however much, and with a warning", async () => {
    const whole = await noisy().jpeg().toBuffer();
    const expected = await decode(whole);
    expect(expected.warnings).toBeUndefined();
    const table = whole.indexOf(Buffer.from([0xff, 0xc0]));
    for (const junk of [1, 8, 608, 5000]) {
      const odd = Buffer.concat([whole.subarray(0, table), Buffer.alloc(junk, 7), whole.subarray(table)]);
      const picture = await decode(odd);
      expect(picture.pixels).toEqual(expected.pixels);
      expect(picture.warnings).toEqual([
        `the JPEG has ${junk} bytes between its segments that belong to none`,
      ]);
    }
  });

  it("without an end marker, but only where nothing else is missing", async () => {
    // 144 rows end with a block of rows, 150 don't: libvips alone misses warnings of the last rows.
    for (const height of [144, 150, 152, 160]) {
      for (const options of [{}, { progressive: true }, { chromaSubsampling: "4:4:4" }]) {
        const whole = await noisy(height).jpeg(options).toBuffer();
        const expected = await decode(whole);
        const open = await decode(whole.subarray(0, -2));
        expect(open.pixels).toEqual(expected.pixels);
        // Where the last codes end in the last byte, the decoder never looks for the marker.
        expect([undefined, ["the JPEG has no end marker"]]).toContainEqual(open.warnings);
        expect((await decode(whole.subarray(0, -1))).pixels).toEqual(expected.pixels);
        for (const missing of [40, 200, 2000, 10_000]) {
          const message = await refused(whole.subarray(0, whole.length - missing));
          expect(message, `${missing} bytes missing of ${height} rows`).toMatch(/is damaged or cut short/);
        }
      }
    }
  });

  it("and no damage makes the repair throw or hang", async () => {
    const wholes = await Promise.all(
      [{}, { progressive: true }, { chromaSubsampling: "4:4:4" }].map((options) =>
        plain(PINK).jpeg(options).toBuffer(),
      ),
    );
    const damage = fc.record({ which: fc.nat(2), cut: fc.nat(700), at: fc.nat(700), byte: fc.nat(255) });
    fc.assert(
      fc.property(damage, ({ which, cut, at, byte }) => {
        const bytes = Buffer.from(wholes[which]!.subarray(0, Math.max(3, wholes[which]!.length - cut)));
        if (at < bytes.length) bytes[at] = byte;
        expect(repairJpeg(bytes).bytes.length).toBeLessThanOrEqual(bytes.length + 2);
      }),
      { numRuns: 3000 },
    );
  });

  it("cut in the middle only where truncated is allow, with the rest grey and a warning", async () => {
    const whole = await noisy().jpeg().toBuffer();
    const cut = whole.subarray(0, whole.length / 2);
    expect(await refused(cut)).toMatch(/^the picture \(JPEG, 200×150\) is damaged or cut short/);
    const picture = await decode(cut, { truncated: "allow" });
    const expected = await decode(whole);
    const half = 200 * 48 * 3;
    expect(picture.pixels.subarray(0, half)).toEqual(expected.pixels.subarray(0, half));
    expectPlain({ pixels: picture.pixels.subarray(-30 * 200 * 3) }, [128, 128, 128], 60);
    expect(picture.warnings!.join()).toMatch(/cut short; what is missing is grey/);
  });

  it("as the file of a camera in the field notes: camera-jpegs", async (context) => {
    if (!sharedField) context.skip(noSharedModels);
    const file = (name: string) => readFile(path.join(sharedField!, "camera-jpegs", name));
    const odd = await decode(await file("608-extraneous-before-0xfe.jpg"));
    expect(odd.pixels).toEqual((await decode(await file("plain.jpg"))).pixels);
    expect(odd.warnings).toHaveLength(1);
    expect(await refused(await file("cut-short.jpg"))).toMatch(/is damaged or cut short/);
    expect((await decode(await file("cut-short.jpg"), { truncated: "allow" })).warnings).toHaveLength(1);
  });

  it("in red, as the picture of the field notes: cmyk", async (context) => {
    if (!sharedField) context.skip(noSharedModels);
    const { pixels } = await decode(await readFile(path.join(sharedField!, "cmyk", "rgb.jpg")));
    const middle = pixels.subarray(pixels.length / 2, pixels.length / 2 + 3);
    expect(middle[0]! - Math.max(middle[1]!, middle[2]!)).toBeGreaterThan(100);
  });
});

describe("pixels of more than 8 bits become 8", () => {
  const ramp = Uint16Array.from({ length: 64 * 48 }, (_, at) => 1000 + at);
  const raw = { raw: { width: 64, height: 48, channels: 1 } } as const;
  const values = (pixels: Uint8Array) => [pixels[0], pixels[1], pixels.at(-1)];

  it.each(["png", "tiff"] as const)(
    "by their high byte, stretched, or from a range, in a %s",
    async (format) => {
      const bytes =
        format === "tiff"
          ? writeTiff(64, 48, 16, Buffer.from(ramp.buffer))
          : await sharp(ramp, raw).toColourspace("grey16").png().toBuffer();
      expect((await sharp(bytes).metadata()).depth, "the test's own picture").toBe("ushort");
      expect(values((await decode(bytes)).pixels)).toEqual([1000 >> 8, 1000 >> 8, 4071 >> 8]);
      const stretched = (await decode(bytes, { depth: "stretch" })).pixels;
      expect(values(stretched)).toEqual([0, 0, 255]);
      expect(stretched[3 * 1536]).toBe(Math.round((1536 / 3071) * 255));
      const ranged = (await decode(bytes, { depth: [1000, 1255] })).pixels;
      expect([...ranged.subarray(0, 9)]).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2]);
      expect(ranged.at(-1)).toBe(255);
    },
  );

  it("and are resized after that", async () => {
    const bytes = await sharp(ramp, raw).toColourspace("grey16").png().toBuffer();
    const size = { width: 100, height: 20 };
    const { pixels } = await decode(bytes, { depth: "stretch", fit: "stretch", size });
    expect(pixels).toHaveLength(100 * 20 * 3);
    expect(pixels[0]).toBeLessThan(10);
    expect(pixels.at(-1)).toBeGreaterThan(245);
  });

  it("8 bits stay as they are, whatever depth says", async () => {
    expectPlain(await decode(await plain(PINK).png().toBuffer(), { depth: "stretch" }), PINK, 0);
  });

  it("32 bits only where depth says how", async () => {
    const bytes = writeTiff(4, 1, 32, Buffer.from(Float32Array.of(-5, 0, 5, 15).buffer));
    expect(await refused(bytes)).toBe(
      'the picture (TIFF, 4×1) has pixels of 32 bits or more; set depth to "stretch" or [low, high]',
    );
    const { pixels } = await decode(bytes, { depth: "stretch" });
    expect([0, 3, 6, 9].map((at) => pixels[at])).toEqual([0, 64, 128, 255]);
    expect((await decode(bytes, { depth: [0, 5] })).pixels[6]).toBe(255);
  });

  it("so that the thermal picture of the field notes is seen: sixteen-bit", async (context) => {
    if (!sharedField) context.skip(noSharedModels);
    const bytes = await readFile(path.join(sharedField!, "sixteen-bit", "thermal12.png"));
    const most = async (options: Partial<DecodeOptions>) =>
      (await decode(bytes, options)).pixels.reduce((one, other) => Math.max(one, other), 0);
    expect(await most({})).toBeLessThan(16);
    expect(await most({ depth: "stretch" })).toBe(255);
    expect(await most({ depth: [0, 4095] })).toBeGreaterThan(200);
  });
});

/** A grey TIFF of 16-bit whole numbers or 32-bit floats. */
function writeTiff(width: number, height: number, bits: 16 | 32, pixels: Buffer): Buffer {
  const entries = [
    [256, width],
    [257, height],
    [258, bits],
    [259, 1],
    [262, 1],
    [273, 8],
    [277, 1],
    [278, height],
    [279, pixels.length],
    [339, bits === 32 ? 3 : 1],
  ] as const;
  const directory = Buffer.alloc(2 + entries.length * 12 + 4);
  directory.writeUInt16LE(entries.length);
  for (const [index, [tag, value]] of entries.entries()) {
    const at = 2 + index * 12;
    directory.writeUInt16LE(tag, at);
    directory.writeUInt16LE(4, at + 2);
    directory.writeUInt32LE(1, at + 4);
    directory.writeUInt32LE(value, at + 8);
  }
  const header = Buffer.from("II*\0????", "latin1");
  header.writeUInt32LE(8 + pixels.length, 4);
  return Buffer.concat([header, pixels, directory]);
}

describe("extreme shapes are decoded", () => {
  it.each([
    [20_000, 1],
    [1, 20_000],
    [16_000, 3],
    [3, 16_000],
  ])("%i×%i, by every fit", async (width, height) => {
    for (const format of ["png", "jpeg", "webp"] as const) {
      if (format === "webp" && Math.max(width, height) > 16_383) continue;
      const bytes = await plain(PINK, width, height).toFormat(format).toBuffer();
      for (const fit of ["stretch", "crop", "cover", "letterbox", "letterbox-top-left", "inside"] as const) {
        const picture = await decode(bytes, { size: { width: 224, height: 224 }, fit });
        expect(picture.pixels, `${format}, ${fit}`).toHaveLength(picture.width * picture.height * 3);
        expectPlain(picture, PINK, 4);
      }
    }
  });
});

describe("the table of formats", () => {
  it("knows the media types that browsers, cameras and Windows write", () => {
    for (const type of [
      "image/jpeg",
      "image/pjpeg",
      "image/x-png",
      "image/x-ms-bmp",
      "image/tiff",
      "image/avif",
      "image/heic",
    ])
      expect(isPictureMediaType(type), type).toBe(true);
    for (const type of ["image/svg+xml", "image/jxl", "application/pdf", "image/*"])
      expect(isPictureMediaType(type), type).toBe(false);
  });

  it("knows extensions in upper and lower case", () => {
    for (const name of ["a.jpg", "B.JPEG", "c.TIF", "d.e.PnG", ".hidden.bmp"])
      expect(hasPictureExtension(name), name).toBe(true);
    for (const name of ["jpg", "a.txt", "a.jpg.txt", ""]) expect(hasPictureExtension(name), name).toBe(false);
  });

  it("recognises a format by its first bytes, and says what else it is", async () => {
    for (const [format, bytes] of [
      ["JPEG", await plain(PINK).jpeg().toBuffer()],
      ["PNG", await plain(PINK).png().toBuffer()],
      ["WebP", await plain(PINK).webp().toBuffer()],
      ["GIF", await plain(PINK).gif().toBuffer()],
      ["TIFF", await plain(PINK).tiff().toBuffer()],
      ["AVIF", await plain(PINK).avif().toBuffer()],
      ["BMP", writeBmp({ width: 1, height: 1, bits: 24, rows: Buffer.alloc(4) })],
    ] as const)
      expect(sniffPicture(bytes)).toBe(format);
    expect(sniffPicture(Buffer.from("BM is a town in the north of the county"))).toBeUndefined();
    for (const [text, name] of [
      ["%PDF-1.7", "a PDF"],
      ["\xff\x0a\xfa\x1f", "a JPEG XL"],
      ["<!DOCTYPE html><html>", "an HTML page"],
      ["\0\0\0\x18ftypmp42", "a video"],
      ["PK\x03\x04", "a ZIP archive"],
      ["version https://git-lfs.github.com/spec/v1", "a Git LFS pointer, not the file itself"],
    ] as const)
      expect(describeBytes(Buffer.from(text, "latin1"))).toBe(name);
  });
});
