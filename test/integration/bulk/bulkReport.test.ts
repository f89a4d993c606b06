/** What can be seen of a bulk run afterwards, with a real detector: summary, entries, thumbnails, report, other formats. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InfermillClient } from "../../../src/client/client.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { send, type Json } from "../../support/api.ts";
import { openBrowser, whyNoBrowser } from "../../support/browser.ts";
import { runInfermill, startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

const MARKUP = "<img src=x onerror=alert(1)>.jpg";

describe.skipIf(whyNoRedis)("what came out of a bulk run", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-report-"));
  const photos = join(folder, "photos");
  const marked = join(folder, "marked");
  let infermill: TestInfermill;
  let client: InfermillClient;
  /** Of the server, finished. */
  let run: Json;

  beforeAll(async () => {
    mkdirSync(photos);
    const sheep = readFileSync(findSamplePhoto("march-pastoral")!);
    const boats = readFileSync(findSamplePhoto("nagasaki-boats")!);
    for (const number of [1, 2, 3]) writeFileSync(join(photos, `sheep${number}.jpg`), sheep);
    writeFileSync(join(photos, MARKUP), boats);
    writeFileSync(join(photos, "cut.jpg"), sheep.subarray(0, sheep.length / 2));
    writeFileSync(join(photos, "text.jpg"), "no picture");
    writeFileSync(join(photos, "letter"), "%PDF-1.7");
    infermill = await startInfermill({
      bulk_roots: { photos },
      annotate_roots: { marked, wrong: join(photos, "marked") },
      models: {
        Coco: { loader: "CenterNetModelLoader", model_path: ["demo://centernet"], class_names: ["coco"] },
      },
    });
    client = new InfermillClient(infermill.url);
    const asked = {
      model: "Coco",
      folder: "photos",
      request: { C_threshold: 0.4 },
      annotate: "marked/first",
    };
    const { id } = await client.startBulkRun(asked);
    run = await until(async () => {
      const now = await client.getBulkRun(id);
      return now.finished_at !== null && now;
    }, "the run ends");
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true });
  });

  const get = async (path: string) => {
    const answer = await fetch(`${infermill.url}${path}`);
    return { answer, bytes: Buffer.from(await answer.arrayBuffer()) };
  };

  test("the summary has the verdict, the labels, the failures by reason, what was left out, and the model", async () => {
    const summary = await client.getBulkSummary(run.id);
    expect(summary.verdict).toMatch(/^4 of 6, 2 failed, [\d.]+ s, [\d.]+\/s$/);
    expect(summary.counts).toMatchObject({ total: 6, done: 6, succeeded: 4, failed: 2, skipped: 1 });
    expect(summary.labels[0]).toMatchObject({ label: "sheep", entries: 3 });
    expect(summary.scores!.bins.reduce((sum, count) => sum + count, 0)).toBe(summary.counts.findings);
    expect(summary.scores!.min).toBeGreaterThanOrEqual(0.4);
    expect(summary.failures.flatMap(({ examples }) => examples.map(({ path }) => path!)).toSorted()).toEqual([
      "cut.jpg",
      "text.jpg",
    ]);
    const ended = summary.rate.points.reduce((sum, { succeeded, failed }) => sum + succeeded + failed, 0);
    expect(ended).toBe(6);
    expect(summary.stages.map(({ stage }) => stage)).toEqual([
      "queue",
      "read",
      "preprocess",
      "infer",
      "postprocess",
    ]);
    expect(summary.slowest).toHaveLength(4);
    expect(summary.left_out).toMatchObject([
      { reason: "not_a_picture", count: 1, examples: [{ path: "letter", detail: "a PDF" }] },
    ]);
    expect(summary.configuration).toMatchObject({
      used: { loader: "CenterNetModelLoader", model_path: ["demo://centernet"], device: ["cpu"] },
      folder: "photos",
      request: { C_threshold: 0.4 },
      annotate: "marked/first",
      from_command_line: false,
    });
    // Read again, it comes from the file beside the results.
    expect(existsSync(join(infermill.folder, "data/bulk", run.id, "summary.json"))).toBe(true);
    expect(await client.getBulkSummary(run.id)).toEqual(summary);
  });

  test("a server's run draws annotated copies before it is completed", async () => {
    for (const name of ["sheep1.jpg", "sheep2.jpg", "sheep3.jpg", MARKUP])
      expect(statSync(join(marked, "first", name)).size).toBeGreaterThan(10_000);
    expect(existsSync(join(marked, "first", "cut.jpg"))).toBe(false);
    const before = await sharp(join(photos, "sheep1.jpg")).stats();
    const after = await sharp(join(marked, "first", "sheep1.jpg")).stats();
    expect(after.channels[1]!.stdev).not.toBeCloseTo(before.channels[1]!.stdev, 0);
    expect((await client.getBulkSummary(run.id)).copies).toEqual({
      drawn: 4,
      failed: 0,
      first_failure: null,
    });
  });

  test("copies go into a root for them only, and never among the originals", async () => {
    const start = (annotate: string) =>
      send("POST", `${infermill.url}/v1/bulk`, { model: "Coco", folder: "photos", annotate });
    expect(await start("photos")).toMatchObject({
      status: 422,
      body: { detail: expect.stringMatching(/a root of annotate_roots \(marked, wrong\), got "photos"/) },
    });
    expect((await start("marked/../photos")).body.detail).toMatch(/annotate must be <root>\/<path>/);
    expect((await start("wrong")).body.detail).toMatch(
      /annotate_roots\.wrong and bulk_roots\.photos must be folders apart/,
    );
  });

  test("entries are listed with links to their thumbnails and pictures", async () => {
    const sure = await client.bulkEntries(run.id, { label: "sheep", sort: "-score", limit: 2 });
    expect(sure.entries).toHaveLength(2);
    expect(sure.next_cursor).not.toBeNull();
    const [entry] = sure.entries;
    expect(entry).toMatchObject({ status: "succeeded", path: expect.stringMatching(/^sheep/) });
    const { answer: alone } = await get(`/v1/bulk/${run.id}/entries/${entry!.index}`);
    expect(alone.status).toBe(200);
    const { answer, bytes } = await get(entry!.links.thumbnail!);
    expect(answer.headers.get("Content-Type")).toBe("image/jpeg");
    expect(await sharp(bytes).metadata()).toMatchObject({ format: "jpeg", width: 320 });
    expect((await get(entry!.links.thumbnail!)).bytes.equals(bytes)).toBe(true);
    const plain = await get(`${entry!.links.thumbnail!}&annotated=false`);
    // The photo is sepia; boxes bring colour.
    const [drawn, undrawn] = await Promise.all([bytes, plain.bytes].map((each) => sharp(each).stats()));
    expect(drawn!.channels[1]!.stdev).not.toBeCloseTo(undrawn!.channels[1]!.stdev, 0);
    const picture = await get(entry!.links.picture!);
    expect(picture.bytes.equals(readFileSync(join(photos, entry!.path!)))).toBe(true);
  });

  test("of a cut picture there is what can be seen, and of what is none a reason", async () => {
    const { entries } = await client.bulkEntries(run.id, { status: "failed" });
    const linkOf = (name: string) => entries.find(({ path }) => path === name)!.links.thumbnail!;
    expect((await get(linkOf("cut.jpg"))).answer.status).toBe(200);
    expect(await send("GET", `${infermill.url}${linkOf("text.jpg")}`)).toMatchObject({
      status: 404,
      body: { code: "not_found", detail: expect.stringMatching(/is no picture/) },
    });
    for (const index of ["6", "-1", "x"])
      expect((await get(`/v1/bulk/${run.id}/entries/${index}/thumbnail`)).answer.status).toBe(404);
    const faulty = await send(
      "GET",
      `${infermill.url}/v1/bulk/${run.id}/entries?limit=0&sort=name&min_score=2`,
    );
    expect(faulty.body.errors.map(({ key }: Json) => key).toSorted()).toEqual(["limit", "min_score", "sort"]);
    const all = await send("GET", `${infermill.url}/v1/bulk/${run.id}/entries?min_score=1e-7&max_score=.99`);
    expect(all.body.entries).toHaveLength(4);
    // An empty number is none, not 0.
    const empty = await send("GET", `${infermill.url}/v1/bulk/${run.id}/entries?limit=&max_score=`);
    expect(empty.body.errors.map(({ key }: Json) => key).toSorted()).toEqual(["limit", "max_score"]);
  });

  test("results come as CSV and in COCO's format, of a run that has ended", async () => {
    const csv = (await get(`/v1/bulk/${run.id}/results?format=csv`)).bytes.toString();
    const { counts } = await client.getBulkSummary(run.id);
    expect(csv.trimEnd().split("\n")).toHaveLength(1 + counts.findings + counts.failed);
    const coco = JSON.parse((await get(`/v1/bulk/${run.id}/results?format=coco`)).bytes.toString());
    expect(coco.images).toHaveLength(4);
    expect(coco.annotations).toHaveLength(counts.findings);
    const sizes = new Map(coco.images.map((image: Json) => [image.id, image]));
    const names = new Map(coco.categories.map(({ id, name }: Json) => [id, name]));
    for (const { image_id, category_id, bbox } of coco.annotations) {
      const { width, height } = sizes.get(image_id) as Json;
      expect(bbox[0] + bbox[2]).toBeLessThanOrEqual(width + 0.5);
      expect(bbox[1] + bbox[3]).toBeLessThanOrEqual(height + 0.5);
      expect(names.has(category_id)).toBe(true);
    }
    expect(names.get(20)).toBe("sheep");
    const refused = await send("GET", `${infermill.url}/v1/bulk/${run.id}/results?format=csv&after=1`);
    expect(refused).toMatchObject({ status: 422, body: { errors: [{ key: "after" }] } });
    const waiting = await send("POST", `${infermill.url}/v1/bulk`, { model: "Coco", folder: "photos" });
    const early = await send("GET", `${infermill.url}/v1/bulk/${waiting.body.id}/results?format=csv`);
    expect(early).toMatchObject({ status: 409, body: { code: "not_ended" } });
    await client.cancelBulkRun(waiting.body.id);
  });

  test("a run of the command line writes its report and other formats, and is seen by the server, too", async () => {
    const out = join(folder, "found.ndjson");
    const report = join(folder, "report.html");
    const args = [
      "--out",
      out,
      "--report",
      report,
      "--format",
      "csv,coco",
      "--request",
      '{"C_threshold":0.4}',
    ];
    const config = join(infermill.folder, "infermill.json");
    const command = runInfermill(["bulk", photos, "-m", "Coco", "-c", config, ...args], { cwd: folder });
    expect((await command.exited).code).toBe(1);
    expect(command.output()).toMatch(new RegExp(`^report +${report}$`, "m"));
    expect(readFileSync(join(folder, "found.csv"), "utf8")).toMatch(/,failed,/);
    expect(JSON.parse(readFileSync(join(folder, "found.coco.json"), "utf8")).images).toHaveLength(4);
    expect(readFileSync(report, "utf8")).toMatch(/^<!doctype html>/i);

    const [id] = /bulk_[0-9a-f]{32}/.exec(command.output())!;
    const { runs } = (await send("GET", `${infermill.url}/v1/bulk`)).body;
    expect(runs.map((each: Json) => each.id)).toContain(id);
    const summary = await client.getBulkSummary(id);
    expect(summary.configuration).toMatchObject({ folder: photos, from_command_line: true });
    const { entries } = await client.bulkEntries(id, { status: "succeeded", limit: 1 });
    expect((await get(entries[0]!.links.thumbnail!)).answer.status).toBe(200);
  });

  test("wrong options are told before anything runs", async () => {
    const config = join(infermill.folder, "infermill.json");
    for (const [args, message] of [
      [["--format", "xml,csv"], /--format must be ndjson, csv, coco, parquet or several/],
      [["--report", join(folder, "nowhere/report.html")], /the report can't be written: ENOENT/],
    ] as const) {
      const command = runInfermill(["bulk", photos, "-m", "Coco", "-c", config, ...args], { cwd: folder });
      expect((await command.exited).code).toBe(2);
      expect(command.output()).toMatch(message);
    }
    expect(existsSync(join(folder, "results.ndjson"))).toBe(false);
  });

  test("the command with a server brings the server's report and formats", async () => {
    const out = join(folder, "from-server.ndjson");
    const report = join(folder, "from-server.html");
    const args = ["--server", infermill.url, "--out", out, "--report", report, "--format", "coco"];
    const command = runInfermill(["bulk", "photos", "-m", "Coco", "--glob", "sheep*", ...args], {
      cwd: folder,
    });
    expect((await command.exited).code).toBe(0);
    expect(readFileSync(report, "utf8")).toContain("3 of 3, ");
    expect(JSON.parse(readFileSync(join(folder, "from-server.coco.json"), "utf8")).images).toHaveLength(3);
  });

  describe.skipIf(whyNoBrowser)("in a browser", () => {
    test("the report opens as a file, asks for nothing, and shows failures first, plots and pictures", async () => {
      const file = join(folder, "opened.html");
      writeFileSync(file, await client.bulkReport(run.id));
      expect(statSync(file).size).toBeLessThan(1_000_000);
      const browser = await openBrowser(pathToFileURL(folder).href);
      const { page } = browser;
      const asked: string[] = [];
      page.on("request", (request) => {
        if (!request.url().startsWith("data:")) asked.push(request.url());
      });
      const dialogs: string[] = [];
      page.on("dialog", (dialog) => void dialogs.push(dialog.message()));
      try {
        await page.goto(pathToFileURL(file).href);
        expect(await page.locator("h1").textContent()).toMatch(/^4 of 6, 2 failed, /);
        expect(await page.locator("main > section").first().locator("h2").textContent()).toBe("2 failed");
        expect(await page.locator("svg.plot").count()).toBe(3);
        const loaded = await page
          .locator("figure img")
          .evaluateAll((images) =>
            images.map((image) => (image as unknown as { naturalWidth: number }).naturalWidth),
          );
        expect(loaded.length).toBeGreaterThanOrEqual(5);
        expect(loaded.every((width) => width === 320)).toBe(true);
        expect(await page.getByText(MARKUP).count()).toBeGreaterThan(0);
        for (const width of [1280, 390]) {
          await page.setViewportSize({ width, height: 800 });
          const scrolled = await page.evaluate(() => {
            // oxlint-disable-next-line typescript/no-explicit-any
            const { document } = globalThis as any;
            return document.documentElement.scrollWidth as number;
          });
          expect(scrolled).toBeLessThanOrEqual(width);
        }
      } finally {
        await browser.close();
      }
      expect(asked).toEqual([pathToFileURL(file).href]);
      expect(dialogs).toEqual([]);
      expect(browser.complaints).toEqual([]);
    });

    test("the server shows it under its strict policy", async () => {
      const browser = await openBrowser(infermill.url);
      try {
        await browser.page.goto(`/v1/bulk/${run.id}/report`);
        const ground = await browser.page.evaluate(() => {
          // oxlint-disable-next-line typescript/no-explicit-any
          const { document, getComputedStyle } = globalThis as any;
          return getComputedStyle(document.querySelector("section")).borderRadius as string;
        });
        expect(ground).toBe("10px");
        expect(await browser.page.locator("figure img").count()).toBeGreaterThanOrEqual(5);
      } finally {
        await browser.close();
      }
      expect(browser.complaints).toEqual([]);
    });
  });
});
