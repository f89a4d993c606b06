/** Bulk runs as rows. */
import type { BulkRun } from "../../core/bulkRun.ts";
import { formatCount, formatDuration, formatRate } from "../format.ts";
import { hasEnded } from "../../core/bulkRun.ts";
import { routeTo } from "../route.ts";
import { Ago, StatusMark } from "./states.tsx";

export function RunTable({ runs }: { runs: readonly BulkRun[] }) {
  return (
    <table class="list">
      <thead>
        <tr>
          <th>Run</th>
          <th>Model</th>
          <th>Status</th>
          <th>Progress</th>
          <th class="number">Failed</th>
          <th class="number">Rate</th>
          <th class="number">Time</th>
          <th>Accepted</th>
        </tr>
      </thead>
      <tbody>
        {runs.map((run) => (
          <Row key={run.id} run={run} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ run }: { run: BulkRun }) {
  const { id, model, status, folder, glob, counts, images_per_second: rate, created_at: at } = run;
  return (
    <tr>
      <td class="main-cell">
        <a class="row-link" href={routeTo(["bulk", id])}>
          {folder ?? "manifest"}
          {glob !== null && <span class="quiet"> {glob}</span>}
        </a>
        <code class="sub">{id}</code>
      </td>
      <td data-name="Model">{model}</td>
      <td>
        <StatusMark status={status} />
      </td>
      <td class="progress-cell">
        <Progress run={run} />
        <span class="sub">
          {formatCount(counts.done)} of {formatCount(counts.total)}
        </span>
      </td>
      <td class={`number ${counts.failed > 0 ? "is-bad-text" : ""}`} data-name="Failed">
        {formatCount(counts.failed)}
      </td>
      <td class="number" data-name="Rate">
        {rate === null ? "–" : formatRate(rate)}
      </td>
      <td class="number" data-name="Time">
        {timeOf(run)}
      </td>
      <td data-name="Accepted">
        <Ago at={at} />
      </td>
    </tr>
  );
}

/** How long it took, or how long it will. */
export function timeOf({ status, started_at: from, finished_at: to, eta_seconds: eta }: BulkRun): string {
  if (hasEnded(status)) return from && to ? formatDuration(Date.parse(to) - Date.parse(from)) : "–";
  return eta === null ? "–" : `${formatDuration(eta * 1000)} left`;
}

/** What succeeded and what failed, of all that there is. */
export function Progress({ run: { counts, status } }: { run: BulkRun }) {
  const total = Math.max(counts.total, 1);
  const good = (counts.succeeded / total) * 100;
  const bad = (counts.failed / total) * 100;
  const isMoving = status === "walking" || status === "queued";
  return (
    <svg
      class={`progress ${isMoving ? "is-waiting" : ""}`}
      viewBox="0 0 100 6"
      preserveAspectRatio="none"
      role="progressbar"
      aria-label="Progress"
      aria-valuemin={0}
      aria-valuemax={counts.total}
      aria-valuenow={counts.done}
    >
      <rect class="progress-good" width={good} height="6" />
      <rect class="progress-bad" x={good} width={bad} height="6" />
    </svg>
  );
}
