/** The console: what the build left in dist/console, its page with the path that it is reached under. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import express, { Router, type NextFunction, type Request, type Response } from "express";
import { publicPathOf } from "./publicPath.ts";

const FOLDER = fileURLToPath(new URL("../../dist/console/", import.meta.url));

/** No scripts or styles but those of files; pictures also from what a person has dropped. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "media-src 'self' data: blob:",
  "connect-src 'self'",
  "font-src 'self'",
  "base-uri 'self'",
  "form-action 'self'",
  "frame-ancestors 'self'",
].join("; ");

/** Open to all: whoever has no key signs in on the page. Where it isn't built, whatever comes next answers. */
export function serveConsole(folder = FOLDER): Router {
  const router = Router();
  router.get("/", (req, res, next) => sendPage(folder, req, res, next));
  // Their names hold a digest of what is in them.
  const assets = { immutable: true, maxAge: "1y", index: false, redirect: false };
  router.use("/console/assets", express.static(`${folder}assets`, assets));
  router.use("/console", express.static(folder, { index: false, redirect: false, setHeaders: dontKeep }));
  return router;
}

async function sendPage(folder: string, req: Request, res: Response, next: NextFunction): Promise<void> {
  // Browsers ask for HTML first; whoever takes anything gets the links.
  if (req.accepts(["json", "html"]) !== "html") return next();
  const page = await readFile(`${folder}index.html`, "utf8").catch(() => undefined);
  if (page === undefined) return next();
  res.set("Content-Security-Policy", CONTENT_SECURITY_POLICY).set("Cache-Control", "no-cache").vary("Accept");
  res.type("html").send(page.replace("<head>", `<head>\n    <base href="${publicPathOf(res)}/">`));
}

function dontKeep(res: { setHeader(name: string, value: string): void }): void {
  res.setHeader("Cache-Control", "no-cache");
}
