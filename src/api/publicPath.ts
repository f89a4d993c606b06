/**
 * The path under which clients reach the api, where a proxy serves it below one: of X-Forwarded-Prefix, where a trusted
 * proxy sends it, else of public_url. Requests may come with it or without; links go out with it.
 */
import type { Request, RequestHandler, Response } from "express";
import { pathOfUrl, type Config } from "../config/schema.ts";
import { withPublicPath } from "./publicLinks.ts";

/** Cleared of everything that could leave its place in a page or a header. */
const PREFIX = /^(\/[\w.~-]+)+$/;

export function findPublicPath(config: Config): RequestHandler {
  const configured = pathOfUrl(config.public_url);
  return (req, res, next) => {
    const path = forwardedPrefix(req) ?? configured;
    if (path === "") return next();
    res.locals["publicPath"] = path;
    if (req.path === path && req.method === "GET") return res.redirect(308, `${path}/`);
    if (req.url.startsWith(`${path}/`)) req.url = req.url.slice(path.length);
    linkUnder(res, path);
    next();
  };
}

/** Such as `/infermill`; empty where the api is reached at the root. */
export function publicPathOf(res: Response): string {
  return (res.locals["publicPath"] as string | undefined) ?? "";
}

/** Whether the connection comes from one of trusted_proxies. */
function comesFromProxy(req: Request): boolean {
  const trusts = req.app.get("trust proxy fn") as (address: string, hop: number) => boolean;
  return trusts(req.socket.remoteAddress ?? "", 0);
}

function forwardedPrefix(req: Request): string | undefined {
  const [given = ""] = (req.get("X-Forwarded-Prefix") ?? "").split(",");
  const path = given.trim().replace(/\/+$/, "");
  return PREFIX.test(path) && comesFromProxy(req) ? path : undefined;
}

/** What is answered as JSON from now on has its links below the path. */
function linkUnder(res: Response, path: string): void {
  const json = res.json.bind(res);
  res.json = (body?: unknown) => {
    const location = res.get("Location");
    if (location?.startsWith("/")) res.set("Location", path + location);
    return json(withPublicPath(body, path));
  };
}
