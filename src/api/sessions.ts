/**
 * Sessions of pages: a cookie that scripts can't read, signed with the key that was given for it. No api keeps a list
 * of them, so that each knows those of the others; one ends with its key, or when its time is over.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { CookieOptions, Request, Response } from "express";
import { publicPathOf } from "./publicPath.ts";

const COOKIE = "infermill_session";
const LIFETIME_MS = 24 * 3_600_000;

export interface Sessions {
  /** @param key one of the api_keys */
  create(key: string): string;
  isValid(session: string | undefined): boolean;
}

export function createSessions(keys: readonly string[], now: () => number = Date.now): Sessions {
  return {
    create(key) {
      const session = `${(now() + LIFETIME_MS).toString(36)}.${randomBytes(16).toString("base64url")}`;
      return `${session}.${signatureOf(key, session).toString("base64url")}`;
    },
    isValid(session) {
      const [, signed = "", until = "", given = ""] =
        /^(([0-9a-z]{1,12})\.[\w-]{22})\.([\w-]{43})$/.exec(session ?? "") ?? [];
      if (signed === "" || Number.parseInt(until, 36) < now()) return false;
      const signature = Buffer.from(given, "base64url");
      return keys.some((key) => timingSafeEqual(signatureOf(key, signed), signature));
    },
  };
}

function signatureOf(key: string, session: string): Buffer {
  return createHmac("sha256", key).update(`infermill session ${session}`).digest();
}

export function sessionCookieOf(req: Request): string | undefined {
  const cookies = (req.headers.cookie ?? "").split(";").map((cookie) => cookie.trim());
  return cookies.find((cookie) => cookie.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1);
}

export function setSessionCookie(
  req: Request,
  res: Response,
  session: string,
  publicUrl: string | undefined,
): void {
  // A proxy that ends TLS may not say so.
  const secure = req.secure || (publicUrl !== undefined && isHttpsOf(publicUrl, req));
  res.cookie(COOKIE, session, { ...cookieOptions(res), secure, maxAge: LIFETIME_MS });
}

export function clearSessionCookie(res: Response): void {
  res.clearCookie(COOKIE, cookieOptions(res));
}

function cookieOptions(res: Response): CookieOptions {
  return { httpOnly: true, sameSite: "strict", path: `${publicPathOf(res)}/` };
}

function isHttpsOf(publicUrl: string, req: Request): boolean {
  const { protocol, host } = new URL(publicUrl);
  return protocol === "https:" && host === req.host;
}
