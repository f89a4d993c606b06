/** Who may call the api, where the configuration names `api_keys`. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { RequestHandler } from "express";
import { UnauthorizedError } from "./problems.ts";

/** Orchestrators probe these without a key. */
const OPEN_PATHS: ReadonlySet<string> = new Set(["/health/live", "/health/ready"]);

/** Lets everyone in where there are no keys, else who brings one: as a bearer token, or as a browser's password. */
export function authorize(keys: readonly string[]): RequestHandler {
  const known = keys.map(digest);
  return (req, res, next) => {
    if (keys.length === 0 || OPEN_PATHS.has(req.path)) return next();
    const key = keyOf(req.headers.authorization ?? "");
    if (key !== undefined && known.some((each) => timingSafeEqual(each, digest(key)))) return next();
    // A header line each: browsers ask for no password where both stand in one.
    res.set("WWW-Authenticate", ['Bearer realm="infermill"', 'Basic realm="infermill"']);
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
