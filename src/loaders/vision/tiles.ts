/** Large pictures in tiles: where they lie, how one is cut, and how what they find becomes one list (as SAHI does it). */
import type { Box, Finding } from "../../imil/dictionaries.ts";
import {
  cropPicture,
  placePicture,
  type DecodedPicture,
  type PictureSize,
  type Placement,
} from "../pictures/picture.ts";
import { suppressNonMaxima } from "./boxes.ts";
import type { Preprocessing } from "./pictureOptions.ts";

/** Tiles of one size that cover a picture, the last ones of a row and a column moved inside. */
export function tilesOf(
  picture: PictureSize,
  { size, overlap }: { size: number; overlap: number },
): Placement[] {
  const starts = (length: number) => {
    if (length <= size) return [0];
    const step = Math.max(1, Math.round(size * (1 - overlap)));
    const count = Math.ceil((length - size) / step) + 1;
    return Array.from({ length: count }, (_, index) => Math.min(index * step, length - size));
  };
  const [width, height] = [Math.min(size, picture.width), Math.min(size, picture.height)];
  return starts(picture.height).flatMap((top) =>
    starts(picture.width).map((left) => ({ left, top, width, height })),
  );
}

/** A tile on a canvas of its own. Its placement is the whole picture's, so that findings are fractions of that. */
export async function cutTile(
  whole: DecodedPicture,
  tile: Placement,
  canvas: PictureSize,
  { fit }: Preprocessing,
): Promise<DecodedPicture> {
  // In the corner, so that where the tile's pixels stand (0, 0) goes with the placement of the whole picture.
  const place = placePicture(tile, {
    size: canvas,
    fit: fit.startsWith("letterbox") ? "letterbox-top-left" : "stretch",
  });
  const { pixels, width, height } = await cropPicture(whole, tile, place);
  const [scaleX, scaleY] = [place.width / tile.width, place.height / tile.height];
  return {
    pixels,
    width,
    height,
    canvas,
    original: whole.original,
    placement: {
      left: 0 - tile.left * scaleX,
      top: 0 - tile.top * scaleY,
      width: whole.original.width * scaleX,
      height: whole.original.height * scaleY,
    },
  };
}

/**
 * Of findings of one label that overlap and were found in different tiles, the best one. A tile sees parts of what
 * reaches over its edge, so what lies by more than half in another box is the same thing.
 */
export function mergeTiles(
  tiles: readonly (readonly Finding[])[],
  { agnostic, most }: { agnostic: boolean; most: number },
): Finding[] {
  const labels = [...new Set(tiles.flat().map(({ Lb }) => Lb))];
  const candidates = tiles.flatMap((findings, tile) =>
    findings.flatMap((finding) => {
      if (!("W" in finding.Dm)) return [];
      const { X, Y, W, H } = finding.Dm as Box;
      const sides = { left: X, top: Y, right: X + W, bottom: Y + H };
      return [{ ...sides, score: finding.Cs, classIndex: labels.indexOf(finding.Lb), finding, tile }];
    }),
  );
  const kept = suppressNonMaxima(candidates, MAX_SHARED, most, {
    agnostic,
    overlapOf: (a, b) => (a.tile === b.tile ? 0 : sharedPart(a, b)),
  });
  return kept.map(({ finding }) => finding);
}

const MAX_SHARED = 0.5;

interface Sides {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** Area of the overlap ÷ area of the smaller box, 0..1. */
function sharedPart(a: Sides, b: Sides): number {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  if (!(width > 0 && height > 0)) return 0;
  const areaOf = ({ left, top, right, bottom }: Sides) => (right - left) * (bottom - top);
  return (width * height) / Math.min(areaOf(a), areaOf(b));
}
