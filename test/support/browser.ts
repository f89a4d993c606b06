/** A real Chromium for tests: the machine's own, since nothing is downloaded for it. */
import { chromium, type Page } from "playwright-core";
import { findOnPath } from "../../src/redis/programs.ts";

const candidates = ["chromium", "chromium-browser", "google-chrome"];
const PROGRAM = (await Promise.all(candidates.map((name) => findOnPath(name, process.env)))).find(Boolean);

/** Why no browser can run here, or undefined; for `describe.skipIf`. */
export const whyNoBrowser =
  PROGRAM === undefined ? "needs chromium on the PATH (on Debian: apt-get install chromium)" : undefined;

export interface TestBrowser {
  page: Page;
  /** What the page complained of on its console, and what it asked other hosts for. */
  complaints: string[];
  close(): Promise<void>;
}

/** @param apiKey what the browser's user types where it asks for a password */
export async function openBrowser(url: string, { apiKey }: { apiKey?: string } = {}): Promise<TestBrowser> {
  // Chromium runs as root only without its sandbox; the pages are our own.
  const browser = await chromium.launch({ executablePath: PROGRAM!, args: ["--no-sandbox"] });
  const page = await browser.newPage({
    baseURL: url,
    ...(apiKey !== undefined && { httpCredentials: { username: "key", password: apiKey } }),
  });
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (/^https?:/.test(request.url()) && !request.url().startsWith(url)) complaints.push(request.url());
  });
  return { page, complaints, close: () => browser.close() };
}
