/**
 * What is drawn over a picture, as SVG: masks, boxes, labels, key points. Everything
 * has a dark and a light part, so that it shows on any ground, and its size
 * follows the picture's.
 */
import type { Box, Finding, RotatedBox } from "../imil/dictionaries.ts";
import { labelColour } from "./labelColour.ts";

interface Size {
  width: number;
  height: number;
}

interface Rect extends Size {
  x: number;
  y: number;
}

/** Findings without a box are listed in the corner, the best ones. */
const MAX_LISTED = 5;
const MAX_LABEL = 40;
const MIN_KEY_POINT_SCORE = 0.3;
/** Pairs of COCO's 17 key points (from 1) that belong together. */
const LIMBS = "1-2 1-3 2-4 3-5 6-7 6-8 8-10 7-9 9-11 6-12 7-13 12-13 12-14 14-16 13-15 15-17";

/**
 * The overlay for a picture of that size; undefined where there is nothing to draw.
 * @param maxTags of the best findings; a small picture would vanish below more of them
 */
export function drawOverlay(
  findings: readonly Finding[],
  size: Size,
  maxTags = Infinity,
): string | undefined {
  if (findings.length === 0) return undefined;
  const shortSide = Math.min(size.width, size.height);
  const fontSize = Math.round(Math.min(64, Math.max(13, shortSide * 0.034)));
  const stroke = Math.max(2, Math.round(fontSize / 7));
  const colourOf = ({ Lb }: Finding) => labelColour(Lb);
  const boxed = findings.filter(hasBox);
  const masks = findings.map((finding) => drawMask(finding, size, colourOf(finding), stroke));
  const boxes = boxed.map((finding) =>
    finding.Rb
      ? drawRotatedBox(finding.Rb, size, colourOf(finding), stroke)
      : drawBox(toPixels(finding.Dm, size), colourOf(finding), stroke),
  );
  const points = findings.map((finding) => drawKeyPoints(finding, size, colourOf(finding), stroke));
  const tagged = boxed.toSorted((a, b) => b.Cs - a.Cs).slice(0, maxTags);
  const tags = placeTags(tagged, size, fontSize).map(({ text, rect, finding }) =>
    drawTag(text, rect, colourOf(finding), fontSize),
  );
  const list = findings.filter((finding) => !hasBox(finding)).slice(0, MAX_LISTED);
  const listed = list.map((finding, index) => {
    const text = textOf(finding);
    const rect = {
      x: fontSize / 2,
      y: fontSize / 2 + index * tagHeight(fontSize),
      ...tagSize(text, fontSize),
    };
    return drawTag(text, rect, colourOf(finding), fontSize);
  });
  const parts = [...masks, ...boxes, ...points, ...tags, ...listed].join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${size.width}" height="${size.height}">${parts}</svg>`;
}

function hasBox(finding: Finding): finding is Finding & { Dm: Box } {
  return "W" in finding.Dm;
}

function toPixels({ X, Y, W, H }: Box, { width, height }: Size): Rect {
  return { x: X * width, y: Y * height, width: W * width, height: H * height };
}

function drawBox(rect: Rect, colour: string, stroke: number): string {
  const at = `x="${round(rect.x)}" y="${round(rect.y)}" width="${round(rect.width)}" height="${round(rect.height)}" fill="none"`;
  return `<rect ${at} stroke="#000" stroke-opacity="0.65" stroke-width="${stroke + 2}"/><rect ${at} stroke="${colour}" stroke-width="${stroke}"/>`;
}

function drawRotatedBox({ Corners }: RotatedBox, size: Size, colour: string, stroke: number): string {
  const at = `points="${pointsOf(Corners.flat(), size)}" fill="none" stroke-linejoin="round"`;
  return `<polygon ${at} stroke="#000" stroke-opacity="0.65" stroke-width="${stroke + 2}"/><polygon ${at} stroke="${colour}" stroke-width="${stroke}"/>`;
}

function drawMask({ Msk }: Finding, size: Size, colour: string, stroke: number): string {
  const outlines = Msk?.Poly ?? [];
  return outlines
    .map(
      (outline) =>
        `<polygon points="${pointsOf(outline, size)}" fill="${colour}" fill-opacity="0.4" stroke="${colour}" stroke-width="${stroke / 2}"/>`,
    )
    .join("");
}

