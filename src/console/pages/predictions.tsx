/** All predictions as they come and end, by model and status. */
import { pathOf, useAnswer, usePages } from "../api.ts";
import type { Model, PredictionEntries } from "../answers.ts";
import type { PredictionEntry } from "../../core/prediction.ts";
import { STATUSES } from "../../core/prediction.ts";
import { routeTo } from "../route.ts";
import { Select } from "../parts/fields.tsx";
import { PredictionTable } from "../parts/predictionTable.tsx";
import { ErrorNote, Loading, Message, MoreButton } from "../parts/states.tsx";

const PAGE_SIZE = 50;

export function PredictionsPage({ query }: { query: URLSearchParams }) {
  const model = query.get("model") ?? "";
  const status = query.get("status") ?? "";
  const pages = usePages<PredictionEntries, PredictionEntry>(
    (cursor) => pathOf(["predictions"], { model, status, limit: PAGE_SIZE, cursor }),
    (page) => page.predictions,
    (each) => `${each.model}/${each.id}`,
    { everyMs: 2000 },
  );
  const { data, items: predictions, error, reload } = pages;
  const models = useAnswer<{ models: Model[] }>("v1/models").data?.models ?? [];
  const choose = (key: string, value: string) => {
    location.hash = routeTo(["predictions"], { model, status, [key]: value });
  };
  return (
    <>
      <div class="page-head">
        <h1>Predictions</h1>
        <Select
          label="Model"
          value={model}
          options={[["", "all"], ...models.map(({ name }) => name)]}
          onChoose={(name) => choose("model", name)}
        />
        <Select
          label="Status"
          value={status}
          options={[["", "all"], ...STATUSES]}
          onChoose={(each) => choose("status", each)}
        />
        {error && data && <span class="badge is-bad">not up to date: {error.title}</span>}
      </div>
      {!data && (error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what="the predictions" />)}
      {data && predictions.length === 0 && <NoPredictions isFiltered={model !== "" || status !== ""} />}
      {predictions.length > 0 && <PredictionTable predictions={predictions} />}
      <MoreButton label="Older ones" {...pages} />
    </>
  );
}

function NoPredictions({ isFiltered }: { isFiltered: boolean }) {
  return isFiltered ? (
    <Message title="No such predictions">
      <a href={routeTo(["predictions"])}>Show all</a>
    </Message>
  ) : (
    <Message title="No predictions yet">
      <p>
        <a href={routeTo([])}>Drop a picture</a>, or call the <a href="docs">API</a>.
      </p>
    </Message>
  );
}
