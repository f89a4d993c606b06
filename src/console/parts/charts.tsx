/** Small charts, drawn as SVG; each says in words what it shows. */
import type { ComponentChildren } from "preact";
import type { Timings } from "../../core/prediction.ts";
import { formatCount, formatDuration } from "../format.ts";

const WIDTH = 120;
const HEIGHT = 28;

/** A line of values, `null` where there was none. */
export function Sparkline(props: {
  values: readonly (number | null)[];
  label: string;
  tone?: "main" | "second";
  /** What is at the top. Default: the largest value. */
  max?: number;
}) {
  const { values, label, tone = "main" } = props;
  const max = props.max ?? Math.max(...values.map((value) => value ?? 0), 0);
  if (max === 0) return <span class="spark is-empty" role="img" aria-label={`${label}: nothing yet`} />;
  const step = WIDTH / Math.max(1, values.length - 1);
  const lines: string[] = [];
  let isDown = false;
  values.forEach((value, index) => {
    if (value === null) {
      isDown = false;
      return;
    }
    const y = HEIGHT - 2 - (value / max) * (HEIGHT - 4);
    const x = index * step;
    // A lone point is drawn as a short line.
    const isAlone = !isDown && (values[index + 1] ?? null) === null;
    lines.push(`${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${isAlone ? "h1" : ""}`);
    isDown = true;
  });
  return (
    <svg
      class={`spark is-${tone}`}
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      <path d={lines.join("")} vector-effect="non-scaling-stroke" />
    </svg>
  );
}

export interface Column {
  label: string;
  value: number;
  /** A part of the value that went wrong. */
  bad?: number;
}

/** Columns side by side, such as scores or a rate over time. */
export function Columns(props: {
  columns: readonly Column[];
  label: string;
  /** What stands below the first and the last column. */
  from: string;
  to: string;
  format?: (value: number) => string;
}) {
  const { columns, label, from, to, format = formatCount } = props;
  const max = Math.max(...columns.map(({ value }) => value), 0);
  const width = 100 / Math.max(1, columns.length);
  const gap = Math.min(0.6, width * 0.15);
  return (
    <figure class="columns">
      <svg
        viewBox="0 0 100 40"
        preserveAspectRatio="none"
        role="img"
        aria-label={`${label}, at most ${format(max)}`}
      >
        {columns.map(({ label: name, value, bad = 0 }, index) => {
          const height = max === 0 ? 0 : Math.max(value > 0 ? 0.8 : 0, (value / max) * 40);
          const badHeight = value === 0 ? 0 : (bad / value) * height;
          const x = index * width + gap / 2;
          return (
            <g key={name}>
              <title>{`${name}: ${format(value)}`}</title>
              <rect class="column" x={x} y={40 - height} width={width - gap} height={height - badHeight} />
              {bad > 0 && (
                <rect class="column is-bad" x={x} y={40 - badHeight} width={width - gap} height={badHeight} />
              )}
              <rect class="column-ground" x={index * width} y={0} width={width} height={40} />
            </g>
          );
        })}
      </svg>
      <figcaption>
        <span>{from}</span>
        <span class="quiet">max {format(max)}</span>
        <span>{to}</span>
      </figcaption>
    </figure>
  );
}

/** Names with bars behind their counts. */
export function BarList(props: {
  bars: readonly {
    label: string;
    value: number;
    colour?: string;
    onChoose?: () => void;
    isChosen?: boolean;
  }[];
  format?: (value: number) => string;
  max?: number;
}) {
  const { bars, format = formatCount } = props;
  const max = props.max ?? Math.max(...bars.map(({ value }) => value), 1e-9);
  return (
    <ul class="bars">
      {bars.map(({ label, value, colour, onChoose, isChosen }) => {
        const content = (
          <>
            <svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
              <rect width={Math.max(0, Math.min(100, (value / max) * 100))} height="10" fill={colour} />
            </svg>
            <span class="bar-label">{label}</span>
            <span class="bar-value">{format(value)}</span>
          </>
        );
        return (
          <li key={label}>
            {onChoose ? (
              <button type="button" class="bar-row" aria-pressed={isChosen ?? false} onClick={onChoose}>
                {content}
              </button>
            ) : (
              <span class="bar-row">{content}</span>
            )}
          </li>
        );
      })}
    </ul>
  );
}

export interface Part {
  name: string;
  ms: number;
}

/** One bar of parts that follow each other. */
export function PartsBar({ parts, label }: { parts: readonly Part[]; label: string }) {
  const total = parts.reduce((sum, { ms }) => sum + ms, 0);
  let at = 0;
  return (
    <div class="parts">
      <svg
        viewBox="0 0 100 10"
        preserveAspectRatio="none"
        role="img"
        aria-label={`${label}: ${formatDuration(total)}`}
      >
        {parts.map(({ name, ms }) => {
          const width = total === 0 ? 0 : (ms / total) * 100;
          const x = at;
          at += width;
          return (
            <rect key={name} class={`part-${name}`} x={x} width={width} height="10">
              <title>{`${name}: ${formatDuration(ms)}`}</title>
            </rect>
          );
        })}
      </svg>
      <dl>
        {parts.map(({ name, ms }) => (
          <div key={name}>
            <dt>
              <svg viewBox="0 0 10 10" width="10" height="10" aria-hidden="true">
                <rect class={`part-${name}`} width="10" height="10" rx="2" />
              </svg>
              {name}
            </dt>
            <dd>{formatDuration(ms)}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

export function partsOfTimings(timings: Timings): Part[] {
  return [
    { name: "queue", ms: timings.queue_ms },
    { name: "read", ms: timings.read_ms },
    { name: "preprocess", ms: timings.preprocess_ms },
    { name: "infer", ms: timings.infer_ms },
    { name: "postprocess", ms: timings.postprocess_ms },
  ];
}

/** A number with its name below. */
export function Figure({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div class="figure">
      <span class="figure-value">{children}</span>
      <span class="figure-name">{name}</span>
    </div>
  );
}
