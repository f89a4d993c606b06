/** What a model did in the last minutes, as a line that can be drawn. */
import type { Model } from "./answers.ts";
import type { StatisticsPoint } from "../core/modelStatus.ts";

const MINUTES = 15;

/** Every interval of the last 15 minutes: the server leaves those out in which nothing ended. */
export function fillStatistics(
  { interval_seconds: seconds, points }: Model["statistics"],
  now: number,
): StatisticsPoint[] {
  const step = seconds * 1000;
  const byTime = new Map(points.map((point) => [Math.floor(Date.parse(point.at) / step), point]));
  // The server's clock may be ahead of this one.
  const last = Math.max(Math.floor(now / step) - 1, ...byTime.keys());
  const count = Math.round((MINUTES * 60) / seconds);
  return Array.from({ length: count }, (_, index) => {
    const interval = last - count + 1 + index;
    return (
      byTime.get(interval) ?? {
        at: new Date(interval * step).toISOString(),
        succeeded: 0,
        failed: 0,
        p50_ms: null,
        p95_ms: null,
        mean_batch_size: null,
      }
    );
  });
}
