/** The api, and its Express app that doesn't listen: headers, the table of routes, the pages, the errors. */
import { orLast, rememberBriefly } from "../core/remember.ts";
import { setMaxListeners } from "node:events";
import { IncomingMessage, ServerResponse } from "node:http";
import { createRequire } from "node:module";
import { Socket } from "node:net";
import { dirname } from "node:path";
import express, { type Express, type RequestHandler } from "express";
import helmet from "helmet";
import type { Logger } from "pino";
import type { BulkRuns } from "../bulk/runs.ts";
import type { Config } from "../config/schema.ts";
import { NotFoundError, PredictionNotFoundError } from "../errors.ts";
import { isPredictionId } from "../queue/names.ts";
import type { Predictions } from "../queue/predictions.ts";
import { HEARTBEAT_INTERVAL_MS } from "../queue/workerReports.ts";
import type { Api, Protocol, Route } from "./api.ts";
import { authorize } from "./authorize.ts";
import { checkHost, checkOrigin, shareWithOrigins } from "./browsers.ts";
import { serveConsole } from "./console.ts";
import { MIN_RATE_SETTING } from "./body/read.ts";
import { refuseExcess } from "./connections.ts";
import { findPublicPath } from "./publicPath.ts";
import { getDocsScript, getIcon, ICON_PATH, siteRoutes } from "./site.ts";
import { createMetrics } from "./metrics.ts";
import { observeRequests } from "./observe.ts";
import { createProblemHandler, encodeErrors, MethodNotAllowedError } from "./problems.ts";
import { healthRoutes } from "./health.ts";
import { formatJson } from "../core/json.ts";

const DASHBOARD_PATH = "/dashboard";

export interface AppOptions {
  config: Config;
  predictions: Predictions;
  bulk: BulkRuns;
  protocols: readonly Protocol[];
  log: Logger;
  /** Aborted to end every wait. Default: never. */
  closing?: AbortSignal;
}

/** What handlers and protocols share. */
export function createApi(options: AppOptions): Api {
  const { config, predictions, bulk, log, closing = new AbortController().signal } = options;
  // Everyone who waits listens to it.
  setMaxListeners(0, closing);
  const table = tableOfRoutes(config, options.protocols);
  return {
    config,
    predictions,
    bulk,
    log,
    metrics: createMetrics(config, predictions),
    recentReports: rememberBriefly(
      orLast(() => predictions.workers()),
      HEARTBEAT_INTERVAL_MS,
    ),
    openapi: onDemand(async () => (await import("./openapi.ts")).createOpenApi(table, config)),
    closing,
  };
}

/** What few ask for: its packages would take a quarter of the time in which an api starts. */
function onDemand<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => (made ??= make());
}

/** Express's own would change numbers that JavaScript can't hold, and looks for what JSON answers don't have (an ETag). */
function sendJson(this: express.Response, body?: unknown): express.Response {
  const bytes = Buffer.from(formatJson(body));
  if (!this.hasHeader("Content-Type")) this.setHeader("Content-Type", "application/json; charset=utf-8");
  this.setHeader("Content-Length", bytes.length);
  return this.end(bytes);
}

