/** What the api says of itself: its index, its OpenAPI document and the page that shows it, its metrics. */
import { fileURLToPath } from "node:url";
import type { Request, Response } from "express";
import { z } from "zod";
import type { Api, Route } from "./api.ts";
import { formatJson } from "../core/json.ts";
import { jsonAnswer } from "./operations.ts";
import { publicPathOf } from "./publicPath.ts";

/** Browsers that find no link to an icon ask here. */
export const ICON_PATH = "/favicon.ico";

/** A box that was found in a picture. */
const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#10243e"/><rect x="3.5" y="4.5" width="9" height="7" fill="none" stroke="#4fc3f7" stroke-width="1.5"/></svg>`;

const CONFIG_FOLDER = fileURLToPath(new URL("../../config/", import.meta.url));

export function getIcon(_req: Request, res: Response): void {
  res.type("svg").set("Cache-Control", "public, max-age=86400").send(ICON);
}

function getIndex(_api: Api, _req: Request, res: Response): void {
  res.json({
    name: "infermill",
    links: {
      models: "/v1/models",
      bulk: "/v1/bulk",
      webhook_deliveries: "/v1/webhooks/deliveries",
      session: "/v1/session",
      predictions: "/v1/predictions",
      docs: "/docs",
      openapi: "/openapi.json",
      dashboard: "/dashboard",
      live: "/health/live",
      ready: "/health/ready",
      metrics: "/metrics",
    },
  });
}

async function getOpenApi({ openapi }: Api, _req: Request, res: Response): Promise<void> {
  const path = publicPathOf(res);
  const document = await openapi();
  res.type("json").send(formatJson(path === "" ? document : { ...document, servers: [{ url: path }] }));
}

async function getMetrics({ metrics }: Api, _req: Request, res: Response): Promise<void> {
  res.set("Content-Type", metrics.contentType).send(await metrics.expose());
}

function getDocs(_api: Api, _req: Request, res: Response): void {
  const path = publicPathOf(res);
  res.type("html").send(`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>infermill API</title>
    <link rel="icon" href="${path}${ICON_PATH}">
    <link rel="stylesheet" href="${path}/docs/swagger-ui.css">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="${path}/docs/swagger-ui-bundle.js"></script>
    <script src="${path}/docs/start.js"></script>
  </body>
</html>
`);
}

/** A file of its own, because the Content-Security-Policy allows no inline scripts. */
export function getDocsScript(_req: Request, res: Response): void {
  res
    .type("js")
    .send(
      `SwaggerUIBundle({ url: "${publicPathOf(res)}/openapi.json", dom_id: "#swagger-ui", deepLinking: true });\n`,
    );
}

/** A picture to try a model with: "A March Pastoral" by P. H. Emerson, 1888 (Getty's Open Content Program, CC0). */
function getSample(_api: Api, _req: Request, res: Response): void {
  res.set("Cache-Control", "public, max-age=86400").sendFile("sample.jpg", { root: CONFIG_FOLDER });
}

export const siteRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/console/sample.jpg",
    handler: getSample,
    operation: {
      operationId: "getSample",
      summary: "A photo to try a model with",
      tags: ["operations"],
      responses: {
        200: {
          description: "Sheep on a pasture; public domain.",
          content: {
            "image/jpeg": { schema: z.string().meta({ override: { type: "string", format: "binary" } }) },
          },
        },
      },
    },
  },
  {
    method: "get",
    path: "/metrics",
    handler: getMetrics,
    operation: {
      operationId: "getMetrics",
      summary: "Metrics for Prometheus",
      tags: ["operations"],
      responses: {
        200: { description: "Exposition format.", content: { "text/plain": { schema: z.string() } } },
      },
    },
  },
  {
    method: "get",
    path: "/",
    handler: getIndex,
    operation: {
      operationId: "getIndex",
      summary: "Where everything is",
      tags: ["operations"],
      responses: {
        200: jsonAnswer("Links.", z.object({ name: z.string(), links: z.record(z.string(), z.string()) })),
      },
    },
  },
  {
    method: "get",
    path: "/openapi.json",
    handler: getOpenApi,
    operation: {
      operationId: "getOpenApi",
      summary: "This document",
      tags: ["operations"],
      responses: { 200: jsonAnswer("OpenAPI 3.1.", z.looseObject({})) },
    },
  },
  {
    method: "get",
    path: "/docs",
    handler: getDocs,
    operation: {
      operationId: "getDocs",
      summary: "This document as a page to try it on",
      tags: ["operations"],
      responses: { 200: { description: "HTML.", content: { "text/html": { schema: z.string() } } } },
    },
  },
];
