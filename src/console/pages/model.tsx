/** One model: to be tried, and all that is known of it. */
import { pathOf, useAnswer } from "../api.ts";
import type { Model } from "../answers.ts";
import { plural } from "../format.ts";
import { routeTo } from "../route.ts";
import { ModelState, stateOf } from "../parts/modelState.tsx";
import { Playground } from "../parts/playground.tsx";
import { ErrorNote, Loading, StatusMark } from "../parts/states.tsx";
import { describeEngines, ModelFigures } from "./models.tsx";

export function ModelPage({ name }: { name: string }) {
  const { data: model, error, reload } = useAnswer<Model>(pathOf(["models", name]), { everyMs: 3000 });
  if (!model) return error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what={name} />;
  const state = stateOf(model);
  return (
    <>
      <div class="page-head">
        <h1>{model.name}</h1>
        <StatusMark status={state} />
        <a href={routeTo(["predictions"], { model: model.name })}>predictions</a>
      </div>
      {state !== "ready" && <ModelState model={model} onLoad={reload} />}
      <Playground model={model} />
      <section class="section">
        <h2>Now</h2>
        <p class="quiet">{describeEngines(model.engines)}</p>
        <ModelFigures model={model} />
      </section>
      <About model={model} />
    </>
  );
}

function About({ model }: { model: Model }) {
  const { loader, labels, facts, notes, tensors, limits, batch } = model;
  const rows: [string, string][] = [
    ["loader", loader],
    ["max_batch_size", String(batch.max_batch_size)],
    ["max_queue_delay_ms", String(batch.max_queue_delay_ms)],
    ["timeout_ms", String(limits.timeout_ms)],
    ["attempts", String(limits.attempts)],
    ["max_queue_length", String(limits.max_queue_length)],
    ["result_ttl_seconds", String(limits.result_ttl_seconds)],
    ...Object.entries(facts ?? {}),
  ];
  return (
    <section class="section">
      <h2>About this model</h2>
      {(notes ?? []).map((note) => (
        <p key={note} class="note">
          {note}
        </p>
      ))}
      <dl class="facts">
        {rows.map(([key, value]) => (
          <div key={key}>
            <dt>{key}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {labels !== null && labels.length > 0 && (
        <details>
          <summary>{plural(labels.length, "label")}</summary>
          <p class="labels">{labels.join(", ")}</p>
        </details>
      )}
      {tensors && (
        <details>
          <summary>Tensors</summary>
          <ul class="plain-list">
            {[
              ...tensors.inputs.map((each) => ["in", each] as const),
              ...tensors.outputs.map((each) => ["out", each] as const),
            ].map(([way, { name, type, shape }]) => (
              <li key={`${way} ${name}`}>
                <span class="quiet">{way}</span> <code>{name}</code> {type} [{shape.join(", ")}]
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}
