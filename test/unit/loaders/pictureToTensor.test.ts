import * as fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { BadInputError } from "../../../src/errors.ts";
import {
  createTensorWriter,
  decodePicture,
  placePicture,
  writeTensor,
  type DecodedPicture,
  type DecodeOptions,
  type Fit,
  type TensorFormat,
} from "../../../src/loaders/pictures/picture.ts";
import { fromHalf, toHalf } from "../../../src/tensors/half.ts";
import { blankPng } from "../../support/pictures.ts";
import { readUprightSize } from "../../../src/loaders/pictures/pictureHeader.ts";

type Colour = readonly [red: number, green: number, blue: number];
const RED: Colour = [230, 30, 30];
const GREEN: Colour = [30, 200, 40];
const BLUE: Colour = [20, 40, 220];
const WHITE: Colour = [250, 250, 250];

const decode = (bytes: Buffer, options: Partial<DecodeOptions> = {}) =>
  decodePicture(bytes, { size: { width: 32, height: 32 }, fit: "stretch", maxPixels: 1_000_000, ...options });

const plain = (colour: Colour, width = 64, height = 48) => {
  const [r, g, b] = colour;
  return sharp({ create: { width, height, channels: 3, background: { r, g, b } } });
};

/** A picture of four quarters of one colour each: top left, top right, bottom left, bottom right. */
function quarters(colours: readonly Colour[], width = 64, height = 48) {
  const pixels = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      pixels.set(colours[(y < height / 2 ? 0 : 2) + (x < width / 2 ? 0 : 1)]!, (y * width + x) * 3);
    }
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

function pixelAt({ pixels, width }: DecodedPicture, x: number, y: number): number[] {
  return [...pixels.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)];
}

function expectColour(actual: readonly number[], expected: readonly number[], tolerance: number) {
  const difference = Math.max(...expected.map((value, channel) => Math.abs(value - actual[channel]!)));
  expect(
    difference,
    `got the colour ${actual.join(" ")}, expected ${expected.join(" ")} ± ${tolerance}`,
  ).toBeLessThanOrEqual(tolerance);
}

