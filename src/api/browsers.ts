/**
 * What keeps foreign pages from reaching the api through a visitor's browser: under which names it may be called (a
 * page can point a name of its own at this machine), and whose pages may change something. Clients that are no browsers
 * send neither Origin nor Sec-Fetch-Site, and notice nothing.
 */
import { isIP } from "node:net";
import type { Request, RequestHandler, Response } from "express";
import type { Config } from "../config/schema.ts";
import { OPEN_PATHS, signedInBy } from "./authorize.ts";
import { ForeignPageError, HostNotAllowedError, ReadOnlyError } from "./problems.ts";

const CHANGES_NOTHING: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
/** Endings that no one can have in the public DNS: what has one is a name of the network's own. */
const OWN_NETWORK = /\.(localhost|local|internal|home\.arpa|svc)$/;
const SESSION_PATH = "/v1/session";

/**
 * Refuses names that a foreign page could have made. With keys it has no need to: such a page has none, and no cookie
 * goes to another name.
 */
export function checkHost({ api_keys, allowed_hosts, public_url, host }: Config): RequestHandler {
  if (api_keys.length > 0) return (_req, _res, next) => next();
  const ownNames = [host, ...(public_url === undefined ? [] : [new URL(public_url).hostname])];
  const allowed = [...ownNames, ...allowed_hosts].map((name) => name.toLowerCase());
  const names = new Set(allowed);
  const endings = allowed.filter((name) => name.startsWith("*.")).map((name) => name.slice(1));
  return (req, _res, next) => {
    // As it came: what a proxy says of it could be the page's own words.
    const name = nameOf(req.headers.host);
    const isAllowed =
      name === undefined ||
      isIP(name) > 0 ||
      !name.includes(".") ||
      OWN_NETWORK.test(name) ||
      names.has(name) ||
      endings.some((ending) => name.endsWith(ending)) ||
      OPEN_TO_PROBES.has(req.path);
    if (isAllowed) return next();
    throw new HostNotAllowedError(
      `the api may not be called as ${JSON.stringify(name.slice(0, 200))}: name it in allowed_hosts, or as public_url`,
    );
  };
}

const OPEN_TO_PROBES = new Set([...OPEN_PATHS].filter((path) => path.includes("/health/")));

/** Without its port; undefined where an old client sends none. */
function nameOf(header: string | undefined): string | undefined {
  const name = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(header ?? "");
  return header && (name?.[1] ?? name?.[2] ?? header).toLowerCase().replace(/\.$/, "");
}

/** Refuses what a page of another site sends that changes something, and in read-only mode what any page does. */
export function checkOrigin({ public_url, cors_origins, console: { read_only } }: Config): RequestHandler {
  const publicHost = public_url === undefined ? undefined : new URL(public_url).host;
  const isFriend = (origin: string | undefined) => origin !== undefined && cors_origins.includes(origin);
  return (req, res, next) => {
    if (CHANGES_NOTHING.has(req.method)) return next();
    const page = pageOf(req, publicHost);
    const byCookie = signedInBy(res) === "cookie";
    const isOwn = page === "own" || (page === "none" && !byCookie);
    if (!isOwn && (byCookie || !isFriend(req.get("Origin")))) {
      throw new ForeignPageError(
        page === "none"
          ? "a call that is signed in by its cookie must say whose page sends it (Origin or Sec-Fetch-Site); other clients send a key as a bearer token"
          : `a page of another site may change nothing here, got Origin ${JSON.stringify(req.get("Origin") ?? "none")}; cors_origins names those that may, and public_url the address of the api's own pages behind a proxy`,
      );
    }
    if (read_only && (byCookie || page === "own") && !bringsKey(req) && req.path !== SESSION_PATH)
      throw new ReadOnlyError("the pages of this api may only look (console.read_only)");
    next();
  };
}

/** Whose page sends a request; `none` where it is no browser's. */
function pageOf(req: Request, publicHost: string | undefined): "own" | "foreign" | "none" {
  const site = req.get("Sec-Fetch-Site");
  // `none` is the user's own doing, such as an extension's.
  if (site !== undefined) return site === "same-origin" || site === "none" ? "own" : "foreign";
  const origin = req.get("Origin");
  if (origin === undefined) return "none";
  // By host and port: the scheme is often a proxy's.
  const host = URL.canParse(origin) ? new URL(origin).host : undefined;
  const own = [req.headers.host, req.host, publicHost].map((each) => each?.toLowerCase());
  return host !== undefined && own.includes(host) ? "own" : "foreign";
}

function bringsKey(req: Request): boolean {
  return /^bearer /i.test(req.headers.authorization ?? "");
}

const ALLOWED_HEADERS = [
  "Authorization",
  "Content-Type",
  "Idempotency-Key",
  "Inference-Header-Content-Length",
  "Last-Event-ID",
  "Prefer",
];
const EXPOSED_HEADERS = ["Inference-Header-Content-Length", "Location", "Preference-Applied", "Retry-After"];

/** Lets the pages of cors_origins call the api, without cookies. */
export function shareWithOrigins({ cors_origins }: Config): RequestHandler {
  if (cors_origins.length === 0) return (_req, _res, next) => next();
  return (req, res, next) => {
    res.vary("Origin");
    const origin = req.get("Origin");
    if (origin === undefined || !cors_origins.includes(origin)) return next();
    res.set("Access-Control-Allow-Origin", origin);
    res.set("Access-Control-Expose-Headers", EXPOSED_HEADERS.join(", "));
    res.set("Cross-Origin-Resource-Policy", "cross-origin");
    if (req.method !== "OPTIONS" || req.get("Access-Control-Request-Method") === undefined) return next();
    answerPreflight(res);
  };
}

/** It brings no key, and asks for none of the api's own paths. */
function answerPreflight(res: Response): void {
  res.set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE");
  res.set("Access-Control-Allow-Headers", ALLOWED_HEADERS.join(", "));
  res.set("Access-Control-Max-Age", "600");
  res.status(204).end();
}
