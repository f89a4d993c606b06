import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import * as fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { cropPicture, decodePicture } from "../../../src/loaders/pictures/picture.ts";
import { resample, sourceSpan, type Kernel } from "../../../src/loaders/pictures/resample.ts";
import { pythonWithPackages, whyNoPackages } from "../../support/python.ts";

/** A picture of a formula, noisy as no photo is. */
function formula(width: number, height: number): Uint8Array {
  const pixels = new Uint8Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) pixels[at++] = x * 37 + y * 91 + c * 53 + x * y * 17;
  return pixels;
}

const whole = (from: number, size: number) => ({ from, size, start: 0, count: size });
const png = (pixels: Uint8Array, width: number, height: number) =>
  sharp(pixels, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();

// Written by Pillow 13.0: Image.resize of the formula above, 9×7, first its width, then its height, as hexadecimal bytes.
const PILLOW_SMALL: readonly [Kernel, width: number, height: number, bytes: string][] = [
  ["nearest", 4, 3, "91c6fbfd3267699ed3d50a3f699ed3194e83c9fe3379aee34176ab356a9f295e931d5287"],
  [
    "nearest",
    13,
    2,
    "5b90c591c6fb91c6fbc7fc31fd3267fd326733689d699ed3699ed39fd409d50a3fd50a3f0b4075c7fc314176ab4176abbbf025356a9f356a9fafe419295e93295e93a3d80d1d52871d528797cc01",
  ],
  [
    "nearest",
    3,
    11,
    "255a8f94c9fe03386d255a8f94c9fe03386d91c6fb33689dd50a3ffd3267d2073ca7dc11fd3267d2073ca7dc11699ed371a6db79aee3d50a3f10457a4b80b5d50a3f10457a4b80b54176abafe4191d5287ade2174e83b8ef2459ade2174e83b8ef2459",
  ],
  ["linear", 4, 3, "6e8b96928a9f858b79735159848583758e80758b839176707d9b6a78a6637e787486896b"],
  [
    "linear",
    13,
    2,
    "54897d777f9690849e82b1788f94908d79a1786ba077978a7e98758b79618770607f58627741646ea3798189758b80707aa96c74a9676f9f696a8e75768081827c7a8a7e6a75718788856ea8a147",
  ],
  [
    "linear",
    3,
    11,
    "2e639894ada95a4f646188a08f9a976f555ca0b0a5878082896153ab918680678d917e5b928a7f79778d8e83705f948971a68683788d7e757f698d7e8c81828b7a756a8a6f838a6d81ae6b74a75664934e77ac617f956b89787370a55a87837fac6196",
  ],
  ["cubic", 4, 3, "688c96948ca68a8f776f4b578b8383758d7e6e8889987a6c7b9b6b75ab6080767486896d"],
  [
    "cubic",
    13,
    2,
    "518a77767a999480a682b4768f95948f71ac7c6aa274a0897da1728c756185735e7c55607738636ba47d838775917b6d79aa6c74af606da262668d75767d86857a7c897e6a716d908b8772afaa45",
  ],
  [
    "cubic",
    3,
    11,
    "1f5a9b9bb6ab5b49615886a397a2976a5159a5b6a48e8081826250b595807b5f94957e57948b7972769592816f5e938771ac8584728b786f83698f7f937b848d77776686718a8a6789b8676ca25b63994175b360829269897a7566a25e918179ad5ea5",
  ],
  ["lanczos3", 4, 3, "678e91958cae8d8e756f4a55918783798a7a66888d9b7d6779996b72ae5e82737585896e"],
  [
    "lanczos3",
    13,
    2,
    "4e8c7474739c967ea883b3768a9c909067b37c6aa371a68b7ea6708d716083765f7a57617b35606ba67d86877497796b7aa86b72b45f6da15f668a73747688867b7b857f6f706d95908972b5ab43",
  ],
  [
    "lanczos3",
    3,
    11,
    "15569fa0b9ac5c485c5084a7a0a993654f58acb5a293807d7d6452c4997e775997977f52918a766c7c9c937f6c5d8f8771b28485708b706d836c917f98758e927b73647e718a8e628cb966699f5c639c3c73b95f83936888777561a35e957f78b057ad",
  ],
];
// The same of 90×70; the beginning of the SHA-256 of the bytes.
const PILLOW_LARGE: readonly [Kernel, width: number, height: number, digest: string][] = [
  ["nearest", 31, 24, "f9cbf8386a147638"],
  ["nearest", 7, 70, "3c267eaa5162d9f9"],
  ["nearest", 200, 161, "11c560c3a9828cda"],
  ["nearest", 300, 9, "4c0e397c36335bcb"],
  ["nearest", 4, 4, "a5f8c4b2b99d4d55"],
  ["linear", 31, 24, "f03cf2569fef894b"],
  ["linear", 7, 70, "6897734ed3660fd6"],
  ["linear", 200, 161, "3e321edc99e426e2"],
  ["linear", 300, 9, "383a7cbe81c62be9"],
  ["linear", 4, 4, "9b405ba10a607e07"],
  ["cubic", 31, 24, "ce30221ecf601ccc"],
  ["cubic", 7, 70, "362b67ba85c500bc"],
  ["cubic", 200, 161, "8b14e0a9328767f7"],
  ["cubic", 300, 9, "76b64616bbfed042"],
  ["cubic", 4, 4, "2b41ffe4c2016dff"],
  ["lanczos3", 31, 24, "495fe6316fe11f02"],
  ["lanczos3", 7, 70, "f87af80f7f80393c"],
  ["lanczos3", 200, 161, "303c2d38fad04b93"],
  ["lanczos3", 300, 9, "76ae7d2d62010c08"],
  ["lanczos3", 4, 4, "becb66b68993da5b"],
];

describe("raw pixels are resized as Pillow does it, to the bit", () => {
  it.each(PILLOW_SMALL)("%s, 9×7 to %i×%i", (kernel, width, height, bytes) => {
    const resized = resample(formula(9, 7), whole(9, width), whole(7, height), kernel);
    expect(Buffer.from(resized).toString("hex")).toBe(bytes);
  });

  it.each(PILLOW_LARGE)("%s, 90×70 to %i×%i", (kernel, width, height, digest) => {
    const resized = resample(formula(90, 70), whole(90, width), whole(70, height), kernel);
    expect(createHash("sha256").update(resized).digest("hex").slice(0, 16)).toBe(digest);
  });

  it("and a part is the same as that part of the whole", () => {
    const side = fc.integer({ min: 1, max: 40 });
    const cases = fc.record({
      from: fc.tuple(side, side),
      size: fc.tuple(side, side),
      cut: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 4, maxLength: 4 }),
      kernel: fc.constantFrom<Kernel>("nearest", "linear", "cubic", "lanczos3"),
    });
    fc.assert(
      fc.property(cases, ({ from, size, cut, kernel }) => {
        const pixels = formula(...from);
        const all = resample(pixels, whole(from[0], size[0]), whole(from[1], size[1]), kernel);
        const [left, top] = [Math.floor(cut[0]! * size[0]), Math.floor(cut[1]! * size[1])];
        const width = 1 + Math.floor(cut[2]! * (size[0] - left));
        const height = 1 + Math.floor(cut[3]! * (size[1] - top));
        const columns = { from: from[0], size: size[0], start: left, count: width };
        const rows = { from: from[1], size: size[1], start: top, count: height };
        const [across, down] = [sourceSpan(columns, kernel), sourceSpan(rows, kernel)];
        const held = cutOut(pixels, from[0], across.start, down.start, across.count, down.count);
        const part = resample(held, { ...columns, held: across }, { ...rows, held: down }, kernel);
        expect(part).toEqual(cutOut(all, size[0], left, top, width, height));
      }),
      { numRuns: 300 },
    );
  });
});