describe("a picture is decoded to upright RGB of 8 bits", () => {
  // What EXIF 2.32 says of tag 0x0112: which stored corner is seen in which corner.
  it.each([
    [1, [RED, GREEN, BLUE, WHITE]],
    [2, [GREEN, RED, WHITE, BLUE]],
    [3, [WHITE, BLUE, GREEN, RED]],
    [4, [BLUE, WHITE, RED, GREEN]],
    [5, [RED, BLUE, GREEN, WHITE]],
    [6, [BLUE, RED, WHITE, GREEN]],
    [7, [WHITE, GREEN, BLUE, RED]],
    [8, [GREEN, WHITE, RED, BLUE]],
  ] as const)(
    "with EXIF orientation %i",
    async (orientation, [topLeft, topRight, bottomLeft, bottomRight]) => {
      const stored = await quarters([RED, GREEN, BLUE, WHITE])
        .withMetadata({ orientation })
        .jpeg({ quality: 100, chromaSubsampling: "4:4:4" })
        .toBuffer();
      const picture = await decode(stored);
      expect(picture.original).toEqual(
        orientation < 5 ? { width: 64, height: 48 } : { width: 48, height: 64 },
      );
      expectColour(pixelAt(picture, 4, 4), topLeft, 6);
      expectColour(pixelAt(picture, 27, 4), topRight, 6);
      expectColour(pixelAt(picture, 4, 27), bottomLeft, 6);
      expectColour(pixelAt(picture, 27, 27), bottomRight, 6);
    },
  );

  it("from grey, as JPEG and PNG", async () => {
    for (const format of ["jpeg", "png"] as const) {
      const grey = await plain([128, 128, 128]).toColourspace("b-w").toFormat(format).toBuffer();
      expect((await sharp(grey).metadata()).channels, "the test's own picture").toBe(1);
      const picture = await decode(grey);
      expect(picture.pixels).toHaveLength(32 * 32 * 3);
      expectColour(pixelAt(picture, 9, 9), [128, 128, 128], 1);
    }
  });

  it("from CMYK", async () => {
    const cmyk = await plain(RED).toColourspace("cmyk").jpeg({ quality: 98 }).toBuffer();
    expect((await sharp(cmyk).metadata()).space, "the test's own picture").toBe("cmyk");
    // CMYK can't show every red, so only its looks are compared.
    const [red, green, blue] = pixelAt(await decode(cmyk), 9, 9) as [number, number, number];
    expect(red).toBeGreaterThan(190);
    expect(green).toBeLessThan(70);
    expect(blue).toBeLessThan(70);
  });

  it("from 16 bits, in colour and in grey", async () => {
    const colour = await plain(GREEN).toColourspace("rgb16").png().toBuffer();
    const grey = await plain([90, 90, 90]).toColourspace("grey16").png().toBuffer();
    for (const bytes of [colour, grey])
      expect((await sharp(bytes).metadata()).depth, "the test's own picture").toBe("ushort");
    expectColour(pixelAt(await decode(colour), 9, 9), GREEN, 1);
    expectColour(pixelAt(await decode(grey), 9, 9), [90, 90, 90], 1);
  });

  it("from a palette and from WebP", async () => {
    expect.hasAssertions();
    expectColour(pixelAt(await decode(await plain(BLUE).png({ palette: true }).toBuffer()), 9, 9), BLUE, 1);
    expectColour(pixelAt(await decode(await plain(BLUE).webp({ lossless: true }).toBuffer()), 9, 9), BLUE, 1);
  });

  it("with transparent parts on white, in 8 and 16 bits", async () => {
    const half = {
      create: { width: 64, height: 48, channels: 4, background: { r: 200, g: 40, b: 90, alpha: 0.5 } },
    } as const;
    const png = await sharp(half).png().toBuffer();
    const png16 = await sharp(png).toColourspace("rgb16").png().toBuffer();
    for (const bytes of [png, png16]) {
      expect((await sharp(bytes).metadata()).hasAlpha, "the test's own picture").toBe(true);
      expectColour(pixelAt(await decode(bytes), 9, 9), [(200 + 255) / 2, (40 + 255) / 2, (90 + 255) / 2], 2);
    }
  });

  it("of the first frame of an animation", async () => {
    const frames = Buffer.concat(
      await Promise.all([RED, BLUE].map((colour) => plain(colour).raw().toBuffer())),
    );
    const raw = { width: 64, height: 96, channels: 3, pageHeight: 48 } as const;
    const webp = await sharp(frames, { raw })
      .webp({ lossless: true, loop: 0, delay: [100, 100] })
      .toBuffer();
    expect((await sharp(webp).metadata()).pages, "the test's own picture").toBe(2);
    const picture = await decode(webp);
    expect(picture.original).toEqual({ width: 64, height: 48 });
    expectColour(pixelAt(picture, 9, 30), RED, 1);
  });
});

