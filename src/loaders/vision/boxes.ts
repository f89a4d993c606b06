/** Box arithmetic that detectors share: overlap, suppression of duplicates, from the tensor back to the picture. */
import type { Box, Finding } from "../../imil/dictionaries.ts";
import type { DecodedPicture } from "../pictures/picture.ts";

/** A box that a detector proposes, in pixels of its input tensor. */
export interface Candidate {
  left: number;
  top: number;
  right: number;
  bottom: number;
  /** 0..1 */
  score: number;
  classIndex: number;
}

/** Area of the overlap ÷ area of the union, 0..1; 0 where a box has no area. */
export function intersectionOverUnion(a: Candidate, b: Candidate): number {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  if (!(width > 0 && height > 0)) return 0;
  const overlap = width * height;
  return overlap / (areaOf(a) + areaOf(b) - overlap);
}

const areaOf = (box: Candidate) => Math.max(0, box.right - box.left) * Math.max(0, box.bottom - box.top);

/** How boxes suppress each other, where it isn't the usual way. */
export interface SuppressionOptions<T> {
  /** Whether boxes of different classes do, too. Default: false. */
  agnostic?: boolean;
  /** Overlap of two boxes, 0..1. Default: `intersectionOverUnion`. */
  overlapOf?: (a: T, b: T) => number;
}

/**
 * Greedy non-maximum suppression: of boxes of the same class that overlap by more than `iouThreshold` the one with the
 * highest score stays. Returns at most `most` boxes, the highest score first; ties keep their order.
 */
export function suppressNonMaxima<T extends Candidate>(
  candidates: readonly T[],
  iouThreshold: number,
  most = MAX_BOXES,
  { agnostic = false, overlapOf = intersectionOverUnion }: SuppressionOptions<T> = {},
): T[] {
  const kept: T[] = [];
  const keptByClass = new Map<number, T[]>();
  for (const candidate of candidates.toSorted((a, b) => b.score - a.score)) {
    if (kept.length >= most) break;
    const key = agnostic ? 0 : candidate.classIndex;
    const rivals = keptByClass.get(key);
    if (rivals?.some((rival) => overlapOf(rival, candidate) > iouThreshold)) continue;
    kept.push(candidate);
    if (rivals) rivals.push(candidate);
    else keptByClass.set(key, [candidate]);
  }
  return kept;
}

/** Boxes of one picture at most, as in Ultralytics' detectors. */
export const MAX_BOXES = 300;

/** The finding of a box: clipped to the picture, as fractions of the upright picture; undefined where nothing is left of it. */
export function toFinding(box: Candidate, picture: DecodedPicture, label: string): Finding | undefined {
  const [left, top] = toFractions(picture, box.left, box.top).map(clip) as [number, number];
  const [right, bottom] = toFractions(picture, box.right, box.bottom).map(clip) as [number, number];
  const dimensions: Box = {
    X: round4(left),
    Y: round4(top),
    W: round4(right - left),
    H: round4(bottom - top),
  };
  if (!(dimensions.W > 0 && dimensions.H > 0)) return undefined;
  return { Cs: round4(box.score), Lb: label, Dm: dimensions };
}

/** A point of the canvas as fractions of the picture. */
export function toFractions({ placement }: DecodedPicture, x: number, y: number): [x: number, y: number] {
  return [(x - placement.left) / placement.width, (y - placement.top) / placement.height];
}

const clip = (fraction: number) => Math.min(1, Math.max(0, fraction));
export const round4 = (value: number) => Math.round(value * 1e4) / 1e4;