function cutOut(pixels: Uint8Array, width: number, left: number, top: number, columns: number, rows: number) {
  const part = new Uint8Array(columns * rows * 3);
  for (let row = 0; row < rows; row++) {
    const start = ((top + row) * width + left) * 3;
    part.set(pixels.subarray(start, start + columns * 3), row * columns * 3);
  }
  return part;
}

function difference(a: Uint8Array, b: Uint8Array) {
  expect(a).toHaveLength(b.length);
  let sum = 0;
  let most = 0;
  for (const [index, value] of a.entries()) {
    const distance = Math.abs(value - b[index]!);
    sum += distance;
    most = Math.max(most, distance);
  }
  return { mean: sum / a.length, most };
}

/** Reads width, height, then sizes and filters from argv, and the pixels from stdin; writes all results one after another. */
const PILLOW_SCRIPT = `
import sys
from PIL import Image
width, height, *cases = sys.argv[1:]
picture = Image.frombytes("RGB", (int(width), int(height)), sys.stdin.buffer.read())
filters = {"linear": Image.BILINEAR, "cubic": Image.BICUBIC, "lanczos3": Image.LANCZOS}
for case in cases:
    kernel, wide, high = case.split(",")
    wide, high = int(wide), int(high)
    rows_first = picture.resize((wide, picture.height), filters[kernel]).resize((wide, high), filters[kernel])
    for resized in (rows_first, picture.resize((wide, high), filters[kernel])):
        sys.stdout.buffer.write(resized.tobytes())
`;

