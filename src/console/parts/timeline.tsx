/** A prediction's way: queued, in a batch, in the model. */
import type { Prediction } from "../../core/prediction.ts";
import { formatDuration, formatTime } from "../format.ts";

interface Step {
  name: string;
  at: string | null;
}

/** When each step was reached, and how long after the one before. */
export function Timeline({ prediction }: { prediction: Prediction }) {
  const steps = stepsOf(prediction);
  let before: string | undefined;
  return (
    <ol class="timeline" aria-label="Timeline">
      {steps.map(({ name, at }) => {
        const since = at !== null && before !== undefined ? Date.parse(at) - Date.parse(before) : undefined;
        if (at !== null) before = at;
        return (
          <li key={name} class={at === null ? "is-open" : ""}>
            <span class="timeline-name">{name}</span>
            {at === null ? (
              <span class="quiet">–</span>
            ) : (
              <time dateTime={at} title={formatTime(at)}>
                {since === undefined ? clockOf(at) : `+${formatDuration(since)}`}
              </time>
            )}
          </li>
        );
      })}
    </ol>
  );
}

function stepsOf({ timeline, created_at, started_at, finished_at, status }: Prediction): Step[] {
  const end = { name: ["queued", "running"].includes(status) ? "ended" : status, at: finished_at };
  if (!timeline) return [{ name: "queued", at: created_at }, { name: "taken", at: started_at }, end];
  const steps = [
    { name: "queued", at: timeline.queued_at },
    { name: "taken", at: timeline.taken_at },
    { name: "batch", at: timeline.batch_at },
    { name: "infer", at: timeline.infer_at },
  ];
  // What is not known of one that ended isn't known any more.
  return [...steps.filter(({ at }) => at !== null || finished_at === null), end];
}

function clockOf(time: string): string {
  return new Date(time).toLocaleTimeString();
}
