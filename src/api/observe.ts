/** What is noted of every HTTP request: its metric, and its span where traces are on. */
import type { Request, RequestHandler, Response } from "express";
import { failSpan, isTracing, startSpan, within, type Span } from "../tracing/tracing.ts";
import type { Api } from "./api.ts";

/** Probes and scrapes come every few seconds, and nobody looks for them in a trace. */
const UNTRACED = /^\/(health\/|metrics$)/;

export function observeRequests({ metrics }: Api, dashboardPath: string): RequestHandler {
  return (req, res, next) => {
    const start = performance.now();
    const isOfDashboard = req.path.startsWith(dashboardPath);
    const span = startRequestSpan(req);
    res.once("close", () => {
      const route = isOfDashboard ? dashboardPath : routeOf(req.route);
      metrics.observeRequest(
        { method: req.method, route: route ?? "other", status: String(res.statusCode) },
        (performance.now() - start) / 1000,
      );
      if (span) endRequestSpan(span, req, res, route);
    });
    if (span) within(span, next);
    else next();
  };
}

function startRequestSpan(req: Request): Span | undefined {
  if (!isTracing() || UNTRACED.test(req.path)) return undefined;
  return startSpan(req.method, {
    kind: "SERVER",
    from: req.headers,
    attributes: {
      "http.request.method": req.method,
      "url.scheme": req.protocol,
      // The query may name a webhook, whose address may be a secret.
      "url.path": req.path,
      "server.address": req.hostname,
      "network.protocol.version": req.httpVersion,
      ...(req.get("User-Agent") && { "user_agent.original": req.get("User-Agent")! }),
    },
  });
}

function endRequestSpan(span: Span, req: Request, res: Response, route: string | undefined): void {
  if (route !== undefined) {
    span.updateName(`${req.method} ${route}`);
    span.setAttribute("http.route", route);
  }
  if (res.headersSent) span.setAttribute("http.response.status_code", res.statusCode);
  if (res.headersSent && res.statusCode >= 500) failSpan(span, String(res.statusCode));
  else if (!res.writableFinished) span.setAttribute("error.type", "client_gone");
  span.end();
}

/** As the table writes it; paths as they came would make a label value each. */
function routeOf(route: unknown): string | undefined {
  const path = (route as { path?: string } | undefined)?.path;
  return path?.replaceAll(/:(\w+)/g, "{$1}");
}
