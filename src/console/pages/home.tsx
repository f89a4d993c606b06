/** The start: a zone to drop a picture on. */
import { useState } from "preact/hooks";
import { pathOf, useAnswer } from "../api.ts";
import type { BulkRun } from "../../core/bulkRun.ts";
import type { Model, PredictionEntries } from "../answers.ts";
import { takesPictures } from "../inputs.ts";
import { routeTo } from "../route.ts";
import { Select } from "../parts/fields.tsx";
import { Playground } from "../parts/playground.tsx";
import { PredictionTable } from "../parts/predictionTable.tsx";
import { RunTable } from "../parts/runTable.tsx";
import { ErrorNote, Loading, Message } from "../parts/states.tsx";
import { ModelState, stateOf } from "../parts/modelState.tsx";

export function HomePage() {
  const { data, error, reload } = useAnswer<{ models: Model[] }>("v1/models", {
    everyMs: 3000,
    isDone: ({ models }) => models.every(({ ready }) => ready),
  });
  const [chosen, setChosen] = useState<string>();
  if (!data) return error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what="the models" />;
  const { models } = data;
  const model = models.find(({ name }) => name === chosen) ?? firstToTry(models);
  if (!model) {
    return (
      <Message title="No model is configured">
        <p>
          Name one in the configuration's <code>models</code> and start infermill again.
        </p>
      </Message>
    );
  }
  return (
    <>
      <div class="page-head">
        <h1>{takesPictures(model) ? "Drop a picture, see what is in it" : "Try a model"}</h1>
        <Select
          label="Model"
          value={model.name}
          options={models.map(({ name, ready }) => [name, ready ? name : `${name} (not ready)`] as const)}
          onChoose={setChosen}
        />
      </div>
      {stateOf(model) !== "ready" && <ModelState model={model} />}
      <Playground key={model.name} model={model} isStart />
      <LastPredictions />
      <LastRuns />
    </>
  );
}

/** A ready one that finds things in pictures, else whatever is ready. */
function firstToTry(models: readonly Model[]): Model | undefined {
  const ready = models.filter((model) => model.ready);
  const isEasy = (model: Model) => takesPictures(model) && (model.required_keys ?? []).length === 0;
  return (
    ready.find((model) => isEasy(model) && model.labels?.length) ??
    ready.find(isEasy) ??
    ready[0] ??
    models[0]
  );
}

function LastPredictions() {
  const { data } = useAnswer<PredictionEntries>(pathOf(["predictions"], { limit: 5 }), { everyMs: 3000 });
  if (!data || data.predictions.length === 0) return null;
  return (
    <section class="section">
      <h2>
        Last predictions <a href={routeTo(["predictions"])}>all</a>
      </h2>
      <PredictionTable predictions={data.predictions} />
    </section>
  );
}

function LastRuns() {
  const { data } = useAnswer<{ runs: BulkRun[] }>(pathOf(["bulk"], { limit: 3 }), { everyMs: 5000 });
  if (!data || data.runs.length === 0) return null;
  return (
    <section class="section">
      <h2>
        Last bulk runs <a href={routeTo(["bulk"])}>all</a>
      </h2>
      <RunTable runs={data.runs} />
    </section>
  );
}
