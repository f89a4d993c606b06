/** All models: state, queue, rate, batch size and latency of the last minutes. */
import { useAnswer } from "../api.ts";
import type { Model } from "../answers.ts";
import type { StatisticsPoint } from "../../core/modelStatus.ts";
import { formatCount, formatDuration, formatRate, plural } from "../format.ts";
import { routeTo } from "../route.ts";
import { fillStatistics } from "../statistics.ts";
import { Figure, Sparkline } from "../parts/charts.tsx";
import { ModelState, stateOf } from "../parts/modelState.tsx";
import { ErrorNote, Loading, StatusMark } from "../parts/states.tsx";

export function ModelsPage() {
  const { data, error, reload } = useAnswer<{ models: Model[] }>("v1/models", { everyMs: 3000 });
  if (!data) return error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what="the models" />;
  const order = ["failed", "no worker", "loading", "ready"];
  const models = data.models.toSorted((a, b) => order.indexOf(stateOf(a)) - order.indexOf(stateOf(b)));
  return (
    <>
      <div class="page-head">
        <h1>Models</h1>
        {error && <span class="badge is-bad">not up to date: {error.title}</span>}
      </div>
      <div class="cards">
        {models.map((model) => (
          <ModelCard key={model.name} model={model} onLoad={reload} />
        ))}
      </div>
    </>
  );
}

function ModelCard({ model, onLoad }: { model: Model; onLoad: () => void }) {
  const state = stateOf(model);
  return (
    <article class={state === "failed" ? "card is-failed" : "card"}>
      <header class="row">
        <h2>
          <a href={routeTo(["models", model.name])}>{model.name}</a>
        </h2>
        <StatusMark status={state} />
      </header>
      <p class="quiet">
        {model.loader} · {describeEngines(model.engines)}
      </p>
      {state !== "ready" && <ModelState model={model} onLoad={onLoad} />}
      <ModelFigures model={model} />
    </article>
  );
}

/** `2 engines on cpu`, or what is wrong with them. */
export function describeEngines(engines: Model["engines"]): string {
  if (engines.length === 0) return "no engine";
  const devices = [...new Set(engines.map(({ device }) => device))].join(", ");
  const ready = engines.filter(({ state }) => state === "ready").length;
  const count = plural(engines.length, "engine");
  return `${ready === engines.length ? count : `${ready} of ${count} ready`} on ${devices}`;
}

export function ModelFigures({ model }: { model: Model }) {
  const { queue, batch, statistics } = model;
  const points = fillStatistics(statistics, Date.now());
  const last = points.findLast((point) => point.succeeded + point.failed > 0);
  const failed = points.reduce((sum, point) => sum + point.failed, 0);
  return (
    <>
      <div class="figures">
        <Figure name="waiting">{formatCount(queue.waiting + queue.delayed)}</Figure>
        <Figure name="running">{formatCount(queue.running)}</Figure>
        <Figure name="oldest wait">
          {queue.oldest_wait_seconds ? formatDuration(queue.oldest_wait_seconds * 1000) : "–"}
        </Figure>
        <Figure name="batch size">
          {last?.mean_batch_size?.toFixed(1) ?? "–"}{" "}
          <span class="quiet">of {batch.in_use ?? batch.max_batch_size}</span>
        </Figure>
        <Figure name="failed, 15 min">
          <span class={failed > 0 ? "is-bad-text" : ""}>{formatCount(failed)}</span>
        </Figure>
      </div>
      {last ? (
        <Trends points={points} seconds={statistics.interval_seconds} last={last} />
      ) : (
        <p class="quiet">Nothing ended in the last 15 minutes.</p>
      )}
    </>
  );
}

/** The last 15 minutes as lines, with the last values that there are. */
function Trends(props: { points: readonly StatisticsPoint[]; seconds: number; last: StatisticsPoint }) {
  const { points, seconds, last } = props;
  const rateOf = ({ succeeded, failed }: StatisticsPoint) => (succeeded + failed) / seconds;
  return (
    <div class="trends">
      <figure>
        <figcaption>
          rate <strong>{formatRate(rateOf(last))}</strong>
        </figcaption>
        <Sparkline values={points.map(rateOf)} label="Predictions a second in the last 15 minutes" />
      </figure>
      <figure>
        <figcaption>
          p50 <strong>{last.p50_ms === null ? "–" : formatDuration(last.p50_ms)}</strong> p95{" "}
          <strong>{last.p95_ms === null ? "–" : formatDuration(last.p95_ms)}</strong>
        </figcaption>
        <Latency points={points} />
      </figure>
    </div>
  );
}

/** Both lines on one scale. */
function Latency({ points }: { points: readonly StatisticsPoint[] }) {
  const max = Math.max(...points.map(({ p95_ms }) => p95_ms ?? 0));
  return (
    <span class="sparks">
      <Sparkline
        values={points.map(({ p95_ms }) => p95_ms)}
        max={max}
        tone="second"
        label="95th percentile of the time in an engine in the last 15 minutes"
      />
      <Sparkline
        values={points.map(({ p50_ms }) => p50_ms)}
        max={max}
        label="Median of the time in an engine in the last 15 minutes"
      />
    </span>
  );
}
