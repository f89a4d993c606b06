/** Who may call the api, where the configuration names `api_keys`: who brings one, or the cookie of a session. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Request, RequestHandler, Response } from "express";
import { UnauthorizedError } from "./problems.ts";
import { createSessions, sessionCookieOf } from "./sessions.ts";

/** Orchestrators probe these without a key, and pages ask whether one is needed. */
export const OPEN_PATHS: ReadonlySet<string> = new Set([
  "/health/live",
  "/health/ready",
  "/v2/health/live",
  "/v2/health/ready",
  "/v1/session",
  "/console/sample.jpg",
  "/favicon.ico",
]);

/** How a call is let in: `none` of who may see what is open to all only. */
export type SignedIn = "no keys" | "header" | "cookie" | "none";

export function signedInBy(res: Response): SignedIn {
  return (res.locals["signedIn"] as SignedIn | undefined) ?? "none";
}

/** Lets everyone in where there are no keys, else who brings one. */
export function authorize(keys: readonly string[]): RequestHandler {
  const check = createKeyCheck(keys);
  const sessions = createSessions(keys);
  const lookAt = (req: Request): SignedIn => {
    if (keys.length === 0) return "no keys";
    if (req.headers.authorization === undefined && sessions.isValid(sessionCookieOf(req))) return "cookie";
    check(req.headers.authorization);
    return "header";
  };
  return (req, res, next) => {
    try {
      res.locals["signedIn"] = lookAt(req);
    } catch (error) {
      if (OPEN_PATHS.has(req.path)) return next();
      challenge(req, res);
      throw error;
    }
    next();
  };
}

/** Of what a page asks for by itself, browsers must not ask for a password: the page has a form of its own. */
function challenge(req: Request, res: Response): void {
  const isOfPage =
    (req.get("Sec-Fetch-Dest") ?? "document") !== "document" || req.get("X-Requested-With") !== undefined;
  // A header line each: browsers ask for no password where both stand in one.
  res.set("WWW-Authenticate", ['Bearer realm="infermill"', ...(isOfPage ? [] : ['Basic realm="infermill"'])]);
}

/**
 * Checks the value of an Authorization header: one of the keys as a bearer token, or as a browser's password. Without
 * keys, everything passes.
 * @throws UnauthorizedError
 */
export function createKeyCheck(keys: readonly string[]): (authorization: string | undefined) => void {
  const isKey = createKeyComparison(keys);
  return (authorization) => {
    if (keys.length === 0) return;
    const key = keyOf(authorization ?? "");
    if (key !== undefined && isKey(key)) return;
    throw new UnauthorizedError(
      key === undefined
        ? "send one of the api_keys: Authorization: Bearer <key>"
        : "the key is none of the api_keys",
    );
  };
}

export function createKeyComparison(keys: readonly string[]): (key: string) => boolean {
  const known = keys.map(digest);
  return (key) => known.some((each) => timingSafeEqual(each, digest(key)));
}

/** Of equal length, so that a comparison tells nothing of how much was right. */
function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}

/** RFC 6750 and RFC 7617; the name before a password may be anything. */
function keyOf(header: string): string | undefined {
  const [, scheme, value = ""] = /^(bearer|basic) +(\S+) *$/i.exec(header) ?? [];
  if (scheme?.toLowerCase() === "bearer") return value;
  return /^[^:]*:(.*)$/s.exec(Buffer.from(value, "base64").toString())?.[1];
}
