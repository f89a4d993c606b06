import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { afterAll, expect, test } from "vitest";
import { decodeFileName, toFilePath } from "../../../src/core/filePaths.ts";
import { annotatePicture } from "../../../src/annotate/annotate.ts";
import { labelColour } from "../../../src/annotate/labelColour.ts";
import { drawOverlay } from "../../../src/annotate/overlay.ts";
import { cocoLabels } from "../../../src/loaders/labels/coco.ts";
import type { Finding } from "../../../src/imil/dictionaries.ts";
import { YoloModelLoader } from "../../../src/index.ts";
import { decodeRunLengths } from "../../../src/imil/runLengths.ts";
import { openLoader, predictOne } from "../../support/loaders.ts";
import { plainPicture } from "../../support/pictures.ts";
import { sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-annotate-"));
afterAll(() => rmSync(folder, { recursive: true }));

const MAX_PIXELS = 10_000_000;
const box = (X: number, Y: number, W: number, H: number, Lb = "sheep", Cs = 0.5): Finding => ({
  Cs,
  Lb,
  Dm: { X, Y, W, H },
});

interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** The rectangles behind labels: those with round corners. */
function tagsOf(svg: string): Rect[] {
  return [...svg.matchAll(/<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" rx/g)].map((match) => {
    const [x, y, width, height] = match.slice(1).map(Number) as [number, number, number, number];
    return { x, y, width, height };
  });
}

const overlap = (a: Rect, b: Rect) =>
  a.x < b.x + b.width - 0.2 &&
  b.x < a.x + a.width - 0.2 &&
  a.y < b.y + b.height - 0.2 &&
  b.y < a.y + a.height - 0.2;

test("labels stay on the picture, wherever their boxes are", () => {
  const part = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(part, part, part, part), { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 300, max: 4000 }),
      fc.integer({ min: 300, max: 4000 }),
      (boxes, width, height) => {
        const findings = boxes.map(([X, Y, W, H]) => box(X, Y, W * (1 - X), H * (1 - Y)));
        for (const { x, y, width: w, height: h } of tagsOf(drawOverlay(findings, { width, height })!)) {
          expect(Math.min(x, y)).toBeGreaterThanOrEqual(0);
          expect(x + w).toBeLessThanOrEqual(width + 0.2);
          expect(y + h).toBeLessThanOrEqual(height + 0.2);
        }
      },
    ),
  );
});

test("labels of boxes that lie on each other don't hide each other", () => {
  const findings = Array.from({ length: 5 }, (_, index) => box(0.4, 0.4, 0.2, 0.2, `label ${index}`));
  const tags = tagsOf(drawOverlay(findings, { width: 800, height: 600 })!);
  expect(tags).toHaveLength(5);
  for (const [index, tag] of tags.entries())
    for (const other of tags.slice(index + 1)) expect(overlap(tag, other)).toBe(false);
});

test("a label has one colour, whatever else is in its picture, and few labels share one", () => {
  const colourIn = (findings: Finding[]) =>
    /fill="none" stroke="(#\w{6})"/.exec(drawOverlay(findings, { width: 500, height: 500 })!)![1];
  const sheep = box(0, 0, 0.5, 0.5, "sheep");
  const others = cocoLabels.map((label) => box(0, 0, 0.5, 0.5, label));
  expect(colourIn([sheep])).toBe(labelColour("sheep"));
  expect(colourIn([sheep, ...others])).toBe(labelColour("sheep"));
  // Of 72 colours, 80 labels drawn at random have about 48.
  expect(new Set(cocoLabels.map(labelColour)).size).toBeGreaterThan(40);
});

test("a label is text, whatever a model calls things, and findings without a box are listed", () => {
  const svg = drawOverlay(
    [
      { Cs: 0.9, Lb: `<b>"cats" & dogs</b>\u0007`, Dm: {} },
      { Cs: 0.8, Lb: "x".repeat(100), Dm: {} },
    ],
    { width: 640, height: 480 },
  )!;
  expect(svg).toContain(`&lt;b&gt;"cats" &amp; dogs&lt;/b&gt; 0.90`);
  expect(svg).toContain(`${"x".repeat(39)}… 0.80`);
  expect(drawOverlay([], { width: 640, height: 480 })).toBeUndefined();
});

test("key points are dots, and COCO's seventeen are joined", () => {
  const Kp = Object.fromEntries(
    Array.from({ length: 17 }, (_, index) => [String(index + 1), [index / 17, index / 17, 0, 0.9]]),
  );
  const svg = drawOverlay([{ ...box(0, 0, 1, 1, "person"), Kp }], { width: 640, height: 480 })!;
  expect(svg.match(/<circle/g)).toHaveLength(17);
  expect(svg.match(/<line/g)).toHaveLength(2 * 16);
});

