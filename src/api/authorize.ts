/** Who may call the api, where the configuration names `api_keys`. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { RequestHandler } from "express";
import { UnauthorizedError } from "./problems.ts";

/** Orchestrators probe these without a key. */
export const OPEN_PATHS: ReadonlySet<string> = new Set([
  "/health/live",
  "/health/ready",
  "/v2/health/live",
  "/v2/health/ready",
]);

/** Lets everyone in where there are no keys, else who brings one. */
export function authorize(keys: readonly string[]): RequestHandler {
  const check = createKeyCheck(keys);
  return (req, res, next) => {
    if (OPEN_PATHS.has(req.path)) return next();
    try {
      check(req.headers.authorization);
    } catch (error) {
      // A header line each: browsers ask for no password where both stand in one.
      res.set("WWW-Authenticate", ['Bearer realm="infermill"', 'Basic realm="infermill"']);
      throw error;
    }
    next();
  };
}

/**
 * Checks the value of an Authorization header: one of the keys as a bearer token, or as a browser's password. Without
 * keys, everything passes.
 * @throws UnauthorizedError
 */
export function createKeyCheck(keys: readonly string[]): (authorization: string | undefined) => void {
  const known = keys.map(digest);
  return (authorization) => {
    if (keys.length === 0) return;
    const key = keyOf(authorization ?? "");
    if (key !== undefined && known.some((each) => timingSafeEqual(each, digest(key)))) return;
    throw new UnauthorizedError(
      key === undefined
        ? "send one of the api_keys: Authorization: Bearer <key>"
        : "the key is none of the api_keys",
    );
  };
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
