/** The pages in a real browser: /docs sends a picture, the dashboard shows itself, a password is asked for. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { openBrowser, whyNoBrowser, type TestBrowser } from "../../support/browser.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

const API_KEY = "a-key-of-the-tests";
const photo = findSamplePhoto("march-pastoral")!;
const { models } = JSON.parse(
  readFileSync(fileURLToPath(new URL("../../../config/infermill.json", import.meta.url)), "utf8"),
);

describe.skipIf(whyNoRedis ?? whyNoBrowser)("in a browser", () => {
  let infermill: TestInfermill;
  let browser: TestBrowser;

  beforeAll(async () => {
    infermill = await startInfermill({ models, api_keys: [API_KEY] });
    browser = await openBrowser(infermill.url, { apiKey: API_KEY });
  });
  afterAll(async () => {
    await browser?.close();
    await infermill?.stop();
  });

  /** Opens the page at the call that submits a prediction, with its form. */
  async function openForm() {
    const { page } = browser;
    // The browser asks for the password here, or this is a 401.
    const answer = await page.goto("/docs");
    expect(answer!.status()).toBe(200);
    const call = page.locator("#operations-predictions-submitPrediction");
    await call.locator(".opblock-summary-control").click();
    await call.getByRole("button", { name: "Try it out" }).click();
    return call;
  }

  test('"Try it out" of /docs submits a picture, with nothing filled in but the file', async () => {
    const call = await openForm();
    await call.locator('input[type="file"]').setInputFiles(photo);
    await call.getByRole("button", { name: "Execute" }).click();
    const answer = call.locator(".live-responses-table .response").first();
    await answer.waitFor();
    expect(await answer.locator(".response-col_status").innerText()).toContain("200");
    const prediction = JSON.parse(await answer.locator(".microlight").first().innerText());
    expect(prediction).toMatchObject({ model: "CocoObjectDetection", status: "succeeded" });
    const labels = prediction.result.Fs.map((finding: { Lb: string }) => finding.Lb);
    expect(labels.filter((label: string) => label === "sheep")).not.toHaveLength(0);
    expect(browser.complaints).toEqual([]);
  });

  test.each(["multipart/form-data", "application/json"])("and its %s as it is filled in", async (type) => {
    const call = await openForm();
    await call
      .locator(".body-param-content-type select, .opblock-section-request-body select")
      .first()
      .selectOption(type);
    if (type === "multipart/form-data") await call.locator('input[type="file"]').setInputFiles(photo);
    await call.getByRole("button", { name: "Execute" }).click();
    const answer = call.locator(".live-responses-table .response").first();
    await answer.waitFor();
    expect(await answer.locator(".microlight").first().innerText()).toContain('"succeeded"');
    expect(browser.complaints).toEqual([]);
  });

  test("the dashboard shows the model's queue", async () => {
    await browser.page.goto("/dashboard");
    await browser.page.getByText("CocoObjectDetection").first().waitFor();
    expect(browser.complaints).toEqual([]);
  });
});
