/** Predictions as rows, each with its small picture. */
import { resolveLink } from "../api.ts";
import type { PredictionEntry } from "../../core/prediction.ts";
import { formatDuration } from "../format.ts";
import { routeTo } from "../route.ts";
import { Ago, StatusMark } from "./states.tsx";

export function PredictionTable({ predictions }: { predictions: readonly PredictionEntry[] }) {
  return (
    <table class="list">
      <thead>
        <tr>
          <th>
            <span class="hidden">Picture</span>
          </th>
          <th>Prediction</th>
          <th>Model</th>
          <th>Status</th>
          <th class="number">Wait</th>
          <th class="number">Run</th>
          <th class="number">Batch</th>
          <th>Accepted</th>
        </tr>
      </thead>
      <tbody>
        {predictions.map((prediction) => (
          <Row key={`${prediction.model}/${prediction.id}`} prediction={prediction} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ prediction }: { prediction: PredictionEntry }) {
  const {
    id,
    model,
    status,
    wait_ms: wait,
    run_ms: run,
    batch_size: batch,
    created_at: at,
    links,
    error,
  } = prediction;
  return (
    <tr>
      <td class="thumb">
        {links.thumbnail ? (
          <img src={resolveLink(links.thumbnail)} alt="" loading="lazy" />
        ) : (
          <span class="no-thumb" />
        )}
      </td>
      <td class="main-cell">
        <a class="row-link" href={routeTo(["predictions", model, id])}>
          <code>{id}</code>
        </a>
        {error && <span class="row-error">{error.title}</span>}
      </td>
      <td data-name="Model">{model}</td>
      <td>
        <StatusMark status={status} />
      </td>
      <td class="number" data-name="Wait">
        {wait === null ? "–" : formatDuration(wait)}
      </td>
      <td class="number" data-name="Run">
        {run === null ? "–" : formatDuration(run)}
      </td>
      <td class="number" data-name="Batch">
        {batch ?? "–"}
      </td>
      <td data-name="Accepted">
        <Ago at={at} />
      </td>
    </tr>
  );
}