/** `[x, y, x, y, …]` as fractions → SVG's points in pixels. */
function pointsOf(outline: readonly number[], { width, height }: Size): string {
  return outline.map((at, index) => round(at * (index % 2 === 0 ? width : height))).join(" ");
}

function drawKeyPoints({ Kp }: Finding, { width, height }: Size, colour: string, stroke: number): string {
  if (!Kp) return "";
  const seen = new Map(
    Object.entries(Kp)
      .filter(([, point]) => (point[3] ?? 1) >= MIN_KEY_POINT_SCORE)
      .map(([name, [x = 0, y = 0]]) => [name, { x: round(x * width), y: round(y * height) }] as const),
  );
  const limbs = Object.keys(Kp).length === 17 ? LIMBS.split(" ").map((limb) => limb.split("-")) : [];
  const lines = limbs.map(([from, to]) => {
    const [a, b] = [seen.get(from!), seen.get(to!)];
    if (!a || !b) return "";
    const at = `x1="${a.x}" y1="${a.y}" x2="${b.x}" y2="${b.y}" stroke-linecap="round"`;
    return `<line ${at} stroke="#000" stroke-opacity="0.65" stroke-width="${stroke + 2}"/><line ${at} stroke="${colour}" stroke-width="${stroke}"/>`;
  });
  const dots = [...seen.values()].map(
    ({ x, y }) =>
      `<circle cx="${x}" cy="${y}" r="${1.4 * stroke}" fill="#fff" stroke="#000" stroke-width="${Math.max(1, stroke / 2)}"/>`,
  );
  return [...lines, ...dots].join("");
}

interface Tag {
  finding: Finding;
  text: string;
  rect: Rect;
}

/** Above its box, or where that is taken or outside, at the nearest free place; they choose in their order. */
function placeTags(boxed: readonly (Finding & { Dm: Box })[], size: Size, fontSize: number): Tag[] {
  const placed: Tag[] = [];
  for (const finding of boxed) {
    const text = textOf(finding);
    const box = toPixels(finding.Dm, size);
    const { width, height } = tagSize(text, fontSize);
    const x = Math.max(0, Math.min(box.x, size.width - width));
    const above = box.y - height;
    const candidates = [above, box.y, box.y + box.height, box.y + box.height - height];
    for (let step = 1; step < 12; step++) candidates.push(box.y + step * height, above - step * height);
    const inside = candidates.filter((y) => y >= 0 && y + height <= size.height);
    const rects = inside.map((y) => ({ x, y, width, height }));
    const free = rects.find((rect) => !placed.some((tag) => overlap(rect, tag.rect)));
    placed.push({ finding, text, rect: free ?? rects[0] ?? { x, y: 0, width, height } });
  }
  return placed;
}

function overlap(a: Rect, b: Rect): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

function drawTag(text: string, { x, y, width, height }: Rect, colour: string, fontSize: number): string {
  return (
    `<rect x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" rx="${fontSize / 6}" fill="${colour}" stroke="#000" stroke-opacity="0.65"/>` +
    `<text x="${round(x + 0.4 * fontSize)}" y="${round(y + fontSize)}" font-size="${fontSize}" font-weight="bold" font-family="DejaVu Sans, Noto Sans, Arial, Helvetica, sans-serif" fill="#000">${escape(text)}</text>`
  );
}

function textOf({ Lb, Cs }: Finding): string {
  const letters = Array.from(Lb);
  const label = letters.length > MAX_LABEL ? `${letters.slice(0, MAX_LABEL - 1).join("")}…` : Lb;
  return `${label} ${Cs.toFixed(2)}`;
}

function tagHeight(fontSize: number): number {
  return Math.round(1.35 * fontSize);
}

function tagSize(text: string, fontSize: number): Size {
  const ems = Array.from(text).reduce((sum, letter) => sum + emsOf(letter), 0);
  return { width: Math.ceil((ems + 0.8) * fontSize), height: tagHeight(fontSize) };
}

/** How wide a bold sans-serif letter is at most. SVG can't measure, and a tag that is a little too wide does no harm. */
function emsOf(letter: string): number {
  if (/[ijlI.,:;'|!\s()[\]]/.test(letter)) return 0.42;
  if (/[mwMW@%]/.test(letter)) return 1.05;
  if (/[A-Z]/.test(letter)) return 0.8;
  return letter.codePointAt(0)! < 0x2e80 ? 0.7 : 1.05;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escape(text: string): string {
  return text
    .replaceAll(/\p{Cc}/gu, "")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}
