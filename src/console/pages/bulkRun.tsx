/** One bulk run: how far it is, what failed, what was found, where its time went. */
import { useState } from "preact/hooks";
import { call, isMissing, pathOf, SERVER, useAction, useAnswer, useFollowed } from "../api.ts";
import type { BulkRun } from "../../core/bulkRun.ts";
import type { BulkSummary } from "../../core/bulkSummary.ts";
import { hasEnded } from "../../core/bulkRun.ts";
import { formatCount, formatRate, formatTime, plural } from "../format.ts";
import { routeTo } from "../route.ts";
import { useSession } from "../session.ts";
import { Figure } from "../parts/charts.tsx";
import { Failures, RunCharts } from "../parts/runCharts.tsx";
import { Deliveries } from "../parts/deliveries.tsx";
import { Gallery } from "../parts/gallery.tsx";
import { Progress, timeOf } from "../parts/runTable.tsx";
import { Ago, ConfirmButton, ErrorDetail, ErrorNote, Loading, StatusMark } from "../parts/states.tsx";

export function BulkRunPage({ id, query }: { id: string; query: URLSearchParams }) {
  const path = pathOf(["bulk", id]);
  const { data: run, error, reload } = useFollowed<BulkRun>(path, "progress", hasEnded);
  // It is asked for once more when the run has ended, as `everyMs` changes.
  const summary = useAnswer<BulkSummary>(
    run && `${path}/summary`,
    run && hasEnded(run.status) ? {} : { everyMs: 3000 },
  );
  if (!run) return error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what="the run" />;
  const shown = summary.data;
  return (
    <>
      <div class="page-head">
        <h1>
          {run.folder ?? "manifest"}
          {run.glob && <span class="quiet"> {run.glob}</span>}
        </h1>
        <StatusMark status={run.status} />
        <Actions run={run} onChange={reload} />
      </div>
      <p class="quiet">
        <code>{run.id}</code> · <a href={routeTo(["models", run.model])}>{run.model}</a> · {run.priority}{" "}
        priority · <Ago at={run.created_at} />
        {shown?.configuration.from_command_line && " · from the command line"}
        {limitsOf(run)}
      </p>
      {run.error && <ErrorDetail error={run.error} />}
      <RunProgress run={run} summary={shown} />
      {shown && <Failures summary={shown} />}
      <Deliveries
        path={hasEnded(run.status) ? pathOf(["webhooks", "deliveries"], { run: run.id }) : undefined}
      />
      <Gallery run={run} labels={shown?.labels ?? []} query={query} />
      {shown && <RunCharts summary={shown} query={query} />}
      {summary.error && !isMissing(summary.error) && (
        <ErrorNote error={summary.error} onRetry={summary.reload} />
      )}
    </>
  );
}

/** Runs of an earlier version have none of it. */
function limitsOf({ max_failures: maxFailures, deadline, metadata }: Partial<BulkRun>): string {
  const parts = Object.entries(metadata ?? {}).map(([key, value]) => `${key}: ${value}`);
  if (typeof maxFailures === "number") parts.push(`at most ${plural(maxFailures, "failure")}`);
  if (deadline) parts.push(`until ${formatTime(deadline)}`);
  return parts.map((part) => ` · ${part}`).join("");
}

function RunProgress({ run, summary }: { run: BulkRun; summary: BulkSummary | undefined }) {
  const { counts, images_per_second: rate, status } = run;
  const ended = hasEnded(status);
  return (
    <section class="run-progress">
      {ended && summary && <p class="verdict">{summary.verdict}</p>}
      <Progress run={run} />
      <div class="figures">
        <Figure name={status === "walking" ? "found so far" : "done"}>
          {formatCount(counts.done)} <span class="quiet">of {formatCount(counts.total)}</span>
        </Figure>
        <Figure name="failed">
          <span class={counts.failed > 0 ? "is-bad-text" : ""}>{formatCount(counts.failed)}</span>
        </Figure>
        <Figure name={ended ? "mean rate" : "rate"}>{rate === null ? "–" : formatRate(rate)}</Figure>
        <Figure name={ended ? "time" : "time left"}>{timeOf(run).replace(" left", "")}</Figure>
        {summary && <Figure name="findings">{formatCount(summary.counts.findings)}</Figure>}
        {summary && summary.counts.without_findings > 0 && (
          <Figure name="without any">{formatCount(summary.counts.without_findings)}</Figure>
        )}
        <Figure name="left out">{formatCount(run.skipped.total)}</Figure>
      </div>
    </section>
  );
}

function Actions({ run, onChange }: { run: BulkRun; onChange: () => void }) {
  const { read_only: isReadOnly } = useSession();
  const path = pathOf(["bulk", run.id]);
  const ended = hasEnded(run.status);
  const [isCancelling, setCancelling] = useState(false);
  const cancel = useAction(async () => {
    const { status } = await call<BulkRun>(`${path}/cancel`, { method: "POST" });
    // It ends once what runs at this moment has ended.
    setCancelling(!hasEnded(status));
    onChange();
  });
  const resume = useAction(async () => {
    setCancelling(false);
    await call(`${path}/resume`, { method: "POST" });
    onChange();
  });
  const remove = useAction(async () => {
    await call(path, { method: "DELETE" });
    location.hash = routeTo(["bulk"]);
  });
  const error = cancel.error ?? resume.error ?? remove.error;
  return (
    <>
      {!ended && isCancelling && <span class="quiet">is being cancelled …</span>}
      {!isReadOnly && !ended && !isCancelling && (
        <ConfirmButton
          label="Cancel the run"
          question={`Stop after ${plural(run.counts.done, "entry", "entries")}?`}
          isDisabled={cancel.isBusy}
          onConfirm={() => cancel.run()}
        />
      )}
      {!isReadOnly && (run.status === "cancelled" || run.status === "failed") && (
        <button type="button" disabled={resume.isBusy} onClick={() => resume.run()}>
          Resume
        </button>
      )}
      <Downloads run={run} />
      {!isReadOnly && ended && (
        <ConfirmButton
          label="Delete"
          question="Delete the run and its results?"
          isDisabled={remove.isBusy}
          onConfirm={() => remove.run()}
        />
      )}
      {error && <ErrorNote error={error} />}
    </>
  );
}

function Downloads({ run: { id, status } }: { run: BulkRun }) {
  const linkTo = (format: string) =>
    new URL(pathOf(["bulk", id, "results"], { format, follow: false }), SERVER).href;
  return (
    <span class="downloads" role="group" aria-label="Download the results">
      {["ndjson", "csv", "parquet", "coco"].map((format) => (
        <a
          key={format}
          class="button"
          href={linkTo(format)}
          download={`${id}.${format === "coco" ? "json" : format}`}
        >
          {format === "coco" ? "COCO" : format === "parquet" ? "Parquet" : format.toUpperCase()}
        </a>
      ))}
      {hasEnded(status) && (
        <a class="button" href={new URL(pathOf(["bulk", id, "report"]), SERVER).href}>
          Report
        </a>
      )}
    </span>
  );
}
