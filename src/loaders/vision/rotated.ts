/** Arithmetic of boxes at an angle: corners, overlap, the finding. */
import type { Finding } from "../../imil/dictionaries.ts";
import type { DecodedPicture } from "../pictures/picture.ts";
import { round4, toFractions } from "./boxes.ts";
import type { Detection, RotatedBox } from "./heads/head.ts";

type Point = readonly [x: number, y: number];

/** The corners, clockwise from the one that is top left without the angle. */
export function cornersOf({ x, y, width, height, angle }: RotatedBox): [Point, Point, Point, Point] {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const corner = (across: number, down: number): Point => [
    x + across * cos - down * sin,
    y + across * sin + down * cos,
  ];
  const [w, h] = [width / 2, height / 2];
  return [corner(-w, -h), corner(w, -h), corner(w, h), corner(-w, h)];
}

/** Area of the overlap ÷ area of the union of the boxes at their angles, 0..1. */
export function rotatedOverlap(a: Detection, b: Detection): number {
  // Boxes whose upright hulls don't touch, don't touch.
  if (a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top) return 0;
  const [first, second] = [a.rotated!, b.rotated!];
  const both = areaOf(clipPolygon(cornersOf(first), cornersOf(second)));
  const either = first.width * first.height + second.width * second.height - both;
  return either > 0 ? both / either : 0;
}

/** The part of a polygon inside a convex one whose corners go clockwise (Sutherland and Hodgman). */
function clipPolygon(subject: readonly Point[], convex: readonly Point[]): Point[] {
  let rest = [...subject];
  for (const [index, from] of convex.entries()) {
    const to = convex[(index + 1) % convex.length]!;
    const sideOf = ([x, y]: Point) => (to[0] - from[0]) * (y - from[1]) - (to[1] - from[1]) * (x - from[0]);
    const clipped: Point[] = [];
    for (const [at, point] of rest.entries()) {
      const previous = rest[(at + rest.length - 1) % rest.length]!;
      const [here, before] = [sideOf(point), sideOf(previous)];
      if (here >= 0 !== before >= 0) {
        const part = before / (before - here);
        clipped.push([
          previous[0] + part * (point[0] - previous[0]),
          previous[1] + part * (point[1] - previous[1]),
        ]);
      }
      if (here >= 0) clipped.push(point);
    }
    rest = clipped;
  }
  return rest;
}

/** Gauss's formula. */
function areaOf(polygon: readonly Point[]): number {
  let sum = 0;
  for (const [index, [x, y]] of polygon.entries()) {
    const [nextX, nextY] = polygon[(index + 1) % polygon.length]!;
    sum += x * nextY - nextX * y;
  }
  return Math.abs(sum) / 2;
}

/** The rotated box as the finding has it. A picture that was stretched turns the angle. */
export function toRotated(box: RotatedBox, picture: DecodedPicture): NonNullable<Finding["Rb"]> {
  const corners = cornersOf(box).map(([x, y]) => toFractions(picture, x, y));
  const { original, placement } = picture;
  const [scaleX, scaleY] = [original.width / placement.width, original.height / placement.height];
  const angle =
    // Letterboxing rounds the sides to whole pixels, which is no stretching.
    Math.abs(scaleX / scaleY - 1) < 0.02
      ? box.angle
      : Math.atan2(Math.sin(box.angle) * scaleY, Math.cos(box.angle) * scaleX);
  return {
    Angle: round4(angle),
    Corners: corners.map(([x, y]) => [round4(x), round4(y)]),
  };
}