describe("raw pixels are resized as the Pillow of this machine does it", () => {
  it.skipIf(whyNoPackages)("for random sizes, up and down", () => {
    const [width, height] = [97, 61];
    const pixels = formula(width, height);
    const side = fc.integer({ min: 1, max: 300 });
    const kernel = fc.constantFrom("linear" as const, "cubic" as const, "lanczos3" as const);
    const cases = fc.sample(fc.tuple(kernel, side, side), { numRuns: 60, seed: 7 });
    const script = [`${pythonWithPackages}/bin/python`, "-c", PILLOW_SCRIPT, String(width), String(height)];
    const output = execFileSync(script[0]!, [...script.slice(1), ...cases.map(String)], {
      input: pixels,
      maxBuffer: 2 ** 28,
    });
    let at = 0;
    for (const [name, wide, high] of cases) {
      const resized = resample(pixels, whole(width, wide), whole(height, high), name);
      const [rowsFirst, direct] = [0, 1].map((index) =>
        output.subarray(at + index * resized.length, at + (index + 1) * resized.length),
      ) as [Buffer, Buffer];
      at += 2 * resized.length;
      const where = `${name}, ${wide}×${high}`;
      expect(Buffer.from(resized).equals(rowsFirst), where).toBe(true);
      if (name === "linear") expect(difference(resized, direct).most, where).toBeLessThanOrEqual(1);
    }
  });
});

describe("pictures are resized as Pillow does it", () => {
  it("to the bit where one side or both are enlarged, also in a crop and a letterbox", async () => {
    const bytes = await png(formula(60, 45), 60, 45);
    for (const kernel of ["linear", "cubic", "lanczos3", "nearest"] as const) {
      for (const [width, height] of [
        [200, 150],
        [61, 45],
        [12, 160],
        [300, 9],
      ] as const) {
        const size = { width, height };
        const stretched = await decodePicture(bytes, { size, fit: "stretch", kernel, maxPixels: 1e6 });
        expect(
          difference(stretched.pixels, resample(formula(60, 45), whole(60, width), whole(45, height), kernel))
            .most,
          `${kernel}, ${width}×${height}`,
        ).toBe(0);
      }
      for (const fit of ["crop", "cover", "letterbox"] as const) {
        const size = { width: 100, height: 100 };
        const picture = await decodePicture(bytes, { size, fit, kernel, maxPixels: 1e6 });
        const { placement } = picture;
        const all = resample(
          formula(60, 45),
          whole(60, placement.width),
          whole(45, placement.height),
          kernel,
        );
        const left = Math.max(0, -placement.left);
        const top = Math.max(0, -placement.top);
        const expected = cutOut(all, placement.width, left, top, picture.width, picture.height);
        expect(difference(picture.pixels, expected).most, `${kernel}, ${fit}`).toBe(0);
      }
    }
  });

  it("within a grey level on average for ratios from 0.3 to 20, as PNG, WebP and JPEG", async () => {
    const photo = readFileSync(findSamplePhoto("march-pastoral")!);
    const { width, height } = await sharp(photo).metadata();
    for (const format of ["png", "webp", "jpeg"] as const) {
      const bytes = format === "jpeg" ? photo : await sharp(photo).toFormat(format).toBuffer();
      const pixels = await sharp(bytes).removeAlpha().raw().toBuffer();
      for (const [across, down] of [
        [0.3, 0.3],
        [0.7, 1.9],
        [1.3, 1.3],
        [2.2, 4.5],
        [3.4, 3.4],
        [4.5, 4.5],
        [7, 7],
        [9.5, 12],
        [13, 13],
        [20, 20],
      ] as const) {
        const size = { width: Math.round(width / across), height: Math.round(height / down) };
        const picture = await decodePicture(bytes, { size, fit: "stretch", maxPixels: 1e8 });
        const expected = resample(pixels, whole(width, size.width), whole(height, size.height), "linear");
        const { mean } = difference(picture.pixels, expected);
        expect(mean, `${format}, shrunk ${across} × ${down} times`).toBeLessThan(across < 1 ? 0.01 : 1);
      }
    }
  });

  it("in a cut-out for a second model", async () => {
    const size = { width: 60, height: 45 };
    const bytes = await png(formula(60, 45), 60, 45);
    const picture = await decodePicture(bytes, { size, fit: "stretch", maxPixels: 1e6 });
    const region = { left: 10, top: 5, width: 30, height: 20 };
    const face = await cropPicture(picture, region, { width: 48, height: 48 });
    const cut = cutOut(formula(60, 45), 60, 10, 5, 30, 20);
    expect(face.pixels).toEqual(resample(cut, whole(30, 48), whole(20, 48), "linear"));
    expect(face.original).toEqual({ width: 30, height: 20 });
  });
});
