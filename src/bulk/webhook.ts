/** The webhook of a bulk run's end. */
import type { Deliveries } from "../queue/deliveries.ts";
import type { OnRunEnded } from "./runs.ts";

export function notifyBulkRunEnded(deliveries: Deliveries): OnRunEnded {
  return async (run, { webhook }) => {
    const { status } = run;
    if (!webhook || (status !== "completed" && status !== "cancelled" && status !== "failed")) return;
    const timestamp = run.finished_at ?? new Date().toISOString();
    // The first end's time stays, so that this is sent once however often the run is ended; a resumed run ends anew.
    const id = `msg_${run.id}_${Date.parse(timestamp)}`;
    await deliveries.send(webhook, { type: `bulk.${status}`, timestamp, data: run }, id);
  };
}
