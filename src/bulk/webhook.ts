/** Word of a bulk run's end, by webhook. */
import type { Deliveries } from "../queue/deliveries.ts";
import type { OnRunEnded } from "./runs.ts";

/** A run that fails tells nobody: its operator finds out why and goes on with it. */
export function tellOfBulkRun(deliveries: Deliveries): OnRunEnded {
  return async (run, { webhook }) => {
    if (!webhook || (run.status !== "completed" && run.status !== "cancelled")) return;
    const timestamp = run.finished_at ?? new Date().toISOString();
    // Under the run's own id it is sent once, however often the run is ended.
    await deliveries.send(webhook, { type: `bulk.${run.status}`, timestamp, data: run }, `msg_${run.id}`);
  };
}
