/** The webhook of a bulk run's end. */
import type { Deliveries } from "../queue/deliveries.ts";
import type { OnRunEnded } from "./runs.ts";

/** A run that fails tells nobody: its operator finds out why and resumes it. */
export function notifyBulkRunEnded(deliveries: Deliveries): OnRunEnded {
  return async (run, { webhook }) => {
    if (!webhook || (run.status !== "completed" && run.status !== "cancelled")) return;
    const timestamp = run.finished_at ?? new Date().toISOString();
    // The first end's time stays, so that this is sent once however often the run is ended; a resumed run ends anew.
    const id = `msg_${run.id}_${Date.parse(timestamp)}`;
    await deliveries.send(webhook, { type: `bulk.${run.status}`, timestamp, data: run }, id);
  };
}
