/** The console in a real browser: pictures with boxes, predictions, bulk runs, what went wrong, signing in, a phone. */
import { execFile } from "node:child_process";
import { copyFileSync, linkSync, mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Finding } from "../../../src/imil/dictionaries.ts";
import { labelColour } from "../../../src/annotate/labelColour.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { openBrowser, whyNoBrowser, type TestBrowser } from "../../support/browser.ts";
import { dropFile, screenshot, seriousFaults } from "../../support/consolePage.ts";
import {
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  upload,
  type TestInfermill,
} from "../../support/infermill.ts";
import { pythonWithPackages, whyNoPackages } from "../../support/python.ts";
import { startProxy } from "../../support/proxy.ts";
import { SECRET, startReceiver, type Receiver } from "../../support/receiver.ts";
import { whyNoRedis } from "../../support/redis.ts";

const API_KEY = "a-key-of-the-tests";
const sheep = findSamplePhoto("march-pastoral")!;
const boats = findSamplePhoto("nagasaki-boats")!;
const run = promisify(execFile);

const detector = { loader: "CenterNetModelLoader", model_path: ["demo://centernet"], class_names: ["coco"] };
const scripted = { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, max_batch_size: 1 };

describe.skipIf(whyNoRedis ?? whyNoBrowser)("the console", () => {
  let folder: string;
  let infermill: TestInfermill;
  let browser: TestBrowser;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "console-"));
    const photos = join(folder, "photos");
    mkdirSync(photos);
    for (const number of [1, 2, 3, 4, 5, 6]) {
      copyFileSync(sheep, join(photos, `sheep-${number}.jpg`));
      copyFileSync(boats, join(photos, `boats-${number}.jpg`));
    }
    const many = join(folder, "many");
    mkdirSync(many);
    for (let number = 0; number < 400; number++)
      linkSync(join(photos, "sheep-1.jpg"), join(many, `${number}.jpg`));
    writeFileSync(join(photos, "broken.jpg"), "no picture");
    writeFileSync(join(photos, "notes.txt"), "no picture, either");
    writeFileSync(join(folder, "broken.onnx"), "no model");
    infermill = await startInfermill({
      bulk_roots: { photos, many },
      webhooks: { allow: ["127.0.0.1"], secret: SECRET, retry_delays_ms: [0] },
      models: {
        CocoObjectDetection: detector,
        Scripted: scripted,
        // Its engine stays busy for as long as it was told to, whatever becomes of the prediction.
        Slow: scripted,
        Broken: { ...detector, model_path: [join(folder, "broken.onnx")] },
      },
    });
    browser = await openBrowser(infermill.url);
  });
  afterAll(async () => {
    await browser?.close();
    await infermill?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    browser.complaints.length = 0;
    await browser.page.setViewportSize({ width: 1200, height: 800 });
  });

  /** Where the boxes are drawn, as fractions of the picture. */
  async function drawnBoxes() {
    const { page } = browser;
    const whole = (await page.locator(".picture img").boundingBox())!;
    const boxes = await page.locator(".found:has(rect.box)").all();
    return Promise.all(
      boxes.map(async (found) => {
        const box = found.locator("rect.box");
        // Without the stroke, which a bounding box has.
        const [x, y, width, height] = await Promise.all(
          ["x", "y", "width", "height"].map(async (name) => Number(await box.getAttribute(name))),
        );
        return {
          label: await found.getAttribute("data-label"),
          colour: await box.getAttribute("stroke"),
          X: x! / whole.width,
          Y: y! / whole.height,
          W: width! / whole.width,
          H: height! / whole.height,
        };
      }),
    );
  }

  test("a picture that is dropped on the start has its boxes at the right places", async () => {
    const { page } = browser;
    await page.goto("/");
    await page.getByRole("slider", { name: "Threshold" }).fill("0.42");
    await dropFile(page, page.locator(".drop-zone label"), sheep, "image/jpeg");
    await page.locator("rect.box").first().waitFor();
    const expected = await upload(
      infermill.url,
      "CocoObjectDetection",
      readFileSync(sheep),
      "image/jpeg",
      "?C_threshold=0.42",
    );
    const findings = expected.result!.Fs;
    expect(findings).toHaveLength(5);
    const drawn = await drawnBoxes();
    expect(drawn).toHaveLength(5);
    for (const { Lb, Dm } of findings) {
      const nearest = drawn.find(({ X, Y }) => Math.hypot(X - Dm.X, Y - Dm.Y) < 0.005);
      expect(nearest).toMatchObject({ label: Lb, colour: labelColour(Lb) });
      expect(nearest!.W).toBeCloseTo(Dm.W, 2);
      expect(nearest!.H).toBeCloseTo(Dm.H, 2);
    }
    // Those of docs/http-api.md: the sheep at the left.
    expect(drawn.some(({ X, Y }) => Math.abs(X - 0.2942) < 0.01 && Math.abs(Y - 0.1029) < 0.01)).toBe(true);
    expect(await page.getByText("5 findings", { exact: true }).count()).toBe(1);
    await screenshot(page, "console-home");
    expect(await seriousFaults(page)).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });

  test("what was found is narrowed by label and by score, and shown where the pointer is", async () => {
    const { page } = browser;
    await page.goto(`/#/models/CocoObjectDetection`);
    await dropFile(page, page.locator(".drop-zone label"), sheep, "image/jpeg");
    await page.locator("rect.box").first().waitFor();
    const all = await page.locator("rect.box").count();
    const people = await page.locator('[data-label="person"] rect.box').count();
    await page
      .getByRole("group", { name: "Labels" })
      .getByRole("button", { name: /person/ })
      .click();
    expect(await page.locator("rect.box").count()).toBe(all - people);
    await page.getByRole("slider", { name: "Score from" }).fill("0.58");
    await expect.poll(() => page.locator("rect.box").count()).toBe(1);
    await page.getByRole("slider", { name: "Score from" }).fill("0");
    await page.locator(".found-row").first().hover();
    await expect.poll(() => page.locator(".found.is-hovered").count()).toBe(1);
  });

  test("the sample photo is one click away", async () => {
    const { page } = browser;
    await page.goto("/");
    await page.getByRole("button", { name: "Try the sample photo" }).click();
    await page.locator("rect.box").first().waitFor();
    expect(browser.complaints).toEqual([]);
  });

  describe("the same call", () => {
    const snippet = async (language: string) => {
      await browser.page.getByRole("button", { name: language, exact: true }).click();
      return browser.page.locator(".snippets pre").innerText();
    };
    const prepare = async () => {
      const { page } = browser;
      copyFileSync(sheep, join(folder, "it's a sheep.jpg"));
      await page.goto("/#/models/CocoObjectDetection");
      await page.getByRole("slider", { name: "Threshold" }).fill("0.5");
      await page.locator('input[type="file"]').setInputFiles(join(folder, "it's a sheep.jpg"));
      await page.locator("rect.box").first().waitFor();
    };

    test("runs as it stands, as curl and in Node", async () => {
      await prepare();
      const { stdout } = await run("bash", ["-c", await snippet("curl")], { cwd: folder });
      const labels = (JSON.parse(stdout) as { result: { Fs: Finding[] } }).result.Fs.map(({ Lb }) => Lb);
      expect(labels).toEqual(["sheep", "person"]);
      writeFileSync(join(folder, "call.mjs"), await snippet("JavaScript"));
      expect((await run(process.execPath, ["call.mjs"], { cwd: folder })).stdout).toContain("succeeded");
    });

    test.skipIf(whyNoPackages)("and in Python", async () => {
      await prepare();
      writeFileSync(join(folder, "call.py"), await snippet("Python"));
      expect((await run(`${pythonWithPackages}/bin/python`, ["call.py"], { cwd: folder })).stdout).toContain(
        "succeeded",
      );
    });
  });

  test("models are listed with their state, a failed one with what to do", async () => {
    const { page } = browser;
    await page.goto("/#/models");
    const broken = page.locator("article", { hasText: "Broken" });
    await broken.getByText("failed to load").waitFor();
    expect(await broken.innerText()).toMatch(/broken\.onnx/);
    expect(await broken.innerText()).toMatch(/What to do: fix what the reason names/);
    await page
      .locator("article", { hasText: "CocoObjectDetection" })
      .getByText("ready", { exact: true })
      .waitFor();
    expect(await page.locator(".health").innerText()).toContain("3 of 4 ready");
    await screenshot(page, "console-models");
    await broken.getByRole("button", { name: "Load it again" }).click();
    await broken.getByText("failed to load").waitFor();
    expect(await seriousFaults(page)).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });

  test("a prediction that failed shows its error, with the stack folded", async () => {
    const { page } = browser;
    const { id } = await submit(infermill.url, "Scripted", { Do: "throw" });
    await page.goto("/#/predictions");
    await page.getByRole("link", { name: id }).click();
    await page.getByText("told to throw").first().waitFor();
    const stack = page.getByText("scripted.ts");
    expect(await stack.first().isVisible()).toBe(false);
    await page.getByText("Stack of the loader").click();
    await stack.first().waitFor();
    expect(await seriousFaults(page)).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });

  test("a prediction that runs is followed, cancelled and run again", async () => {
    const { page } = browser;
    await page.goto("/#/models/Slow");
    await page.getByRole("button", { name: "Request", exact: true }).click();
    await page.getByRole("textbox", { name: /Request dictionary/ }).fill('{"Ms": 5000}');
    await page.getByRole("button", { name: "Run", exact: true }).click();
    await page.locator(".outcome a").click();
    await page.locator(".status", { hasText: "running" }).waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.locator(".page-head .status", { hasText: "cancelled" }).waitFor();
    const before = page.url();
    await page.getByRole("button", { name: "Run again" }).click();
    await page.waitForURL((url) => url.href !== before);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.locator(".page-head .status", { hasText: "cancelled" }).waitFor();
    expect(browser.complaints).toEqual([]);
  });

  test("predictions are listed as they come, with their pictures", async () => {
    const { page } = browser;
    await page.goto("/#/predictions?model=CocoObjectDetection");
    await page.locator("tbody tr").first().waitFor();
    const { id } = await upload(infermill.url, "CocoObjectDetection", readFileSync(boats));
    const row = page.locator("tbody tr", { hasText: id });
    await row.locator("img").waitFor();
    await screenshot(page, "console-predictions");
    expect(await seriousFaults(page)).toEqual([]);
    await row.getByRole("link").click();
    await page.locator("rect.box").first().waitFor();
    await page.getByRole("list", { name: "Timeline" }).getByText("infer").waitFor();
    await screenshot(page, "console-prediction");
    expect(await seriousFaults(page)).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });

  test("older predictions are added below those that are listed, each once", async () => {
    const { page } = browser;
    const answer = await fetch(`${infermill.url}/v1/models/Scripted/predictions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(Array.from({ length: 120 }, () => ({}))),
    });
    const { predictions } = (await answer.json()) as { predictions: { id: string }[] };
    const last = `${infermill.url}/v1/models/Scripted/predictions/${predictions.at(-1)!.id}`;
    await expect
      .poll(async () => (await fetch(`${last}?wait=10`)).json())
      .toMatchObject({ status: "succeeded" });
    await page.goto("/#/predictions?model=Scripted");
    await expect.poll(() => page.locator("tbody tr").count()).toBe(50);
    for (const count of [100, 120]) {
      await page.getByRole("button", { name: "Older ones" }).click();
      await expect.poll(() => page.locator("tbody tr").count()).toBeGreaterThanOrEqual(count);
    }
    const listed = await page.locator("tbody .row-link").allInnerTexts();
    expect(new Set(listed).size).toBe(listed.length);
    expect(listed).toEqual(expect.arrayContaining(predictions.map(({ id }) => id)));
    expect(browser.complaints).toEqual([]);
  });

  test("a bulk run is started, followed to its end, and its results are filtered", async () => {
    const { page } = browser;
    await page.goto("/#/bulk?new=1");
    await page.getByLabel("Model").selectOption("CocoObjectDetection");
    await page.getByLabel("Threshold").fill("0.4");
    await page.getByText("Further keys of the request").click();
    await page.getByLabel("As JSON").fill('["no object"]');
    await page.getByText("no JSON object yet").waitFor();
    expect(await page.getByRole("button", { name: "Start", exact: true }).isDisabled()).toBe(true);
    await page.getByLabel("As JSON").fill('{"Fid": "42"}');
    await page.getByRole("button", { name: "Start", exact: true }).click();
    await page.locator(".page-head .status", { hasText: "completed" }).waitFor();
    await page.getByText("12 of 13, 1 failed").waitFor();
    await page.locator(".failures").getByText("The input can't be used").waitFor();
    await expect.poll(() => page.locator(".tile").count()).toBe(13);

    await page.getByRole("combobox", { name: "Label", exact: true }).selectOption("sheep");
    await expect.poll(() => page.locator(".tile").count()).toBe(6);
    expect(await page.locator(".tile-name").allInnerTexts()).not.toContain("boats-1.jpg");
    await page.getByRole("combobox", { name: "Label", exact: true }).selectOption("");
    await expect.poll(() => page.locator(".tile").count()).toBe(13);
    await page.locator(".tile img").first().waitFor();
    await screenshot(page, "console-bulk", 1500);
    expect(await seriousFaults(page)).toEqual([]);

    await page.locator(".tile", { hasText: "sheep-1.jpg" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.locator("rect.box").first().waitFor();
    expect(await seriousFaults(page)).toEqual([]);
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });

    await page.getByRole("combobox", { name: "Status", exact: true }).selectOption("failed");
    await expect.poll(() => page.locator(".tile").allInnerTexts()).toHaveLength(1);
    expect(await page.locator(".tile").innerText()).toContain("broken.jpg");
    for (const format of ["NDJSON", "CSV", "COCO"]) {
      const link = await page.getByRole("link", { name: format, exact: true }).getAttribute("href");
      expect((await page.request.get(link!)).status()).toBe(200);
    }
    expect(browser.complaints).toEqual([]);
  });

  test("a bulk run is cancelled and resumed", async () => {
    const { page } = browser;
    const slow = { model: "Scripted", folder: "many", request: { Ms: 50 } };
    const answer = await fetch(`${infermill.url}/v1/bulk`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(slow),
    });
    const { id } = (await answer.json()) as { id: string };
    const cancel = async () => {
      await page.getByRole("button", { name: "Cancel the run" }).click();
      await page
        .getByRole("group", { name: /Stop after/ })
        .getByRole("button", { name: "Cancel the run" })
        .click();
      await page.locator(".page-head .status", { hasText: "cancelled" }).waitFor();
    };
    await page.goto(`/#/bulk/${id}`);
    await cancel();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.locator(".page-head .status", { hasText: /running|queued|walking/ }).waitFor();
    await cancel();
    expect(browser.complaints).toEqual([]);
  });

  test("a dead webhook is sent again", async () => {
    const { page } = browser;
    let status = 500;
    const receiver: Receiver = await startReceiver((response) => response.writeHead(status).end());
    try {
      const query = `?webhook=${encodeURIComponent(receiver.url)}`;
      await submit(infermill.url, "Scripted", {}, 60, query);
      await page.goto("/#/webhooks");
      await page.locator(".deliveries .url", { hasText: receiver.url }).waitFor();
      expect(await seriousFaults(page)).toEqual([]);
      status = 204;
      await page.getByRole("button", { name: "Send again" }).click();
      await page.getByText("No dead delivery").waitFor();
      await page.getByRole("button", { name: /^delivered/ }).click();
      await page.locator(".deliveries .url", { hasText: receiver.url }).waitFor();
      expect(browser.complaints).toEqual([]);
    } finally {
      await receiver.close();
    }
  });

  test("everything fits the width of a phone", async () => {
    const { page } = browser;
    await page.setViewportSize({ width: 375, height: 740 });
    await page.goto("/");
    await page.getByRole("button", { name: "Try the sample photo" }).click();
    await page.locator("rect.box").first().waitFor();
    await screenshot(page, "console-phone");
    for (const path of [
      "",
      "models",
      "models/CocoObjectDetection",
      "predictions",
      "bulk",
      "bulk?new=1",
      "webhooks",
    ]) {
      await page.goto(`/#/${path}`);
      await page.locator("h1").first().waitFor();
      const content = await page.evaluate<number>("document.documentElement.scrollWidth");
      expect(content, path).toBeLessThanOrEqual(375);
      expect(await seriousFaults(page), path).toEqual([]);
    }
  });

  test("it is used by the keyboard alone", async () => {
    const { page } = browser;
    await page.goto("/");
    await page.locator(".playground").waitFor();
    await page.keyboard.press("Tab");
    expect(await page.evaluate("document.activeElement.textContent")).toBe("Skip to the content");
    await page.keyboard.press("Enter");
    expect(await page.evaluate("document.activeElement.id")).toBe("content");
    for (const name of ["Model", "file", "Try the sample photo"]) {
      await page.keyboard.press("Tab");
      const focused = await page.evaluate<string>(
        "`${document.activeElement.type} ${document.activeElement.textContent} ${document.activeElement.labels?.[0]?.textContent}`",
      );
      expect(focused).toContain(name);
    }
    await page.keyboard.press("Enter");
    await page.locator("rect.box").first().waitFor();
  });

  test("below a path of a proxy it is the same", async () => {
    const headers = { "X-Forwarded-Prefix": "/shop/infermill" };
    const proxy = await startProxy(infermill.url, "/shop/infermill", { strips: true, headers });
    const behind = await openBrowser(proxy.url);
    try {
      const { page } = behind;
      await page.goto(`${proxy.url}/`);
      await page.getByRole("button", { name: "Try the sample photo" }).click();
      await page.locator("rect.box").first().waitFor();
      expect(await page.locator(".snippets pre").innerText()).toContain(`${proxy.url}/v1/models/`);
      await page.getByRole("link", { name: "Predictions" }).click();
      await expect.poll(() => page.locator("tbody tr img").count()).toBeGreaterThan(0);
      const thumbnail = await page.locator("tbody tr img").first().getAttribute("src");
      expect((await page.request.get(thumbnail!)).status()).toBe(200);
      await page.getByRole("link", { name: "Queues" }).click();
      await page.getByText("CocoObjectDetection").first().waitFor();
      expect(behind.complaints).toEqual([]);
    } finally {
      await behind.close();
      await proxy.close();
    }
  });

  test("it is small, and may run no script but its own", async () => {
    const answer = await fetch(`${infermill.url}/`, { headers: { Accept: "text/html" } });
    const policy = answer.headers.get("Content-Security-Policy")!;
    expect(policy).toContain("script-src 'self'");
    expect(policy).not.toContain("unsafe");
    const files = Array.from(
      (await answer.text()).matchAll(/(?:src|href)="(console\/assets\/[^"]+)"/g),
      ([, file]) => file!,
    );
    expect(files).toHaveLength(2);
    const sizes = await Promise.all(
      files.map(
        async (file) => gzipSync(await (await fetch(`${infermill.url}/${file}`)).arrayBuffer()).length,
      ),
    );
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(150_000);
  });

  test("in the dark it can be read as well", async () => {
    const { page } = browser;
    await page.emulateMedia({ colorScheme: "dark" });
    for (const path of ["models", "predictions", "bulk", "webhooks"]) {
      await page.goto(`/#/${path}`);
      await page.locator("h1").first().waitFor();
      expect(await seriousFaults(page), path).toEqual([]);
    }
    await page.emulateMedia({ colorScheme: "light" });
  });
});

