/** What came out of a bulk run, as lists and charts. */
import type { BulkSummary } from "../../core/bulkSummary.ts";
import { formatCount, formatDuration, formatRate, plural } from "../format.ts";
import { routeTo } from "../route.ts";
import { BarList, Columns, PartsBar } from "./charts.tsx";

/** By reason, the most frequent first. */
export function Failures({ summary: { run, failures, more_failures: more } }: { summary: BulkSummary }) {
  if (failures.length === 0) return null;
  return (
    <section class="section">
      <h2>
        Failures <a href={routeTo(["bulk", run.id], { status: "failed" })}>show them</a>
      </h2>
      <ul class="failures">
        {failures.map(({ code, title, reason, count, examples }) => (
          <li key={`${code} ${reason}`}>
            <details>
              <summary>
                <strong class="is-bad-text">{formatCount(count)}</strong> {title}: {reason}
              </summary>
              <ul class="plain-list">
                {examples.map((example) => (
                  <li key={example.index}>
                    <a href={routeTo(["bulk", run.id], { entry: String(example.index) })}>
                      {nameOf(example)}
                    </a>{" "}
                    <span class="quiet">{example.detail}</span>
                  </li>
                ))}
              </ul>
            </details>
          </li>
        ))}
      </ul>
      {more > 0 && <p class="quiet">and {formatCount(more)} for other reasons</p>}
    </section>
  );
}

/** What an entry is called. */
export function nameOf({
  index,
  path,
  custom_id,
}: {
  index: number;
  path?: string;
  custom_id?: string;
}): string {
  return path ?? custom_id ?? `entry ${index}`;
}

export function RunCharts({ summary, query }: { summary: BulkSummary; query: URLSearchParams }) {
  return (
    <div class="charts">
      <Labels summary={summary} chosen={query.get("label")} query={query} />
      <Scores summary={summary} />
      <Rate summary={summary} />
      <Stages summary={summary} />
      <Slowest summary={summary} />
      <LeftOut summary={summary} />
      <UsedConfiguration summary={summary} />
    </div>
  );
}

const MAX_LABELS = 12;

function Labels(props: { summary: BulkSummary; chosen: string | null; query: URLSearchParams }) {
  const { run, labels, more_labels: more } = props.summary;
  if (labels.length === 0) return null;
  const toBar = ({ label, count, colour }: BulkSummary["labels"][number]) => ({
    label,
    value: count,
    colour,
    isChosen: label === props.chosen,
    onChoose: () => {
      const query = { ...Object.fromEntries(props.query), entry: undefined };
      location.hash = routeTo(["bulk", run.id], {
        ...query,
        label: label === props.chosen ? undefined : label,
      });
    },
  });
  const rest = labels.slice(MAX_LABELS);
  return (
    <section class="card">
      <h2>Labels</h2>
      <BarList bars={labels.slice(0, MAX_LABELS).map(toBar)} />
      {rest.length > 0 && (
        <details>
          <summary>{plural(rest.length + more, "more label")}</summary>
          <BarList bars={rest.map(toBar)} max={labels[0]!.count} />
          {more > 0 && <p class="quiet">and {formatCount(more)} more</p>}
        </details>
      )}
    </section>
  );
}

function Scores({ summary: { scores } }: { summary: BulkSummary }) {
  if (!scores) return null;
  const width = 1 / scores.bins.length;
  const columns = scores.bins.map((value, bin) => ({
    label: `${(bin * width).toFixed(2)} to ${((bin + 1) * width).toFixed(2)}`,
    value,
  }));
  return (
    <section class="card">
      <h2>
        Scores{" "}
        <span class="quiet">
          mean {scores.mean.toFixed(2)}, {scores.min.toFixed(2)} to {scores.max.toFixed(2)}
        </span>
      </h2>
      <Columns columns={columns} label="Findings by score" from="0" to="1" />
    </section>
  );
}

