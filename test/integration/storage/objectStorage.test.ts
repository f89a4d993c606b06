import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkResult } from "../../support/answers.ts";
import { openRunFolder } from "../../../src/bulk/runFolder.ts";
import { walkObjects } from "../../../src/bulk/walkObjects.ts";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import type { BulkSummary } from "../../../src/core/bulkSummary.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { newBulkRunId } from "../../../src/queue/names.ts";
import { openStorage } from "../../../src/storage/storage.ts";
import { createObjectReader } from "../../../src/worker/objectInputs.ts";
import {
  runInfermill,
  startInfermill,
  submit,
  until,
  upload,
  type TestInfermill,
} from "../../support/infermill.ts";
import { plainPicture } from "../../support/pictures.ts";
import { python } from "../../support/python.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { S3_CREDENTIALS, startS3Server, whyNoS3, type S3Server } from "../../support/s3Server.ts";

const SIZE_LOADER = fileURLToPath(new URL("../../loaders/pictureSize.ts", import.meta.url));
const MANY = 150;

describe.skipIf(whyNoRedis || whyNoS3)("object storage", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-s3-"));
  const buckets = join(folder, "buckets");
  let s3: S3Server;
  let infermill: TestInfermill;
  let environment: Record<string, string> = {};

  beforeAll(async () => {
    const put = (path: string, bytes: Buffer | string) => {
      mkdirSync(join(buckets, dirname(path)), { recursive: true });
      writeFileSync(join(buckets, path), bytes);
    };
    const picture = await plainPicture(250, 5, 5);
    put("pictures/photos/a b+ü.jpg", picture);
    put("pictures/photos/2024/without-ending", picture);
    put("pictures/photos/2024/broken.jpg", "no picture");
    put("pictures/photos/2024/notes.txt", "not listed");
    put("pictures/photos/2024/nothing", "");
    put("pictures/photos/.hidden/c.jpg", picture);
    put("pictures/photos-secret/d.jpg", picture);
    put("pictures/sheep/march-pastoral.jpg", readFileSync(findSamplePhoto("march-pastoral")!));
    put("pictures/sheep/none-of-it.pdf", "%PDF-1.7");
    for (let index = 0; index < MANY; index++) put(`many/in/${String(index).padStart(4, "0")}.jpg`, picture);
    for (let index = 0; index < 2500; index++) put(`names/of/${String(index).padStart(4, "0")}.jpg`, "x");
    for (const bucket of ["outbox", "late"]) mkdirSync(join(buckets, bucket));
    mkdirSync(join(folder, "here"));
    symlinkSync(buckets, join(folder, "here/elsewhere"));
    writeFileSync(
      join(folder, "sizes.py"),
      [
        "from infermill import BaseModelLoader",
        "class SizesModelLoader(BaseModelLoader):",
        "    def predict(self, picture, threshold, request):",
        '        return [{"Cs": 1, "Lb": str(len(picture.bytes)), "Dm": {}}]',
        "",
      ].join("\n"),
    );
    s3 = await startS3Server(buckets);
    const { endpoint } = s3;
    environment = { ...S3_CREDENTIALS, AWS_ENDPOINT_URL_S3: endpoint };
    Object.assign(process.env, environment);
    infermill = await startInfermill(
      {
        s3: { endpoint },
        bulk_roots: {
          photos: "s3://pictures/photos",
          many: { url: "s3://many/in", endpoint, path_style: true },
        },
        annotate_roots: { marked: "s3://outbox/copies" },
        results_roots: {
          found: "s3://outbox/found",
          late: "s3://late",
          nowhere: "s3://nowhere",
          here: join(folder, "here"),
        },
        inputs: "s3",
        input_storage: "s3://outbox/inputs",
        models: {
          Size: { loader: "PictureSizeModelLoader", model_loader_file: SIZE_LOADER, instances: 1 },
          Python: {
            loader: "SizesModelLoader",
            model_loader_file: join(folder, "sizes.py"),
            python: python,
            instances: 1,
          },
          Slow: {
            loader: "PictureSizeModelLoader",
            model_loader_file: SIZE_LOADER,
            instances: 1,
            max_batch_size: 1,
          },
        },
      },
      environment,
    );
  });
  afterAll(async () => {
    await infermill?.stop();
    await s3?.stop();
    for (const name of Object.keys(environment)) delete process.env[name];
    rmSync(folder, { recursive: true });
  });

  async function post(body: string, type = "application/json", query = ""): Promise<Response> {
    const headers = { "Content-Type": type };
    return fetch(`${infermill.url}/v1/bulk${query}`, { method: "POST", headers, body });
  }

  async function ended({ id }: BulkRun): Promise<BulkRun> {
    return until(async () => {
      const run = (await (await fetch(`${infermill.url}/v1/bulk/${id}`)).json()) as BulkRun;
      return ["completed", "cancelled", "failed"].includes(run.status) && run;
    }, "the end of the run");
  }

  async function results({ id }: BulkRun): Promise<BulkResult[]> {
    const text = await (await fetch(`${infermill.url}/v1/bulk/${id}/results`)).text();
    return linesOf(text);
  }

  function linesOf(text: string): BulkResult[] {
    return text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as BulkResult);
  }

  const inBucket = (bucket: string) => openStorage({ url: `s3://${bucket}`, endpoint: s3.endpoint });

  async function pathsIn(bucket: string, below?: string): Promise<string[]> {
    const paths: string[] = [];
    for await (const page of inBucket(bucket).list(below)) paths.push(...page.map(({ path }) => path));
    return paths;
  }

  test("a bulk run over a prefix takes its pictures, counts what it leaves out, and no neighbour of the prefix", async () => {
    const answer = await post(JSON.stringify({ model: "Size", folder: "photos" }));
    expect(answer.status).toBe(202);
    const run = await ended((await answer.json()) as BulkRun);
    const bytes = String((await plainPicture(250, 5, 5)).length);
    const found = (await results(run)).map(({ path, result }) => `${path} ${result?.Fs[0]?.Lb}`);
    expect(found.toSorted()).toEqual([
      "2024/broken.jpg 10",
      `2024/without-ending ${bytes}`,
      `a b+ü.jpg ${bytes}`,
    ]);
    expect(run.skipped).toEqual({ total: 3, by_reason: { hidden: 1, not_a_picture: 1, empty: 1 } });
  });

  test("a missing object fails its own line with its own reason, and a name never leaves its prefix", async () => {
    const lines = ["2024/without-ending", "none.jpg", "a//b.jpg"].map((path) =>
      JSON.stringify({ image: `photos/${path}` }),
    );
    const answer = await post(lines.join("\n"), "application/x-ndjson", "?model=Size");
    const run = await ended((await answer.json()) as BulkRun);
    const reasons = (await results(run)).map(
      ({ index, status, error }) => `${index} ${error?.detail ?? status}`,
    );
    expect(reasons.toSorted()).toEqual([
      "0 succeeded",
      "1 there is no object photos/none.jpg",
      "2 an object's path must have no empty part, . or .., got photos/a//b.jpg",
    ]);
    for (const path of ["../photos-secret/d.jpg", "2024/../../photos-secret/d.jpg", "/photos-secret/d.jpg"]) {
      const refused = await post(
        JSON.stringify({ image: `photos/${path}` }),
        "application/x-ndjson",
        "?model=Size",
      );
      expect([path, refused.status]).toEqual([path, 422]);
    }
    const none = await post(JSON.stringify({ model: "Size", folder: "photos/nowhere" }));
    expect([none.status, await none.text()]).toEqual([
      422,
      expect.stringContaining("there are no objects below photos/nowhere"),
    ]);
  });

  test("an upload waits in the bucket, is answered with what its picture holds, and is gone afterwards", async () => {
    const picture = await plainPicture(5, 250, 5);
    const from = s3.requests.length;
    const { status, result } = await upload(infermill.url, "Size", picture);
    expect([status, result?.Fs[0]?.Lb]).toEqual(["succeeded", String(picture.length)]);
    await until(
      () => s3.requests.slice(from).some((line) => line.startsWith("DELETE /outbox/inputs/")),
      "removal",
    );
    expect(await pathsIn("outbox", "inputs")).toEqual([]);
    const large = Buffer.concat([picture, Buffer.alloc(12 * 1024 * 1024)]);
    expect((await upload(infermill.url, "Size", large)).result?.Fs[0]?.Lb).toBe(String(large.length));
    expect(s3.requests.slice(from).filter((line) => line.includes("partNumber="))).toHaveLength(3);
  });

  test("a loader in Python gets the same bytes, and several pictures of a request come in their order", async () => {
    const request = { image: ["photos/2024/broken.jpg", "many/0000.jpg"] };
    const answers = await Promise.all(
      ["Size", "Python"].map((model) => submit(infermill.url, model, request)),
    );
    const size = (await plainPicture(250, 5, 5)).length;
    expect(answers.map(({ result }) => result?.Fs.map(({ Lb }) => Lb))).toEqual([
      ["10", String(size)],
      ["10", String(size)],
    ]);
  });

  test("objects are read side by side in memory that has a limit, and no two predictions wait for each other", async () => {
    const config = await loadConfig({ file: join(infermill.folder, "infermill.json"), env: {} });
    const size = (await plainPicture(250, 5, 5)).length;
    const limit = 5 * size;
    const reader = createObjectReader(config, {}, limit);
    let held = 0;
    let most = 0;
    const read = async (count: number, from: number) => {
      const refs = Array.from({ length: count }, (_, at) => ({
        root: "many",
        path: `${String((from + at) % MANY).padStart(4, "0")}.jpg`,
      }));
      const { inputs, release } = await reader.read(refs);
      held += inputs.reduce((sum, { bytes }) => sum + bytes.length, 0);
      most = Math.max(most, held);
      await sleep(5);
      held -= count * size;
      release();
    };
    await Promise.all(Array.from({ length: 40 }, (_, at) => read([1, 3, 1, 5][at % 4]!, at)));
    expect([held, most > 3 * size, most <= limit]).toEqual([0, true, true]);
    await expect(read(6, 0)).rejects.toThrow(`must have at most ${limit} bytes, got ${6 * size}`);
    await read(5, 0);
  });

  test("a run continues when the server is killed in its middle and started again: no line fails", async () => {
    const run = (await (await post(JSON.stringify({ model: "Slow", folder: "many" }))).json()) as BulkRun;
    await until(
      () => s3.requests.filter((line) => line.includes("GET /many/in/00")).length > 20,
      "the middle",
    );
    await s3.kill();
    const refused = await post(JSON.stringify({ model: "Size", folder: "photos" }));
    const sent = await fetch(`${infermill.url}/v1/models/Size/predictions`, {
      method: "POST",
      headers: { "Content-Type": "image/jpeg" },
      body: new Uint8Array(await plainPicture(1, 2, 3)),
    });
    for (const answer of [refused, sent]) {
      expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "5"]);
      expect(await answer.json()).toMatchObject({
        code: "storage_unavailable",
        detail: expect.stringMatching(/^(photos|input_storage)\/.* can't be reached: ECONNREFUSED$/),
      });
    }
    await sleep(3000);
    await s3.restart();
    const { counts } = await ended(run);
    expect(counts).toEqual({ total: MANY, done: MANY, succeeded: MANY, failed: 0 });
    expect(new Set((await results(run)).map(({ index }) => index)).size).toBe(MANY);
  }, 120_000);

  test("a run of a server writes its results and annotated copies into a bucket", async () => {
    const asked = {
      model: "Size",
      folder: "photos",
      annotate: "marked/a",
      results: "found/a/results.ndjson",
    };
    const run = await ended((await (await post(JSON.stringify(asked))).json()) as BulkRun);
    expect(run).toMatchObject({ status: "completed", counts: { succeeded: 3 } });
    const summary = (await (await fetch(`${infermill.url}/v1/bulk/${run.id}/summary`)).json()) as BulkSummary;
    // One has the name of a picture, and is none.
    expect(summary.copies).toMatchObject({ drawn: 2, failed: 1 });
    const written = (await inBucket("outbox").read("found/a/results.ndjson")).toString();
    expect(written).toBe(await (await fetch(`${infermill.url}/v1/bulk/${run.id}/results`)).text());
    expect(linesOf(written)).toHaveLength(3);
    expect(await pathsIn("outbox", "copies")).toEqual(["a/2024/without-ending", "a/a b+ü.jpg"]);

    for (const [name, reason] of [
      ["found/a/results.ndjson", "is there already"],
      ["found/a/results.csv", "ends in .ndjson"],
      ["found/../a.ndjson", "must be <root>/<path>"],
      ["other/a.ndjson", "must begin with a root of results_roots (found, late, nowhere, here)"],
      ["nowhere/a.ndjson", "there is no such bucket"],
      ["here/elsewhere/a.ndjson", "leads out of its root"],
    ]) {
      const refused = await post(JSON.stringify({ ...asked, results: name }));
      expect([name, refused.status, await refused.text()]).toEqual([
        name,
        422,
        expect.stringContaining(reason!),
      ]);
    }
  });

  test("a manifest's results go into a folder", async () => {
    const line = JSON.stringify({ image: "photos/2024/without-ending" });
    const answer = await post(line, "application/x-ndjson", "?model=Size&results=here/b/c.ndjson");
    await ended((await answer.json()) as BulkRun);
    expect(readdirSync(join(folder, "here/b"))).toEqual(["c.ndjson"]);
    expect(linesOf(readFileSync(join(folder, "here/b/c.ndjson"), "utf8"))).toHaveLength(1);
  });

  test("a run of a server whose results can't be written fails with the reason; resumed, it only writes them", async () => {
    const asked = { model: "Slow", folder: "many", results: "late/results.ndjson" };
    const { id } = (await (await post(JSON.stringify(asked))).json()) as BulkRun;
    await s3.kill();
    rmSync(join(buckets, "late"), { recursive: true });
    await s3.restart();
    const failed = await ended({ id } as BulkRun);
    expect(failed).toMatchObject({
      status: "failed",
      counts: { total: MANY, succeeded: MANY },
      error: { detail: expect.stringContaining("there is no such bucket") },
    });
    await s3.kill();
    mkdirSync(join(buckets, "late"));
    await s3.restart();
    const from = s3.requests.length;
    const resumed = await fetch(`${infermill.url}/v1/bulk/${id}/resume`, { method: "POST" });
    expect(resumed.status).toBe(202);
    expect((await ended({ id } as BulkRun)).status).toBe("completed");
    expect(linesOf((await inBucket("late").read("results.ndjson")).toString())).toHaveLength(MANY);
    expect(s3.requests.slice(from).filter((line) => line.includes("/many"))).toEqual([]);
  }, 120_000);

  test("results that can't be uploaded leave a run whose upload is resumed", async () => {
    const config = join(folder, "size.json");
    const model = { loader: "PictureSizeModelLoader", model_loader_file: SIZE_LOADER };
    writeFileSync(config, JSON.stringify({ data_dir: join(folder, "data"), models: { Size: model } }));
    const run = (args: string) =>
      runInfermill([...`bulk ${args} --config`.split(" "), config], { cwd: folder, env: environment });
    const gone = join(buckets, "gone");
    mkdirSync(gone);
    await s3.kill();
    await s3.restart();
    const first = run("s3://pictures/photos -m Size --out s3://gone/results.ndjson");
    await first.printed(/over s3:\/\/pictures\/photos/);
    await s3.kill();
    rmSync(gone, { recursive: true });
    await s3.restart();
    expect((await first.exited).code).toBe(1);
    expect(first.output()).toContain("there is no such bucket");
    const [, id] = /infermill bulk --resume (bulk_\w+)/.exec(first.output())!;
    await s3.kill();
    mkdirSync(gone);
    await s3.restart();
    const from = s3.requests.length;
    const second = run(`--resume ${id}`);
    expect(await second.exited, second.output()).toEqual({ code: 0, signal: null });
    expect(linesOf((await inBucket("gone").read("results.ndjson")).toString())).toHaveLength(3);
    // Nothing is listed or read again.
    expect(s3.requests.slice(from).filter((line) => line.includes("/pictures"))).toEqual([]);
  }, 120_000);

  test("a listing that was interrupted continues behind what it listed", async () => {
    const run = openRunFolder({ data_dir: folder }, newBulkRunId());
    const names = openStorage({ url: "s3://names", endpoint: s3.endpoint });
    async function* untilFault(after: string | undefined) {
      let listed = 0;
      for await (const found of walkObjects(names, "of", { after })) {
        yield found;
        if (++listed === 1500) throw new Error("cut off");
      }
    }
    await expect(run.writeEntries(untilFault)).rejects.toThrow("cut off");
    const counts = await run.writeEntries((after) => walkObjects(names, "of", { after }));
    expect(counts?.total).toBe(2500);
    const entries = readFileSync(run.entriesFile, "utf8").trim().split("\n");
    expect(entries).toEqual(
      Array.from({ length: 2500 }, (_, index) => JSON.stringify(`${String(index).padStart(4, "0")}.jpg`)),
    );
    // The server writes its log when it comes to it.
    const asked = () =>
      s3.requests
        .filter((line) => /GET \/names\S*list-type/.test(line))
        .map((line) => /start-after=\S+?(\d+)\.jpg/.exec(line)?.[1] ?? "begin");
    await until(() => asked().length >= 5, "the log of five listings");
    expect(asked()).toEqual(["begin", "0999", "0999", "1999", "2499"]);
  });

  test("the command runs over a bucket and writes results, copies, a table and a report into one", async () => {
    const config = join(folder, "infermill.json");
    const model = { loader: "CenterNetModelLoader", model_path: ["demo://centernet"], class_names: ["coco"] };
    writeFileSync(config, JSON.stringify({ data_dir: join(folder, "data"), models: { Coco: model } }));
    const bulk = runInfermill(
      "bulk s3://pictures/sheep -m Coco --out s3://outbox/out/results.ndjson --annotate s3://outbox/marked --format csv --report s3://outbox/out/report.html"
        .split(" ")
        .concat("--config", config),
      { cwd: folder, env: environment },
    );
    expect(await bulk.exited, bulk.output()).toEqual({ code: 0, signal: null });
    expect(bulk.output()).toContain("results        s3://outbox/out/results.ndjson");
    expect(await pathsIn("outbox", "out")).toEqual(["report.html", "results.csv", "results.ndjson"]);
    expect(await pathsIn("outbox", "marked")).toEqual(["march-pastoral.jpg"]);
    const [line, ...others] = linesOf((await inBucket("outbox").read("out/results.ndjson")).toString());
    expect([line!.path, line!.result!.Fs.some(({ Lb }) => Lb === "sheep"), others]).toEqual([
      "march-pastoral.jpg",
      true,
      [],
    ]);
    expect((await inBucket("outbox").read("out/report.html")).toString()).toContain("data:image/jpeg;base64");

    for (const [args, reason] of [
      ["s3://pictures/sheep --out s3://outbox/out/results.ndjson", /is there already/],
      [
        "s3://pictures/sheep --out s3://outbox/other.ndjson --annotate s3://pictures/sheep/marked",
        /overwrite/,
      ],
      [
        "s3://pictures/none --out s3://outbox/other.ndjson",
        /there are no objects below s3:\/\/pictures\/none/,
      ],
      ["s3://nowhere/none", /there is no such bucket/],
      ["s3://pictures/sheep --out s3://nowhere/results.ndjson", /there is no such bucket/],
      ["gs://pictures/sheep", /s3:\/\/<bucket>\/<prefix>/],
    ] as const) {
      const refused = runInfermill(["bulk", ...args.split(" "), "-m", "Coco", "-c", config], {
        cwd: folder,
        env: environment,
      });
      expect([args, (await refused.exited).code]).toEqual([args, 2]);
      expect(refused.output()).toMatch(reason);
    }
  }, 120_000);
});
