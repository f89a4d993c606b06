/** One prediction: its picture, timeline, attempts, answer or error, and its webhook deliveries. */
import { call, pathOf, resolveLink, useAction, useFollowed } from "../api.ts";
import type { Prediction } from "../../core/prediction.ts";
import { isFinal } from "../../core/prediction.ts";
import { plural } from "../format.ts";
import { routeTo } from "../route.ts";
import { picturesOfPrediction, rememberPictures } from "../sentPictures.ts";
import { useSession } from "../session.ts";
import { Deliveries } from "../parts/deliveries.tsx";
import { PredictionResult } from "../parts/result.tsx";
import { Ago, ErrorNote, Loading, StatusMark } from "../parts/states.tsx";
import { Timeline } from "../parts/timeline.tsx";

export function PredictionPage({ model, id }: { model: string; id: string }) {
  const path = pathOf(["models", model, "predictions", id]);
  // Its thumbnail and stack come with a reading only.
  const { data: prediction, error, reload } = useFollowed<Prediction>(path, "status", isFinal);
  if (!prediction)
    return error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what="the prediction" />;
  return (
    <>
      <div class="page-head">
        <h1>
          <code>{prediction.id}</code>
        </h1>
        <StatusMark status={prediction.status} />
        <Actions prediction={prediction} onChange={reload} />
      </div>
      <p class="quiet">
        <a href={routeTo(["models", model])}>{model}</a> · accepted <Ago at={prediction.created_at} /> ·{" "}
        {attemptsOf(prediction)}
      </p>
      <Timeline prediction={prediction} />
      <PredictionResult prediction={prediction} pictures={picturesFor(prediction)} />
      {prediction.stack && (
        <details>
          <summary>Stack of the loader</summary>
          <pre tabIndex={0}>{prediction.stack}</pre>
        </details>
      )}
      <Deliveries path={isFinal(prediction.status) ? `${path}/deliveries` : undefined} />
    </>
  );
}

function attemptsOf({ attempts, status }: Prediction): string {
  if (attempts === 0) return status === "queued" ? "not started yet" : "never started";
  return plural(attempts, "attempt");
}

function picturesFor({ id, links }: Prediction) {
  const sent = picturesOfPrediction(id);
  if (sent.length > 0) return sent;
  return links.thumbnail
    ? [{ src: resolveLink(links.thumbnail), name: "Its picture, small", isSmall: true }]
    : [];
}

function Actions({ prediction, onChange }: { prediction: Prediction; onChange: () => void }) {
  const { read_only: isReadOnly } = useSession();
  const { model, id, status, links } = prediction;
  const cancel = useAction(async () => {
    await call(pathOf(["models", model, "predictions", id]), { method: "DELETE" });
    onChange();
  });
  const again = useAction(async () => {
    const next = await call<Prediction>(resolveLink(links.retry), { method: "POST" });
    rememberPictures(next.id, picturesOfPrediction(id));
    location.hash = routeTo(["predictions", model, next.id]);
  });
  if (isReadOnly) return null;
  return (
    <>
      {!isFinal(status) && (
        <button type="button" disabled={cancel.isBusy} onClick={() => cancel.run()}>
          Cancel
        </button>
      )}
      {isFinal(status) && (
        <button type="button" disabled={again.isBusy} onClick={() => again.run()}>
          Run again
        </button>
      )}
      {cancel.error && <ErrorNote error={cancel.error} />}
      {again.error && <ErrorNote error={again.error} />}
    </>
  );
}