function Rate({ summary: { rate, per_second: mean } }: { summary: BulkSummary }) {
  const { interval_seconds: seconds, points } = rate;
  if (points.length < 2) return null;
  const clock = (time: string) => new Date(time).toLocaleTimeString();
  const columns = points.map(({ at, succeeded, failed }) => ({
    label: clock(at),
    value: (succeeded + failed) / seconds,
    bad: failed / seconds,
  }));
  return (
    <section class="card">
      <h2>Rate {mean !== null && <span class="quiet">mean {formatRate(mean)}</span>}</h2>
      <Columns
        columns={columns}
        label="Entries a second over time"
        from={clock(points[0]!.at)}
        to={clock(points.at(-1)!.at)}
        format={formatRate}
      />
    </section>
  );
}

function Stages({ summary: { stages } }: { summary: BulkSummary }) {
  const inEngine = stages.filter(({ stage }) => stage !== "queue");
  if (inEngine.length === 0) return null;
  return (
    <section class="card">
      <h2>
        Where the time went <span class="quiet">mean of a batch in the engine</span>
      </h2>
      <PartsBar parts={inEngine.map(({ stage, mean_ms }) => ({ name: stage, ms: mean_ms }))} label="Time" />
      <table class="small-table">
        <thead>
          <tr>
            <th>Stage</th>
            <th class="number">p50</th>
            <th class="number">p95</th>
            <th class="number">max</th>
          </tr>
        </thead>
        <tbody>
          {stages.map(({ stage, p50_ms, p95_ms, max_ms }) => (
            <tr key={stage}>
              <td>{stage}</td>
              <td class="number">{formatDuration(p50_ms)}</td>
              <td class="number">{formatDuration(p95_ms)}</td>
              <td class="number">{formatDuration(max_ms)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Slowest({ summary: { run, slowest } }: { summary: BulkSummary }) {
  if (slowest.length === 0) return null;
  return (
    <section class="card">
      <h2>Slowest</h2>
      <ol class="slowest">
        {slowest.slice(0, 8).map((entry) => (
          <li key={entry.index}>
            <a href={routeTo(["bulk", run.id], { entry: String(entry.index) })}>{nameOf(entry)}</a>
            <span>{formatDuration(entry.duration_ms)}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

function LeftOut({ summary: { left_out: groups } }: { summary: BulkSummary }) {
  if (groups.length === 0) return null;
  return (
    <section class="card">
      <h2>Left out</h2>
      <ul class="plain-list">
        {groups.map(({ reason, count, examples }) => (
          <li key={reason}>
            <details>
              <summary>
                {formatCount(count)} {reason.replaceAll("_", " ")}
              </summary>
              <ul class="plain-list">
                {examples.map(({ path, detail }) => (
                  <li key={path}>
                    <code>{path}</code> {detail && <span class="quiet">{detail}</span>}
                  </li>
                ))}
              </ul>
            </details>
          </li>
        ))}
      </ul>
    </section>
  );
}

function UsedConfiguration({ summary: { configuration } }: { summary: BulkSummary }) {
  const { used, request } = configuration;
  const rows: [string, string][] = [
    ["model", configuration.model],
    ...(used
      ? ([
          ["loader", used.loader],
          ["model_path", used.model_path.join(", ")],
          ["device", used.device.join(", ")],
          ["infermill", used.version],
          ...Object.entries(used.settings).map(([key, value]) => [key, String(value)] as const),
        ] as [string, string][])
      : []),
    ...Object.entries(request).map(([key, value]): [string, string] => [
      `request.${key}`,
      JSON.stringify(value),
    ]),
  ];
  return (
    <section class="card">
      <h2>Configuration</h2>
      <dl class="facts">
        {rows
          .filter(([, value]) => value !== "")
          .map(([key, value]) => (
            <div key={key}>
              <dt>{key}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
    </section>
  );
}