test("a small picture is enlarged, a turned one stands upright, and both keep their format", async () => {
  const small = join(folder, "small.jpg");
  writeFileSync(small, await plainPicture(90, 90, 90, 100));
  const turned = join(folder, "turned.webp");
  await sharp({ create: { width: 900, height: 700, channels: 3, background: "#fff" } })
    .withMetadata({ orientation: 6 })
    .webp()
    .toFile(turned);
  const sizes = [];
  for (const file of ["small.jpg", "turned.webp"]) {
    const copy = join(folder, "copies", file);
    await annotatePicture(join(folder, file), [box(0.1, 0.1, 0.5, 0.5)], copy, MAX_PIXELS);
    const { width, height, format, orientation } = await sharp(copy).metadata();
    sizes.push([width, height, format, orientation ?? 1]);
  }
  expect(sizes).toEqual([
    [400, 400, "jpeg", 1],
    [700, 900, "webp", 1],
  ]);
});

test.each(["#000000", "#ffffff", "#808080"])("box and label show on %s", async (background) => {
  const source = join(folder, "ground.png");
  const copy = join(folder, "ground-copy.png");
  await sharp({ create: { width: 640, height: 480, channels: 3, background } })
    .png()
    .toFile(source);
  await annotatePicture(source, [box(0.3, 0.3, 0.4, 0.4)], copy, MAX_PIXELS);
  const lightness = async (left: number, top: number, width: number, height: number) => {
    const { channels } = await sharp(copy).extract({ left, top, width, height }).greyscale().stats();
    return channels[0]!;
  };
  // Across the left side of the box, and in its label: dark and light next to each other.
  for (const [left, top, width, height] of [
    [180, 250, 24, 4],
    [196, 126, 80, 16],
  ] as const) {
    const { min, max } = await lightness(left, top, width, height);
    expect(max - min).toBeGreaterThan(90);
  }
});

test("a file that is no picture leaves no copy behind", async () => {
  const file = join(folder, "no.jpg");
  writeFileSync(file, "no picture");
  await expect(annotatePicture(file, [], join(folder, "none", "no.jpg"), MAX_PIXELS)).rejects.toThrow(
    /no.jpg can't be annotated/,
  );
  expect(readdirSync(join(folder, "none"))).toEqual([]);
});

test("the copy of a BMP is a PNG beside its name, and a name that is not UTF-8 is kept", async () => {
  const bmp = Buffer.concat([Buffer.alloc(54), Buffer.alloc(700 * 700 * 3, 90)]);
  bmp.write("BM", "latin1");
  for (const [at, value] of [
    [10, 54],
    [14, 40],
    [18, 700],
    [22, 700],
  ] as const)
    bmp.writeUInt32LE(value, at);
  bmp.writeUInt16LE(24, 28);
  const name = decodeFileName(Buffer.from("caf\xe9.bmp", "latin1"));
  writeFileSync(toFilePath(join(folder, name)), bmp);
  const copy = join(folder, "copies", name);
  await annotatePicture(join(folder, name), [box(0.1, 0.1, 0.5, 0.5)], copy, MAX_PIXELS);
  const { width, height, format } = await sharp(readFileSync(toFilePath(`${copy}.png`))).metadata();
  expect([width, height, format]).toEqual([700, 700, "png"]);
});

test.skipIf(!sharedModels || !sharedPhotos)(
  "a mask of a segmentation model colours the pixels of its run lengths and few others",
  async () => {
    const source = join(sharedPhotos!, "darknet_dog.jpg");
    const loader = await openLoader(YoloModelLoader, [
      join(sharedModels!, "any", "yolov8n_seg", "model.onnx"),
    ]);
    const findings = await predictOne(loader, readFileSync(source));
    const draw = async (name: string, drawn: Finding[]) => {
      await annotatePicture(source, drawn, join(folder, name), MAX_PIXELS);
      return sharp(join(folder, name)).raw().toBuffer();
    };
    const masked = await draw("masked.jpg", findings);
    const boxed = await draw(
      "boxed.jpg",
      findings.map(({ Cs, Lb, Dm }) => ({ Cs, Lb, Dm })),
    );
    const bitmaps = findings.map(({ Msk }) => decodeRunLengths(Msk!.Rle));
    const counts = { inside: 0, coloured: 0, outside: 0, spilled: 0 };
    for (let pixel = 0; pixel < boxed.length / 3; pixel++) {
      const isInside = bitmaps.some(({ data }) => data[pixel] === 1);
      const at = 3 * pixel;
      const change = [0, 1, 2].reduce(
        (sum, each) => sum + Math.abs(masked[at + each]! - boxed[at + each]!),
        0,
      );
      counts[isInside ? "inside" : "outside"]++;
      if (change > 30) counts[isInside ? "coloured" : "spilled"]++;
    }
    expect(counts.inside).toBeGreaterThan(20_000);
    expect(counts.coloured / counts.inside).toBeGreaterThan(0.8);
    // The outline is drawn on both sides of the mask's edge.
    expect(counts.spilled / counts.outside).toBeLessThan(0.05);
  },
);