describe("the upright size is read from the header", () => {
  const asLibvipsSays = async (bytes: Buffer) => (await sharp(bytes).metadata()).autoOrient;
  const EVERY_ORIENTATION = [undefined, 1, 2, 3, 4, 5, 6, 7, 8];

  it("as libvips reads it, for every format and orientation", async () => {
    for (const orientation of EVERY_ORIENTATION) {
      for (const format of ["jpeg", "png", "webp"] as const) {
        const stored = quarters([RED, GREEN, BLUE, WHITE], 37, 23).toFormat(format);
        const bytes = await (orientation ? stored.withMetadata({ orientation }) : stored).toBuffer();
        const own = readUprightSize(bytes, ({ jpeg: "JPEG", png: "PNG", webp: "WebP" } as const)[format]);
        const expected = await asLibvipsSays(bytes);
        expect((await decode(bytes)).original, `${format}, orientation ${orientation}`).toEqual(expected);
        // Where only a JPEG has EXIF, or none has, it takes no question to libvips.
        expect(own, `${format}, orientation ${orientation}`).toEqual(
          format === "jpeg" || !orientation ? expected : undefined,
        );
      }
    }
  });

  it("of lossless and transparent WebP, and progressive JPEG", async () => {
    const transparent = quarters([RED, GREEN, BLUE, WHITE], 300, 5).ensureAlpha(0.5);
    for (const bytes of [
      await transparent.clone().webp({ lossless: true }).toBuffer(),
      await transparent.clone().webp().toBuffer(),
    ]) {
      expect(readUprightSize(bytes, "WebP")).toEqual({ width: 300, height: 5 });
    }
    expect(readUprightSize(await plain(RED, 5, 300).jpeg({ progressive: true }).toBuffer(), "JPEG")).toEqual({
      width: 5,
      height: 300,
    });
  });

  it("in either byte order of the EXIF, and not from an odd one", () => {
    /** A JPEG's first bytes: EXIF with one entry, then a frame header of 37×23. */
    const jpegWith = (isLittleEndian: boolean, tag: number, type: number, value: number) => {
      const tiff = Buffer.alloc(26);
      tiff.write(isLittleEndian ? "II*\0" : "MM\0*", "latin1");
      const write = (at: number, size: 2 | 4, number: number) =>
        isLittleEndian ? tiff.writeUIntLE(number, at, size) : tiff.writeUIntBE(number, at, size);
      for (const [at, size, number] of [
        [4, 4, 8],
        [8, 2, 1],
        [10, 2, tag],
        [12, 2, type],
        [14, 4, 1],
        [18, 2, value],
      ] as const)
        write(at, size, number);
      const exif = Buffer.concat([Buffer.from("Exif\0\0"), tiff]);
      const frame = Buffer.from([0xff, 0xc0, 0, 17, 8, 0, 23, 0, 37, 3]);
      return Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe1, 0, exif.length + 2]), exif, frame]);
    };
    for (const isLittleEndian of [true, false]) {
      expect(readUprightSize(jpegWith(isLittleEndian, 0x0112, 3, 6), "JPEG")).toEqual({
        width: 23,
        height: 37,
      });
      expect(readUprightSize(jpegWith(isLittleEndian, 0x0112, 3, 3), "JPEG")).toEqual({
        width: 37,
        height: 23,
      });
      expect(readUprightSize(jpegWith(isLittleEndian, 0x0110, 3, 6), "JPEG")).toEqual({
        width: 37,
        height: 23,
      });
      expect(
        readUprightSize(jpegWith(isLittleEndian, 0x0112, 3, 9), "JPEG"),
        "orientation 9",
      ).toBeUndefined();
      expect(
        readUprightSize(jpegWith(isLittleEndian, 0x0112, 4, 6), "JPEG"),
        "of another type",
      ).toBeUndefined();
    }
  });

  it("never throws or hangs on damage", async () => {
    const whole = await Promise.all(
      (["jpeg", "png", "webp"] as const).map((format) =>
        plain(RED).withMetadata({ orientation: 6 }).toFormat(format).toBuffer(),
      ),
    );
    const damage = fc.record({ which: fc.nat(2), cut: fc.nat(300), at: fc.nat(300), byte: fc.nat(255) });
    fc.assert(
      fc.property(damage, ({ which, cut, at, byte }) => {
        const bytes = Buffer.from(whole[which]!.subarray(0, whole[which]!.length - cut));
        if (at < bytes.length) bytes[at] = byte;
        const size = readUprightSize(bytes, (["JPEG", "PNG", "WebP"] as const)[which]!);
        expect(size === undefined || (size.width >= 0 && size.height >= 0)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("what is no usable picture is refused with its reason", () => {
  const refused = async (bytes: Buffer, options?: Partial<DecodeOptions>): Promise<string> => {
    const outcome = await decode(bytes, options).catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(BadInputError);
    return (outcome as Error).message;
  };

  it("an SVG, which the decoder itself could read", async () => {
    const svg =
      '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
    expect(await refused(Buffer.from(svg))).toBe(
      "the picture must be a JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF or HEIC, got an SVG",
    );
    expect((await sharp(Buffer.from(svg)).metadata()).format, "the test's own picture").toBe("svg");
  });

  it("a text file, bytes of nothing known, and no bytes at all", async () => {
    expect(await refused(Buffer.from("Dear Sir or Madam,\nI enclose"))).toBe(
      'the picture must be a JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF or HEIC, got 28 bytes that begin with "Dear Sir or Madam,\\nI enc"',
    );
    expect(await refused(Buffer.from([0, 1, 2, 0xff]))).toMatch(/got 4 bytes that begin with 00 01 02 ff$/);
    expect(await refused(Buffer.alloc(0))).toMatch(/got no bytes at all$/);
  });

  it("a picture that is cut short anywhere", async () => {
    const noisy = sharp({
      create: {
        width: 200,
        height: 150,
        channels: 3,
        background: "#808080",
        noise: { type: "gaussian", mean: 128, sigma: 60 },
      },
    });
    for (const format of ["jpeg", "png", "webp"] as const) {
      const whole = await noisy.clone().toFormat(format).toBuffer();
      await decode(whole);
      for (const part of [0.02, 0.5, 0.9, 0.99]) {
        const message = await refused(whole.subarray(0, Math.floor(whole.length * part)));
        expect(message, `${format}, the first ${part * 100} %`).toMatch(
          /^the picture \((JPEG|PNG|WebP), .*\) is damaged or cut short: \S/,
        );
      }
    }
  });

  it("a JPEG with damage in its middle, rather than an answer from garbage", async () => {
    const whole = await sharp({
      create: {
        width: 400,
        height: 300,
        channels: 3,
        background: "#808080",
        noise: { type: "gaussian", mean: 128, sigma: 60 },
      },
    })
      .jpeg()
      .toBuffer();
    const damaged = Buffer.from(whole);
    for (let at = Math.floor(damaged.length / 2); at < damaged.length * 0.6; at += 7) damaged[at]! ^= 0x5a;
    expect(await refused(damaged)).toMatch(/^the picture \(JPEG, 400×300\) is damaged/);
  });

  it("but not a JPEG with the oddities that some cameras write and every viewer overlooks", async () => {
    const whole = await plain(RED).jpeg({ quality: 100, chromaSubsampling: "4:4:4" }).toBuffer();
    const scan = whole.indexOf(Buffer.from([0xff, 0xda]));
    const strayBytes = Buffer.concat([whole.subarray(0, scan), Buffer.alloc(8), whole.subarray(scan)]);
    const scanParameters = Buffer.from(whole);
    scanParameters[scan + 2 + whole.readUInt16BE(scan + 2) - 2] = 0;
    for (const odd of [strayBytes, scanParameters]) {
      const strictly = await sharp(odd, { failOn: "warning" })
        .raw()
        .toBuffer()
        .catch((error: unknown) => error);
      expect(strictly, "the test's own picture").toBeInstanceOf(Error);
      expectColour(pixelAt(await decode(odd), 9, 9), RED, 4);
    }
  });

  it("a PNG of 20000×20000 pixels by its header, without decoding it", async () => {
    const bomb = blankPng(20_000, 20_000);
    expect(bomb.length).toBeLessThan(600_000);
    const before = process.resourceUsage().maxRSS;
    expect(await refused(bomb, { maxPixels: 64_000_000 })).toBe(
      "the picture is 20000×20000 = 400000000 pixels, more than max_picture_pixels (64000000)",
    );
    expect((process.resourceUsage().maxRSS - before) / 1024, "growth of the peak memory in MB").toBeLessThan(
      50,
    );
    // The same file is a sound picture: only its size speaks against it.
    expect((await decode(bomb, { maxPixels: 400_000_000 })).original).toEqual({
      width: 20_000,
      height: 20_000,
    });
  });
});

describe("a picture is fitted to the model's input", () => {
  /** Python's round: halves to even. */
  const pythonRound = (value: number) => {
    const floor = Math.floor(value);
    if (value - floor !== 0.5) return Math.round(value);
    return floor % 2 === 0 ? floor : floor + 1;
  };

  it("by letterbox where Ultralytics puts it", () => {
    const side = fc.integer({ min: 1, max: 5000 });
    fc.assert(
      fc.property(side, side, fc.constantFrom(320, 416, 640), (width, height, input) => {
        const ratio = Math.min(input / height, input / width);
        const unpadded = [pythonRound(width * ratio), pythonRound(height * ratio)] as const;
        fc.pre(unpadded[0] > 0 && unpadded[1] > 0);
        const placed = placePicture(
          { width, height },
          { size: { width: input, height: input }, fit: "letterbox" },
        );
        // Halves go up here and to even there; one pixel of a thousand, once in thousands of sizes.
        fc.pre([width * ratio, height * ratio].every((exact) => exact % 1 !== 0.5));
        expect(placed).toEqual({
          width: unpadded[0],
          height: unpadded[1],
          left: pythonRound((input - unpadded[0]) / 2 - 0.1) + 0,
          top: pythonRound((input - unpadded[1]) / 2 - 0.1) + 0,
        });
      }),
    );
  });

  it("by letterbox in the top left corner where YOLOX puts it", () => {
    const placed = placePicture(
      { width: 768, height: 577 },
      { size: { width: 416, height: 416 }, fit: "letterbox-top-left" },
    );
    expect(placed).toEqual({ width: 416, height: Math.trunc((577 * 416) / 768), left: 0, top: 0 });
  });

  it("by crop as torchvision's Resize(256) and CenterCrop(224)", () => {
    const size = { width: 224, height: 224 };
    expect(placePicture({ width: 1024, height: 512 }, { size, fit: "crop" })).toEqual({
      width: 512,
      height: 256,
      left: -144,
      top: -16,
    });
    expect(placePicture({ width: 300, height: 600 }, { size, fit: "crop" })).toEqual({
      width: 256,
      height: 512,
      left: -16,
      top: -144,
    });
  });

  it("by cover to the pixel as torchvision's Resize(224) and CenterCrop(224)", () => {
    const size = { width: 224, height: 224 };
    const placed = (width: number, height: number) => placePicture({ width, height }, { size, fit: "cover" });
    // PIL's sizes and crops: int(224 × long ÷ short), round((long - 224) ÷ 2).
    expect(placed(1920, 1381)).toEqual({ width: 311, height: 224, left: -44, top: 0 });
    expect(placed(768, 576)).toEqual({ width: 298, height: 224, left: -37, top: 0 });
    expect(placed(300, 451)).toEqual({ width: 224, height: 336, left: 0, top: -56 });
    expect(placed(512, 512)).toEqual({ width: 224, height: 224, left: 0, top: 0 });
  });

  it("as it is up to a size, and no larger", async () => {
    const size = { width: 64, height: 32 };
    const inside = async (width: number, height: number) => {
      const picture = await decode(await plain(GREEN, width, height).png().toBuffer(), {
        size,
        fit: "inside",
      });
      expect(picture.pixels).toHaveLength(3 * picture.width * picture.height);
      expect(picture.canvas).toEqual({ width: picture.width, height: picture.height });
      return [picture.width, picture.height];
    };
    expect(await inside(50, 20)).toEqual([50, 20]);
    expect(await inside(100, 20)).toEqual([64, 13]);
    expect(await inside(100, 100)).toEqual([32, 32]);
  });

  it("with the picture inside and the padding around it", async () => {
    const picture = await decode(await plain(GREEN, 100, 50).png().toBuffer(), {
      size: { width: 64, height: 64 },
      fit: "letterbox",
    });
    const tensor = new Float32Array(3 * 64 * 64);
    writeTensor(
      picture,
      createTensorWriter({ layout: "nchw", channels: "rgb", scale: 1 }, "float32"),
      tensor,
      0,
    );
    for (let y = 0; y < 64; y++) {
      for (const x of [0, 31, 63]) {
        const pixel = [0, 1, 2].map((channel) => tensor[channel * 4096 + y * 64 + x]!);
        expect(pixel, `pixel ${x}, ${y}`).toEqual(y >= 16 && y < 48 ? [...GREEN] : [114, 114, 114]);
      }
    }
  });

  it("by crop with the centre of the picture and nothing else", async () => {
    expect.hasAssertions();
    const striped = await sharp(await plain(RED, 300, 100).png().toBuffer())
      .composite([{ input: await plain(BLUE, 100, 100).png().toBuffer(), left: 100, top: 0 }])
      .png()
      .toBuffer();
    const picture = await decode(striped, { fit: "crop" });
    for (const x of [0, 15, 31]) expectColour(pixelAt(picture, x, 16), BLUE, 2);
  });

  it("with every part of a photo where it belongs, also after the decoder's own shrinking", async () => {
    expect.hasAssertions();
    const photo = await quarters([RED, GREEN, BLUE, WHITE], 2048, 1536).jpeg({ quality: 90 }).toBuffer();
    const picture = await decode(photo, { size: { width: 64, height: 64 }, maxPixels: 4_000_000 });
    for (const [x, y, colour] of [
      [30, 30, RED],
      [33, 30, GREEN],
      [30, 33, BLUE],
      [33, 33, WHITE],
    ] as const) {
      expectColour(pixelAt(picture, x, y), colour, 8);
    }
  });
});

describe("pixels become numbers", () => {
  const reference = (
    picture: DecodedPicture,
    format: TensorFormat,
    channel: number,
    x: number,
    y: number,
  ): number => {
    const { pixels, width, height, placement } = picture;
    const column = x - Math.max(0, placement.left);
    const row = y - Math.max(0, placement.top);
    const inside = column >= 0 && column < width && row >= 0 && row < height;
    const [red, green, blue] = inside
      ? [...pixels.subarray((row * width + column) * 3)]
      : typeof format.pad === "object"
        ? [...format.pad]
        : Array<number>(3).fill(format.pad ?? 114);
    const values = {
      rgb: [red!, green!, blue!],
      bgr: [blue!, green!, red!],
      grey: [Math.round(0.299 * red! + 0.587 * green! + 0.114 * blue!)],
    };
    const value = values[format.channels][channel]!;
    return (value * (format.scale ?? 1 / 255) - (format.mean?.[channel] ?? 0)) / (format.std?.[channel] ?? 1);
  };

  it("in every layout, order and normalisation, and nothing of what the buffer held before shines through", () => {
    const cases = fc.record({
      layout: fc.constantFrom("nchw" as const, "nhwc" as const),
      channels: fc.constantFrom("rgb" as const, "bgr" as const, "grey" as const),
      original: fc.record({
        width: fc.integer({ min: 1, max: 20 }),
        height: fc.integer({ min: 1, max: 20 }),
      }),
      canvas: fc.record({ width: fc.integer({ min: 1, max: 9 }), height: fc.integer({ min: 1, max: 9 }) }),
      fit: fc.constantFrom<Fit>("stretch", "letterbox", "letterbox-top-left", "crop", "cover", "inside"),
      normalised: fc.boolean(),
      pad: fc.constantFrom<TensorFormat["pad"]>(undefined, 0, [10, 120, 250]),
      seed: fc.integer({ min: 0, max: 255 }),
    });
    fc.assert(
      fc.property(cases, ({ layout, channels, original, canvas, fit, normalised, pad, seed }) => {
        const placement = placePicture(original, { size: canvas, fit });
        const width = Math.min(canvas.width, placement.width);
        const height = Math.min(canvas.height, placement.height);
        const pixels = Uint8Array.from(
          { length: width * height * 3 },
          (_, index) => (index * 37 + seed) % 256,
        );
        const picture: DecodedPicture = { pixels, width, height, canvas, placement, original };
        const count = channels === "grey" ? 1 : 3;
        const format: TensorFormat = {
          layout,
          channels,
          ...(pad !== undefined && { pad }),
          ...(normalised && {
            mean: [0.485, 0.456, 0.406].slice(0, count),
            std: [0.229, 0.224, 0.225].slice(0, count),
          }),
        };
        const offset = 5;
        const tensor = new Float32Array(offset + canvas.width * canvas.height * count + 5).fill(777);
        writeTensor(picture, createTensorWriter(format, "float32"), tensor, offset);

        for (let y = 0; y < canvas.height; y++) {
          for (let x = 0; x < canvas.width; x++) {
            for (let channel = 0; channel < count; channel++) {
              const at =
                layout === "nchw"
                  ? (channel * canvas.height + y) * canvas.width + x
                  : (y * canvas.width + x) * count + channel;
              // Grey is rounded to whole values, by PIL's fixed-point formula one off at most.
              const tolerance = channels === "grey" ? 1.01 / 255 / 0.2 : 1e-6;
              expect(
                Math.abs(tensor[offset + at]! - reference(picture, format, channel, x, y)),
              ).toBeLessThanOrEqual(tolerance);
            }
          }
        }
        expect([...tensor.subarray(0, offset), ...tensor.subarray(-5)], "elements beside the tensor").toEqual(
          Array(10).fill(777),
        );
      }),
    );
  });

  it("as halves for a float16 input and as they are for a uint8 input", () => {
    const one = { width: 1, height: 1 };
    const picture: DecodedPicture = {
      pixels: Uint8Array.of(0, 51, 255),
      ...one,
      canvas: one,
      original: one,
      placement: { ...one, left: 0, top: 0 },
    };
    const halves = new Uint16Array(3);
    writeTensor(picture, createTensorWriter({ layout: "nchw", channels: "rgb" }, "float16"), halves, 0);
    // 0, 0.2 and 1 as IEEE 754 binary16.
    expect([...halves]).toEqual([0x0000, 0x3266, 0x3c00]);
    const bytes = new Uint8Array(3);
    writeTensor(picture, createTensorWriter({ layout: "nchw", channels: "bgr" }, "uint8"), bytes, 0);
    expect([...bytes]).toEqual([255, 51, 0]);
  });

  it("refuses as many means as there are not channels", () => {
    expect(() =>
      createTensorWriter({ layout: "nchw", channels: "grey", mean: [0, 0, 0] }, "float32"),
    ).toThrow("mean must have 1 numbers");
  });
});

describe("halves", () => {
  it("of every bit pattern are read and written without loss", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < 65536; bits++) {
      const value = fromHalf(bits);
      const isNan = (bits & 0x7fff) > 0x7c00;
      if (Number.isNaN(value) !== isNan || (!isNan && toHalf(value) !== bits)) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  it("are the nearest ones", () => {
    fc.assert(
      fc.property(fc.double({ min: -65000, max: 65000, noNaN: true }), (value) => {
        const single = Math.fround(value);
        const bits = toHalf(single);
        const error = Math.abs(fromHalf(bits) - single);
        const neighbours = [bits - 1, bits + 1]
          .map((other) => fromHalf(other & 0xffff))
          .filter(Number.isFinite);
        for (const other of neighbours) expect(error).toBeLessThanOrEqual(Math.abs(other - single));
      }),
    );
  });
});
