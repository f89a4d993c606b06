/** infermill's own protocol: `/v1/models`, `/v1/bulk`, `/v1/webhooks`. */
import type { Protocol } from "../../api/api.ts";
import { allPredictionsRoutes } from "./allPredictions.ts";
import { bulkRoutes } from "./bulkRuns.ts";
import { modelRoutes } from "./models.ts";
import { outputRoutes } from "./outputs.ts";
import { predictionRoutes } from "./predictions.ts";
import { sessionRoutes } from "./session.ts";
import { webhookRoutes } from "./webhooks.ts";

export const native: Protocol = {
  name: "native",
  routes: () => [
    ...predictionRoutes,
    ...allPredictionsRoutes,
    ...outputRoutes,
    ...webhookRoutes,
    ...bulkRoutes,
    ...modelRoutes,
    ...sessionRoutes,
  ],
};