describe.skipIf(whyNoRedis ?? whyNoBrowser)("a console that wants a key and may only look", () => {
  let infermill: TestInfermill;
  let browser: TestBrowser;

  beforeAll(async () => {
    infermill = await startInfermill({
      api_keys: [API_KEY],
      console: { read_only: true },
      models: { Scripted: scripted },
    });
    browser = await openBrowser(infermill.url);
  });
  afterAll(async () => {
    await browser?.close();
    await infermill?.stop();
  });

  test("asks for the key, refuses a wrong one, and lets in who has it", async () => {
    const { page } = browser;
    await page.goto("/");
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    expect(await seriousFaults(page)).toEqual([]);
    expect(browser.complaints).toEqual([]);

    await page.getByLabel("API key").fill("not the key of the tests");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    // The browser tells of the refusal itself.
    expect(browser.complaints.filter((text) => !text.includes("401"))).toEqual([]);
    browser.complaints.length = 0;

    await page.getByLabel("API key").fill(API_KEY);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("read-only", { exact: true }).waitFor();
    const cookies = await page.context().cookies();
    expect(cookies).toMatchObject([{ httpOnly: true, sameSite: "Strict" }]);
    expect(cookies[0]!.value).not.toContain(API_KEY);
  });

  test("offers nothing that would change something", async () => {
    const { page } = browser;
    await page.goto("/#/models/Scripted");
    await page.locator(".playground").waitFor();
    expect(await page.getByRole("button", { name: "Run", exact: true }).isDisabled()).toBe(true);
    await page.goto("/#/bulk");
    await page.getByText("No bulk runs yet").waitFor();
    expect(await page.getByRole("link", { name: "Start one" }).count()).toBe(0);
    expect(browser.complaints).toEqual([]);
  });

  test("signs out", async () => {
    const { page } = browser;
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    expect(browser.complaints).toEqual([]);
  });
});
