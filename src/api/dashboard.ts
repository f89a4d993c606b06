/** bull-board with the queues of every model, the bulk runs and the webhook deliveries. */
import { bulkRunLinks, deliveryLinks, predictionLinks } from "../core/links.ts";
import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { ExpressAdapter } from "@bull-board/express";
import type { Express, RequestHandler } from "express";
import type { BulkRuns } from "../bulk/runs.ts";
import { partsOfBulkPredictionId } from "../queue/names.ts";
import type { Predictions } from "../queue/predictions.ts";
import { BulkRunsAdapter } from "./bulkRunsAdapter.ts";
import { withPublicPath } from "./publicLinks.ts";
import { ICON_PATH } from "./site.ts";

/** Longer texts in job data are shown shortened: masks in a request dictionary can be megabytes. */
const MAX_TEXT = 500;

export function createDashboard(predictions: Predictions, bulk: BulkRuns, basePath: string): RequestHandler {
  const serverAdapter = new ExpressAdapter().setBasePath(basePath);
  const queues = [...predictions.queues].map(([model, queue]) => {
    const adapter = new BullMQAdapter(queue, {
      // To retry an ended prediction would end it twice, and its inputs are gone; to remove one that waits would lose
      // it. Predictions are cancelled through the api.
      readOnlyMode: true,
      allowRetries: false,
      externalJobUrl: ({ id }) => ({
        href: predictionLinks(model, String(id)).self,
        displayText: "prediction",
      }),
    });
    adapter.setFormatter("data", shorten);
    adapter.setFormatter("returnValue", shorten);
    return adapter;
  });
  const bulkQueues = [...predictions.bulkQueues].map(([model, queue]) => {
    const adapter = new BullMQAdapter(queue, {
      readOnlyMode: true,
      allowRetries: false,
      // Names must differ, and this one has the model's.
      prefix: "bulk ",
      displayName: `${model} (bulk)`,
      externalJobUrl: ({ id }) => {
        const { run } = partsOfBulkPredictionId(String(id));
        return { href: bulkRunLinks(run).self, displayText: "bulk run" };
      },
    });
    adapter.setFormatter("data", shorten);
    adapter.setFormatter("returnValue", shorten);
    return adapter;
  });
  const deliveries = [...predictions.deliveries.queues].map(([model, queue]) => {
    const adapter = new BullMQAdapter(queue, {
      // They are replayed through the api, which gives them all of their attempts again.
      readOnlyMode: true,
      allowRetries: false,
      ...(model === undefined
        ? { displayName: "webhooks" }
        : { prefix: `${model} `, displayName: `${model} (webhooks)` }),
      externalJobUrl: ({ id }) => ({
        href: deliveryLinks(String(id)).self,
        displayText: "delivery",
      }),
    });
    adapter.setFormatter("data", shorten);
    return adapter;
  });
  createBullBoard({
    queues: [...queues, ...bulkQueues, new BulkRunsAdapter(bulk), ...deliveries],
    serverAdapter,
    options: {
      uiConfig: {
        boardTitle: "infermill",
        favIcon: { default: ICON_PATH, alternative: ICON_PATH },
        hideDocsLink: true,
        miscLinks: [{ text: "API", url: "/docs" }],
      },
    },
  });
  const app = serverAdapter.getRouter() as Express & { engines: { ".ejs": Engine } };
  app.disable("x-powered-by");
  const render = app.engines[".ejs"];
  app.engine("ejs", (file, options, done) =>
    render(file, belowPublicPath(options), (error, html) => done(error, html?.replaceAll(FOREIGN_LINK, ""))),
  );
  return app;
}

/** The page's own values, as bull-board gives them to its template, below the path that the api is reached under. */
function belowPublicPath(options: object): object {
  const page = options as PageOptions;
  const path = page._locals?.publicPath ?? "";
  const uiConfig = JSON.parse(page.uiConfig) as object;
  const [favIconDefault, favIconAlternative] = [path + page.favIconDefault, path + page.favIconAlternative];
  const favIcon = { default: favIconDefault, alternative: favIconAlternative };
  return {
    ...page,
    basePath: path + page.basePath,
    favIconDefault,
    favIconAlternative,
    // As bull-board does it: nothing in it may end the element that it stands in.
    uiConfig: JSON.stringify({ ...withPublicPath(uiConfig, path), favIcon }).replaceAll("<", "\\u003c"),
  };
}

interface PageOptions {
  basePath: string;
  favIconDefault: string;
  favIconAlternative: string;
  /** JSON. */
  uiConfig: string;
  _locals?: { publicPath?: string };
}

type Engine = Parameters<Express["engine"]>[1];

/** The page asks Google for its fonts, which this api's pages must not; it looks well without. */
const FOREIGN_LINK = /<link [^>]*href="https?:[^>]*>/g;

function shorten(value: unknown): unknown {
  if (typeof value === "string") {
    return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}… (${value.length} characters)` : value;
  }
  if (Array.isArray(value)) return value.map(shorten);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shorten(inner)]));
}
