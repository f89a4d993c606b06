import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkResult } from "../../support/answers.ts";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import { loadConfig } from "../../../src/config/load.ts";
import type { Finding } from "../../../src/imil/dictionaries.ts";
import { findingsOf } from "../../../src/imil/response.ts";
import { openModel } from "../../../src/engines/openModel.ts";
import { attachPictures } from "../../../src/imil/requestPictures.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { decodeFileName, toFilePath } from "../../../src/core/filePaths.ts";
import { startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { plainPicture, writeColourModel } from "../../support/pictures.ts";
import { whyNoRedis } from "../../support/redis.ts";

const PICTURES = 240;

describe.skipIf(whyNoRedis)("a bulk run over a folder", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-bulk-"));
  const photos = join(folder, "photos");
  let infermill: TestInfermill;
  const expected = new Map<string, Finding[]>();

  beforeAll(async () => {
    writeColourModel(join(folder, "colours.onnx"));
    infermill = await startInfermill({
      bulk_roots: { photos },
      models: {
        Colours: {
          loader: "ImageClassificationModelLoader",
          model_path: [join(folder, "colours.onnx")],
          class_names: ["red", "green", "blue"],
          conf_thres: 0,
        },
      },
    });
    const pictures = await makePictures();
    const config = await loadConfig({ file: join(infermill.folder, "infermill.json"), env: {} });
    const loader = await openModel(config, "Colours", () => {});
    for (const [path, bytes] of pictures) {
      mkdirSync(join(photos, path, ".."), { recursive: true });
      writeFileSync(join(photos, path), bytes);
      expected.set(path, [...findingsOf(await loader.predictRequest(attachPictures({}, [bytes])))]);
    }
    await loader.close();
    // A name of Latin-1, and a picture under a wrong name.
    const odd: [string, string][] = [
      [decodeFileName(Buffer.from("caf\xe9.JPG", "latin1")), "plain-0.jpg"],
      ["day 1/photo.txt", "plain-1.jpg"],
    ];
    for (const [path, like] of odd) {
      writeFileSync(toFilePath(join(photos, path)), pictures.get(like)!);
      expected.set(path, expected.get(like)!);
    }
    writeFileSync(join(photos, "broken.jpg"), "no picture");
    writeFileSync(join(photos, "notes.txt"), "not listed");
    writeFileSync(join(photos, ".hidden.jpg"), "not listed");
    symlinkSync("/etc", join(photos, "outside"));
    symlinkSync("/etc/passwd", join(photos, "passwd.jpg"));
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true });
  });

  /** Crops and flips of the sample photos, so that the answers differ. */
  async function makePictures(): Promise<Map<string, Buffer>> {
    const sources = (["march-pastoral", "nagasaki-boats"] as const).map((name) => findSamplePhoto(name)!);
    const pictures = new Map<string, Buffer>();
    for (let index = 0; index < PICTURES; index++) {
      const size = 80 + ((index * 13) % 160);
      const crop = sharp(sources[index % 2]).extract({
        left: (index * 31) % 600,
        top: (index * 17) % 200,
        width: size,
        height: size,
      });
      const path = `day ${index % 5}/${index}.${index % 3 === 0 ? "png" : "jpg"}`;
      pictures.set(
        path,
        await crop
          .flop(index % 4 === 0)
          .toFormat(index % 3 === 0 ? "png" : "jpeg")
          .toBuffer(),
      );
    }
    const colours: [number, number, number][] = [
      [250, 5, 5],
      [5, 250, 5],
      [5, 5, 250],
    ];
    for (const [index, colour] of colours.entries()) {
      pictures.set(`plain-${index}.jpg`, await plainPicture(...colour));
    }
    return pictures;
  }

  async function start(body: unknown): Promise<Response> {
    return fetch(`${infermill.url}/v1/bulk`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  async function ended(id: string): Promise<BulkRun> {
    return until(async () => {
      const run = (await (await fetch(`${infermill.url}/v1/bulk/${id}`)).json()) as BulkRun;
      return ["completed", "cancelled", "failed"].includes(run.status) && run;
    }, "the end of the run");
  }

  async function results(id: string, query = ""): Promise<BulkResult[]> {
    const answer = await fetch(`${infermill.url}/v1/bulk/${id}/results${query}`);
    expect(answer.headers.get("content-type")).toContain("application/x-ndjson");
    const text = await answer.text();
    return text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as BulkResult);
  }

  test("every picture has its line with the answer of the bare loader; hidden files, links and others are left out", async () => {
    const answer = await start({ model: "Colours", folder: "photos" });
    expect(answer.status).toBe(202);
    const { id, links } = (await answer.json()) as BulkRun;
    expect(answer.headers.get("location")).toBe(links.self);
    const run = await ended(id);
    expect(run).toMatchObject({ status: "completed", progress: 1 });
    expect(run.counts).toEqual({
      total: expected.size + 1,
      done: expected.size + 1,
      succeeded: expected.size,
      failed: 1,
    });

    expect(run.skipped).toEqual({
      total: 4,
      by_reason: { not_a_picture: 1, hidden: 1, link_outside: 2 },
    });
    const skipped = await (await fetch(`${infermill.url}${run.links.skipped}`)).text();
    expect(
      skipped
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual(
      expect.arrayContaining([
        { path: "notes.txt", reason: "not_a_picture", detail: 'bytes that begin with "not listed"' },
        { path: ".hidden.jpg", reason: "hidden" },
        { path: "outside", reason: "link_outside" },
        { path: "passwd.jpg", reason: "link_outside" },
      ]),
    );

    const lines = await results(id);
    const succeeded = lines.filter(({ status }) => status === "succeeded");
    expect(new Map(succeeded.map(({ path, result }) => [path, result!.Fs]))).toEqual(expected);
    expect(new Set([...expected.values()].map((findings) => JSON.stringify(findings))).size).toBeGreaterThan(
      10,
    );
    expect(await results(id, "?status=failed")).toEqual([
      expect.objectContaining({
        path: "broken.jpg",
        status: "failed",
        error: expect.objectContaining({ code: "bad_input" }),
      }),
    ]);
  });

  test("a glob and a request for all of its files are heeded", async () => {
    const { id } = (await (
      await start({ model: "Colours", folder: "photos", glob: "plain-*.jpg", request: { C_threshold: 0.5 } })
    ).json()) as BulkRun;
    await ended(id);
    const labels = (await results(id)).map(
      ({ path, result }) => `${path} ${result!.Fs.map(({ Lb }) => Lb).join()}`,
    );
    expect(labels.toSorted()).toEqual(["plain-0.jpg red", "plain-1.jpg green", "plain-2.jpg blue"]);
  });

  test("nothing outside of the roots can be named", async () => {
    for (const outside of [
      "/etc",
      "photos/..",
      "photos/../..",
      "elsewhere",
      "photos/outside",
      "photos/none",
      "",
    ]) {
      const answer = await start({ model: "Colours", folder: outside });
      expect({ outside, status: answer.status }).toEqual({ outside, status: 422 });
      expect(answer.headers.get("content-type")).toContain("application/problem+json");
    }
    expect((await start({ model: "None", folder: "photos" })).status).toBe(404);
  });

  test("a manifest's faults are listed with their lines before anything runs", async () => {
    const before = ((await (await fetch(`${infermill.url}/v1/bulk`)).json()) as { runs: unknown[] }).runs
      .length;
    const answer = await fetch(`${infermill.url}/v1/bulk?model=Colours`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: ['{"image":"photos/plain-0.jpg"}', "{", '{"image":"photos/../x.jpg"}', '{"picture":"x"}'].join(
        "\n",
      ),
    });
    expect(answer.status).toBe(422);
    const { errors } = (await answer.json()) as { errors: { key: string }[] };
    expect(errors.map(({ key }) => key.replace(/:.*/, ""))).toEqual(["line 2", "line 3", "line 4"]);
    expect(
      ((await (await fetch(`${infermill.url}/v1/bulk`)).json()) as { runs: unknown[] }).runs,
    ).toHaveLength(before);
  });

  test("a manifest brings files and pictures, and its custom ids come back", async () => {
    const green = (await plainPicture(5, 250, 5)).toString("base64");
    const answer = await fetch(`${infermill.url}/v1/bulk?model=Colours`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: [
        { custom_id: "file", image: "photos/plain-0.jpg", request: { C_threshold: 0.5 } },
        { custom_id: "bytes", image: green, request: { C_threshold: 0.5 } },
      ]
        .map((line) => JSON.stringify(line))
        .join("\n"),
    });
    const { id } = (await answer.json()) as BulkRun;
    await ended(id);
    const labels = (await results(id)).map(({ custom_id, result }) => [custom_id, result!.Fs[0]!.Lb]);
    expect(Object.fromEntries(labels)).toEqual({ file: "red", bytes: "green" });
  });

  test("a run that has ended can be deleted, with its results", async () => {
    const { id } = (await (
      await start({ model: "Colours", folder: "photos", glob: "plain-*.jpg" })
    ).json()) as BulkRun;
    await ended(id);
    expect((await fetch(`${infermill.url}/v1/bulk/${id}`, { method: "DELETE" })).status).toBe(204);
    expect((await fetch(`${infermill.url}/v1/bulk/${id}`)).status).toBe(404);
    expect((await fetch(`${infermill.url}/v1/bulk/${id}/results`)).status).toBe(404);
  });

  test("its events tell of progress until it ends", async () => {
    const { links } = (await (await start({ model: "Colours", folder: "photos" })).json()) as BulkRun;
    const text = await (await fetch(infermill.url + links.events)).text();
    const data = [...text.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json!) as BulkRun);
    expect(data.at(-1)).toMatchObject({ status: "completed" });
    const last = [...text.matchAll(/^id: (.*)$/gm)].at(-1)![1]!;
    const again = await fetch(infermill.url + links.events, { headers: { "Last-Event-ID": last } });
    expect(again.status).toBe(204);
  });
});
