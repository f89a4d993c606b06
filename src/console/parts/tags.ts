/** Where the names of boxes stand, so that none covers another. */

export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface TagRequest {
  /** Of the box, in pixels. */
  box: Rect;
  /** Of the tag. */
  width: number;
  height: number;
}

/** Above its box, or where that is taken or outside, at the nearest free place; the first ones choose first. */
export function placeTags(requests: readonly TagRequest[], width: number, height: number): Rect[] {
  const placed: Rect[] = [];
  for (const { box, ...tag } of requests) {
    const x = Math.max(0, Math.min(box.x, width - tag.width));
    const above = box.y - tag.height;
    const candidates = [above, box.y, box.y + box.height, box.y + box.height - tag.height];
    for (let step = 1; step < 12; step++)
      candidates.push(box.y + step * tag.height, above - step * tag.height);
    const rects = candidates
      .filter((y) => y >= 0 && y + tag.height <= height)
      .map((y) => ({ x, y, width: tag.width, height: tag.height }));
    const free = rects.find((rect) => !placed.some((other) => overlap(rect, other)));
    placed.push(free ?? rects[0] ?? { x, y: 0, width: tag.width, height: tag.height });
  }
  return placed;
}

function overlap(a: Rect, b: Rect): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}
