/** What the soak saw over its time, as a picture: memory of each process, what was settled, and the faults. */
import sharp from "sharp";

export interface Sample {
  /** Since the beginning. */
  seconds: number;
  /** By process, in MiB. */
  memory: ReadonlyMap<string, number>;
  /** Settled since the sample before, per second. */
  rate: number;
}

export interface Fault {
  seconds: number;
  kind: string;
  what: string;
}

const WIDTH = 1200;
const LEFT = 60;
const RIGHT = 200;
const PANELS = { memory: { top: 40, height: 320 }, rate: { top: 420, height: 160 } };
const HEIGHT = 640;
const COLOURS = [
  "#1f77b4",
  "#ff7f0e",
  "#2ca02c",
  "#d62728",
  "#9467bd",
  "#8c564b",
  "#e377c2",
  "#7f7f7f",
  "#17becf",
  "#bcbd22",
  "#393b79",
  "#637939",
];
const FAULT_COLOURS: Readonly<Record<string, string>> = {
  "kill -9": "#d62728",
  freeze: "#1f77b4",
  "cut connections": "#999999",
  "kill Redis": "#ff7f0e",
  failover: "#9467bd",
};

export async function plot(
  samples: readonly Sample[],
  faults: readonly Fault[],
  file: string,
): Promise<void> {
  const end = Math.max(1, ...samples.map(({ seconds }) => seconds));
  const x = (seconds: number) => LEFT + (seconds / end) * (WIDTH - LEFT - RIGHT);
  const names = [...new Set(samples.flatMap(({ memory }) => [...memory.keys()]))];
  const most = Math.max(1, ...samples.flatMap(({ memory }) => [...memory.values()]));
  const fastest = Math.max(1, ...samples.map(({ rate }) => rate));
  const y = (panel: { top: number; height: number }, part: number) => panel.top + panel.height * (1 - part);

  const lines = names.map((name, index) => {
    const points = samples.flatMap(({ seconds, memory }) => {
      const value = memory.get(name);
      return value === undefined
        ? []
        : [`${x(seconds).toFixed(1)},${y(PANELS.memory, value / most).toFixed(1)}`];
    });
    const colour = COLOURS[index % COLOURS.length]!;
    return `<polyline points="${points.join(" ")}" fill="none" stroke="${colour}" stroke-width="1.5"/>
      <text x="${WIDTH - RIGHT + 12}" y="${PANELS.memory.top + 14 + 18 * index}" fill="${colour}">${name}</text>`;
  });
  const rates = samples.map(
    ({ seconds, rate }) => `${x(seconds).toFixed(1)},${y(PANELS.rate, rate / fastest).toFixed(1)}`,
  );
  const marks = faults.map(({ seconds, kind }) => {
    const at = x(seconds).toFixed(1);
    return `<line x1="${at}" x2="${at}" y1="${PANELS.memory.top}" y2="${PANELS.rate.top + PANELS.rate.height}" stroke="${FAULT_COLOURS[kind] ?? "#000"}" stroke-width="1" stroke-dasharray="2 3"/>`;
  });
  const legend = Object.entries(FAULT_COLOURS).map(
    ([kind, colour], index) =>
      `<text x="${WIDTH - RIGHT + 12}" y="${PANELS.rate.top + 14 + 18 * index}" fill="${colour}">¦ ${kind}</text>`,
  );
  const axis = ({ top, height }: { top: number; height: number }, label: string, max: number) =>
    `<rect x="${LEFT}" y="${top}" width="${WIDTH - LEFT - RIGHT}" height="${height}" fill="none" stroke="#ccc"/>
     <text x="${LEFT}" y="${top - 8}">${label}</text>
     <text x="${LEFT - 8}" y="${top + 12}" text-anchor="end">${Math.round(max)}</text>
     <text x="${LEFT - 8}" y="${top + height}" text-anchor="end">0</text>`;
  const ticks = Array.from({ length: 7 }, (_, index) => (end * index) / 6).map(
    (seconds) =>
      `<text x="${x(seconds)}" y="${PANELS.rate.top + PANELS.rate.height + 20}" text-anchor="middle">${Math.round(seconds)} s</text>`,
  );
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" font-family="DejaVu Sans, sans-serif" font-size="13" fill="#333">
    <rect width="100%" height="100%" fill="#fff"/>
    ${axis(PANELS.memory, "memory of each process, MiB", most)}
    ${axis(PANELS.rate, "settled predictions and entries a second", fastest)}
    ${marks.join("")}${lines.join("")}
    <polyline points="${rates.join(" ")}" fill="none" stroke="#333" stroke-width="1.5"/>
    ${legend.join("")}${ticks.join("")}
  </svg>`;
  await sharp(Buffer.from(svg)).png().toFile(file);
}
