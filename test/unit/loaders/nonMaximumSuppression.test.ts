import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  intersectionOverUnion,
  suppressNonMaxima,
  toFinding,
  type Candidate,
} from "../../../src/loaders/vision/boxes.ts";
import { placePicture, type DecodedPicture, type Fit } from "../../../src/loaders/pictures/picture.ts";

const box = (
  left: number,
  top: number,
  right: number,
  bottom: number,
  score = 0.5,
  classIndex = 0,
): Candidate => ({
  left,
  top,
  right,
  bottom,
  score,
  classIndex,
});

const anyBox = fc
  .record({
    left: fc.integer({ min: 0, max: 40 }),
    top: fc.integer({ min: 0, max: 40 }),
    width: fc.integer({ min: 0, max: 25 }),
    height: fc.integer({ min: 0, max: 25 }),
    score: fc.double({ min: 0, max: 1, noNaN: true }),
    classIndex: fc.integer({ min: 0, max: 2 }),
  })
  .map(({ left, top, width, height, score, classIndex }) =>
    box(left, top, left + width, top + height, score, classIndex),
  );

/** Counts unit squares: slow, and right by its looks for boxes with whole-number corners. */
function countedOverlap(a: Candidate, b: Candidate): number {
  let both = 0;
  let either = 0;
  for (let x = 0; x < 70; x++) {
    for (let y = 0; y < 70; y++) {
      const inside = (c: Candidate) => x >= c.left && x < c.right && y >= c.top && y < c.bottom;
      if (inside(a) && inside(b)) both++;
      if (inside(a) || inside(b)) either++;
    }
  }
  return either === 0 ? 0 : both / either;
}

describe("intersection over union", () => {
  it("is what counting unit squares gives, in either order", () => {
    fc.assert(
      fc.property(anyBox, anyBox, (a, b) => {
        expect(intersectionOverUnion(a, b)).toBeCloseTo(countedOverlap(a, b), 10);
        expect(intersectionOverUnion(b, a)).toBe(intersectionOverUnion(a, b));
      }),
      { numRuns: 100 },
    );
  });

  it("of a box without area is 0, not NaN", () => {
    expect(intersectionOverUnion(box(3, 3, 3, 9), box(3, 3, 3, 9))).toBe(0);
  });
});

describe("non-maximum suppression", () => {
  it("keeps no two boxes of a class that overlap by more than the threshold, and drops none without such a reason", () => {
    const threshold = fc.double({ min: 0.05, max: 0.95, noNaN: true });
    fc.assert(
      fc.property(fc.array(anyBox, { maxLength: 40 }), threshold, (candidates, iou) => {
        const kept = suppressNonMaxima(candidates, iou);
        const collide = (a: Candidate, b: Candidate) =>
          a.classIndex === b.classIndex && intersectionOverUnion(a, b) > iou;
        const pairs = kept.flatMap((a, at) => kept.slice(at + 1).map((b) => [a, b] as const));
        expect(pairs.filter(([a, b]) => collide(a, b))).toEqual([]);
        for (const dropped of candidates.filter((candidate) => !kept.includes(candidate))) {
          expect(kept.some((winner) => winner.score >= dropped.score && collide(winner, dropped))).toBe(true);
        }
        expect(kept.map(({ score }) => score)).toEqual(
          kept.map(({ score }) => score).toSorted((a, b) => b - a),
        );
      }),
      { numRuns: 200 },
    );
  });

  it("leaves boxes of different classes alone, even where they coincide", () => {
    expect(suppressNonMaxima([box(0, 0, 9, 9, 0.9, 1), box(0, 0, 9, 9, 0.8, 2)], 0.45)).toHaveLength(2);
  });

  it("keeps an overlap of exactly the threshold", () => {
    const half = [box(0, 0, 10, 10, 0.9), box(0, 0, 10, 5, 0.8)];
    expect(suppressNonMaxima(half, 0.5)).toHaveLength(2);
    expect(suppressNonMaxima(half, 0.49)).toHaveLength(1);
  });

  it("returns the best boxes where there are more than it may", () => {
    const row = Array.from({ length: 10 }, (_, index) => box(index * 10, 0, index * 10 + 9, 9, index / 10));
    expect(suppressNonMaxima(row, 0.5, 3).map(({ score }) => score)).toEqual([0.9, 0.8, 0.7]);
  });
});

describe("a box of the tensor as fractions of the picture", () => {
  const pictureOf = (original: { width: number; height: number }, fit: Fit): DecodedPicture => {
    const canvas = { width: 640, height: 640 };
    const placement = placePicture(original, { size: canvas, fit });
    return { pixels: new Uint8Array(), width: 0, height: 0, canvas, placement, original };
  };

  it("finds any part of the picture again, however it was fitted", () => {
    const side = fc.integer({ min: 200, max: 3000 });
    const fit = fc.constantFrom<Fit>("stretch", "letterbox", "letterbox-top-left", "crop");
    fc.assert(
      fc.property(side, side, fit, (width, height, how) => {
        const picture = pictureOf({ width, height }, how);
        const { placement } = picture;
        const part = { X: 0.25, Y: 0.375, W: 0.5, H: 0.125 };
        const found = toFinding(
          box(
            placement.left + part.X * placement.width,
            placement.top + part.Y * placement.height,
            placement.left + (part.X + part.W) * placement.width,
            placement.top + (part.Y + part.H) * placement.height,
          ),
          picture,
          "part",
        );
        expect(found?.Dm).toEqual(part);
      }),
    );
  });

  it("is clipped to the picture, so that nothing lies in the padding of a letterbox", () => {
    const picture = pictureOf({ width: 200, height: 100 }, "letterbox");
    expect(toFinding(box(-50, 0, 320, 700), picture, "all of the left half")?.Dm).toEqual({
      X: 0,
      Y: 0,
      W: 0.5,
      H: 1,
    });
    expect(toFinding(box(10, 10, 300, 150), picture, "in the padding")).toBeUndefined();
  });

  it("has four places, and so has the score", () => {
    const picture = pictureOf({ width: 640, height: 640 }, "stretch");
    expect(toFinding(box(1, 2, 4, 8, 0.123456), picture, "x")).toEqual({
      Cs: 0.1235,
      Lb: "x",
      Dm: { X: 0.0016, Y: 0.0031, W: 0.0047, H: 0.0094 },
    });
  });
});
