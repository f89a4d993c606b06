/** The plots of a report as inline SVG; their colours are those of the page. */
import { SCORE_BINS, type BulkSummary, type StageSummary } from "../core/bulkSummary.ts";
import { html, type Html } from "./html.ts";

const WIDTH = 560;
const HEIGHT = 170;
const LEFT = 46;
const BOTTOM = 22;
const TOP = 8;

interface Bar {
  /** Stacked from below. */
  parts: { value: number; kind: string }[];
  title: string;
}

/** Entries a second over time; those that failed on top. */
export function plotRate({ interval_seconds, points }: BulkSummary["rate"]): Html {
  const start = Date.parse(points[0]!.at);
  const bars = points.map(({ at, succeeded, failed }) => ({
    parts: [
      { value: succeeded / interval_seconds, kind: "good" },
      { value: failed / interval_seconds, kind: "bad" },
    ],
    title: `${elapsed((Date.parse(at) - start) / 1000)}: ${short((succeeded + failed) / interval_seconds)}/s${failed > 0 ? `, ${failed} failed` : ""}`,
  }));
  const end = points.length * interval_seconds;
  return plotBars("Entries a second over time", bars, ["0", elapsed(end / 2), elapsed(end)]);
}

/** Findings by their score. */
export function plotScores({ bins }: NonNullable<BulkSummary["scores"]>): Html {
  const bars = bins.map((value, bin) => ({
    parts: [{ value, kind: "mark" }],
    title: `${(bin / SCORE_BINS).toFixed(2)} to ${((bin + 1) / SCORE_BINS).toFixed(2)}: ${value}`,
  }));
  return plotBars("Findings by score", bars, ["0", "0.5", "1"]);
}

function plotBars(
  title: string,
  bars: readonly Bar[],
  [first, middle, last]: [string, string, string],
): Html {
  const heights = bars.map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0));
  const top = niceAbove(heights.reduce((a, b) => Math.max(a, b), 0));
  const plotHeight = HEIGHT - TOP - BOTTOM;
  const step = (WIDTH - LEFT) / bars.length;
  const gap = step > 6 ? 1.5 : step > 3 ? 0.5 : 0;
  const y = (value: number) => TOP + plotHeight * (1 - value / top);
  const grid = [0, top / 2, top].map(
    (value) =>
      html`<line
          class="grid"
          x1="${LEFT}"
          x2="${WIDTH}"
          y1="${fixed(y(value))}"
          y2="${fixed(y(value))}"
        /><text x="${LEFT - 6}" y="${fixed(y(value) + 4)}" text-anchor="end">${short(value)}</text>`,
  );
  const drawn = bars.map(({ parts, title: text }, at) => {
    let below = 0;
    const rects = parts
      .filter(({ value }) => value > 0)
      .map(({ value, kind }) => {
        const from = y(below + value);
        const height = y(below) - from;
        below += value;
        return html`<rect
          class="${kind}"
          x="${fixed(LEFT + at * step)}"
          y="${fixed(from)}"
          width="${fixed(Math.max(0.5, step - gap))}"
          height="${fixed(height)}"
        />`;
      });
    return rects.length > 0 && html`<g><title>${text}</title>${rects}</g>`;
  });
  const under = HEIGHT - 6;
  return html`<svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}">
    ${grid}${drawn}
    <text x="${LEFT}" y="${under}">${first}</text>
    <text x="${(LEFT + WIDTH) / 2}" y="${under}" text-anchor="middle">${middle}</text>
    <text x="${WIDTH}" y="${under}" text-anchor="end">${last}</text>
  </svg>`;
}

/** The stages in the engine as one bar. */
export function plotStages(stages: readonly StageSummary[]): Html {
  let from = 0;
  const parts = stages
    .filter(({ share }) => share !== null)
    .map(({ stage, share, mean_ms }) => {
      const width = WIDTH * share!;
      const x = from;
      from += width;
      return html`<g
        ><title>${stage}: ${short(mean_ms)} ms on average</title
        ><rect
          class="stage-${stage}"
          x="${fixed(x)}"
          y="0"
          width="${fixed(Math.max(0, width - 1))}"
          height="22"
      /></g>`;
    });
  return html`<svg class="plot stages" viewBox="0 0 ${WIDTH} 22" role="img" aria-label="Where the time went">
    ${parts}
  </svg>`;
}

/** The next of 1, 2, 5, 10, 20 …, so that the axis has round numbers. */
function niceAbove(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999) ?? 10 * power;
}

function fixed(value: number): string {
  return value.toFixed(1).replace(/\.0$/, "");
}

/** "1.2 M", "34 k", "560", "7.5", "0.04" */
export function short(value: number): string {
  if (value >= 1e6) return `${trim(value / 1e6, 1)} M`;
  if (value >= 1e4) return `${trim(value / 1e3, 0)} k`;
  return trim(value, value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

function trim(value: number, places: number): string {
  return String(Number(value.toFixed(places)));
}

function elapsed(seconds: number): string {
  if (seconds < 120) return `${trim(seconds, 1)} s`;
  return seconds < 7200 ? `${trim(seconds / 60, 1)} min` : `${trim(seconds / 3600, 1)} h`;
}
