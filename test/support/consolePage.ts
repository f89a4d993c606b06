/** The console in a real browser, for its tests: what is dropped, looked at, and kept as screenshots for the documents. */
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type { AxeResults } from "axe-core";
import type { Locator, Page } from "playwright-core";
import sharp from "sharp";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const IMAGES = fileURLToPath(new URL("../../docs/images/", import.meta.url));

/** Drops a file as a person does it with the mouse. */
export async function dropFile(page: Page, target: Locator, file: string, type: string): Promise<void> {
  const bytes = readFileSync(file).toString("base64");
  const data = await page.evaluateHandle(`(() => {
    const transfer = new DataTransfer();
    const content = Uint8Array.from(atob(${JSON.stringify(bytes)}), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([content], ${JSON.stringify(basename(file))}, { type: ${JSON.stringify(type)} }));
    return transfer;
  })()`);
  await target.dispatchEvent("drop", { dataTransfer: data });
}

/** What axe finds that keeps people out, each as a line. */
export async function seriousFaults(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate<AxeResults>("axe.run()");
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(" | ")}`);
}

/** Keeps a picture of the page for the documents, where UPDATE_SCREENSHOTS=1 asks for it. */
export async function screenshot(page: Page, name: string, height?: number): Promise<void> {
  if (process.env["UPDATE_SCREENSHOTS"] !== "1") return;
  mkdirSync(IMAGES, { recursive: true });
  const { width } = page.viewportSize()!;
  const picture = await page.screenshot(
    height === undefined ? {} : { fullPage: true, clip: { x: 0, y: 0, width, height } },
  );
  await sharp(picture).png({ palette: true, quality: 85, effort: 10 }).toFile(`${IMAGES}${name}.png`);
}