export function createApp(api: Api, protocols: readonly Protocol[]): Express {
  const { config, predictions, bulk, log } = api;
  const table = tableOfRoutes(config, protocols);
  const app = express();
  app.disable("x-powered-by");
  // Nobody polls with If-None-Match, and a digest of every answer costs.
  app.disable("etag");
  app.set(MIN_RATE_SETTING, config.min_upload_bytes_per_second);
  app.set("trust proxy", config.trusted_proxies);
  app.response.json = sendJson;
  app.use(securityHeaders());
  app.use(findPublicPath(config));
  app.use(observeRequests(api, DASHBOARD_PATH));
  app.use(refuseExcess());
  for (const { errors } of protocols) {
    if (!errors) continue;
    app.use(errors.below, (_req, res, next) => {
      encodeErrors(res, errors.encode);
      next();
    });
  }
  app.use(shareWithOrigins(config));
  app.use(checkHost(config));
  if (config.console.enabled) app.use(serveConsole());
  app.use(authorize(config.api_keys));
  app.use(checkOrigin(config));

  app.param("model", (_req, _res, next, name: string) => {
    predictions.model(name);
    next();
  });
  app.param("id", (req, _res, next, id: string) => {
    // What can't be an id could be another of the queue's keys. PUT says what is wrong with it.
    if (req.method !== "PUT" && !isPredictionId(id)) {
      throw new PredictionNotFoundError(`there is no prediction ${JSON.stringify(id.slice(0, 200))}`);
    }
    next();
  });
  app.param("Model", (req, _res, next, name: string) => {
    // Whatever else has one part is no model's and ends in the 404 below.
    if (req.method === "POST" || Object.hasOwn(config.models, name)) next();
    else next("route");
  });
  const dashboard = onDemand(async () =>
    (await import("./dashboard.ts")).createDashboard(predictions, bulk, DASHBOARD_PATH),
  );
  app.use(DASHBOARD_PATH, async (req, res, next) => (await dashboard())(req, res, next));
  for (const path of new Set(table.map((route) => route.path))) {
    const ofPath = table.filter((route) => route.path === path);
    for (const { method, handler } of ofPath) {
      app[method](expressPath(path), (req, res) => handler(api, req, res));
    }
    app.all(expressPath(path), refuseMethod(ofPath));
  }

  app.get("/docs/start.js", getDocsScript);
  app.get(ICON_PATH, getIcon);
  for (const file of ["swagger-ui.css", "swagger-ui-bundle.js"]) {
    app.get(`/docs/${file}`, (_req, res) => res.sendFile(file, { root: packageFolder("swagger-ui-dist") }));
  }
  app.use((req) => {
    throw new NotFoundError(`there is no ${req.method} ${req.path}; GET /openapi.json lists what there is`);
  });
  app.use(createProblemHandler(log));
  return app;
}

/** Every route of the api: its own, then those of the protocols in their order. */
export function tableOfRoutes(config: Config, protocols: readonly Protocol[]): readonly Route[] {
  return [...healthRoutes, ...siteRoutes, ...protocols.flatMap((protocol) => protocol.routes(config))];
}

function expressPath(path: string): string {
  return path.replaceAll(/\{(\w+)\}/g, ":$1");
}

function refuseMethod(routesOfPath: readonly Route[]): RequestHandler {
  const methods = routesOfPath.map(({ method }) => method.toUpperCase());
  const allowed = [...methods, ...(methods.includes("GET") ? ["HEAD"] : []), "OPTIONS"].join(", ");
  return (req, res) => {
    res.set("Allow", allowed);
    if (req.method === "OPTIONS") res.status(204).end();
    else throw new MethodNotAllowedError(`${req.path} takes ${allowed}, got ${req.method}`);
  };
}

/**
 * No part of the pages comes from elsewhere. TLS is a proxy's, so nothing here may insist on it. Every answer has the same
 * headers, so they are made once.
 */
function securityHeaders(): RequestHandler {
  const setAll = helmet({
    strictTransportSecurity: false,
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'self'"],
        styleSrc: ["'self'", "'unsafe-inline'"],
        imgSrc: ["'self'", "data:"],
        fontSrc: ["'self'", "data:"],
        objectSrc: ["'none'"],
        baseUri: ["'self'"],
        frameAncestors: ["'self'"],
      },
    },
  });
  const answer = new ServerResponse(new IncomingMessage(new Socket()));
  setAll(answer.req, answer, () => {});
  const headers = Object.entries(answer.getHeaders()) as [string, string][];
  return (_req, res, next) => {
    for (const [name, value] of headers) res.setHeader(name, value);
    next();
  };
}

function packageFolder(name: string): string {
  return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
}
