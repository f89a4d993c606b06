import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { parquetReadObjects } from "hyparquet";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openRunFolder } from "../../../src/bulk/runFolder.ts";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import { writeCoco } from "../../../src/report/coco.ts";
import { writeParquet } from "../../../src/report/parquet.ts";
import { writeCsv } from "../../../src/report/csv.ts";
import { compressRuns } from "../../../src/imil/runLengths.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-formats-"));
const pictures = join(folder, "pictures");
const results = join(folder, "results.ndjson");
const id = "bulk_00000000000000000000000000000000";

beforeAll(async () => {
  const { mkdirSync } = await import("node:fs");
  mkdirSync(pictures);
  await picture(200, 100).jpeg().toFile(join(pictures, "flat.jpg"));
  // Turned by its EXIF: it is seen as 100 × 200.
  await picture(200, 100).withMetadata({ orientation: 6 }).jpeg().toFile(join(pictures, "turned.jpg"));
  await picture(40, 20).gif().toFile(join(pictures, "small.gif"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function picture(width: number, height: number) {
  return sharp({ create: { width, height, channels: 3, background: "#468" } });
}

const box = { X: 0.1, Y: 0.2, W: 0.3, H: 0.4 };

function write(lines: Record<string, unknown>[]): void {
  const whole = lines.map((line, at) => ({ index: at, status: "succeeded", line: at + 1, ...line }));
  writeFileSync(results, whole.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

async function csv(): Promise<string[]> {
  let text = "";
  for await (const part of writeCsv(results)) text += part;
  return text.trimEnd().split("\n");
}

async function coco() {
  const spec = {
    id,
    model: "Model",
    source: { kind: "folder" as const, folder: pictures },
    request: {},
    priority: "low" as const,
    created: 0,
  };
  const run = { id, folder: pictures, created_at: "2026-01-01T00:00:00Z", counts: {} } as BulkRun;
  const options = { spec, run, folder: openRunFolder({ data_dir: folder }, id), resultsFile: results };
  let text = "";
  for await (const part of await writeCoco({
    ...options,
    config: { bulk_roots: {}, annotate_roots: {}, results_roots: {}, s3: {} },
  }))
    text += part;
  return JSON.parse(text);
}

async function parquet(): Promise<Record<string, unknown>[]> {
  const parts: Uint8Array[] = [];
  for await (const part of writeParquet(results)) parts.push(part);
  const { buffer, byteOffset, byteLength } = Buffer.concat(parts);
  const file = buffer.slice(byteOffset, byteOffset + byteLength);
  return parquetReadObjects({ file });
}

const HEADINGS =
  "index,path,custom_id,status,findings,finding,label,score,x,y,width,height,angle,value,picture,result,error_code,error_detail,duration_ms,finished_at";

test("CSV has a row for each finding, one for nothing found, and one for a failure that has no number of findings", async () => {
  const error = { code: "bad_input", title: "", detail: 'it says "no", twice' };
  const finished_at = "2026-01-01T00:00:00.000Z";
  write([
    {
      path: "a.jpg",
      result: {
        Fs: [
          { Cs: 0.5, Lb: "cat", Dm: box },
          { Cs: 0.25, Lb: "dog, wet", Dm: {} },
        ],
      },
    },
    { custom_id: "empty", result: { Fs: [] }, finished_at },
    { path: "c.jpg", status: "failed", error },
    { path: "d.txt", result: { answer: 42 } },
  ]);
  expect(await csv()).toEqual([
    HEADINGS,
    "0,a.jpg,,succeeded,2,0,cat,0.5,0.1,0.2,0.3,0.4,,,,,,,,",
    '0,a.jpg,,succeeded,2,1,"dog, wet",0.25,,,,,,,,,,,,',
    `1,,empty,succeeded,0,,,,,,,,,,,,,,,${finished_at}`,
    '2,c.jpg,,failed,,,,,,,,,,,,,bad_input,"it says ""no"", twice",,',
    '3,d.txt,,succeeded,,,,,,,,,,,,"{""answer"":42}",,,,',
  ]);
});

test("no cell of a CSV is a formula to a spreadsheet, and numbers stay numbers", async () => {
  write([
    { path: "=cmd|' /C calc'!A0.jpg", result: { Fs: [{ Cs: 0.5, Lb: "@SUM(A1)", Dm: {}, Value: -3 }] } },
  ]);
  expect((await csv())[1]).toBe("0,'=cmd|' /C calc'!A0.jpg,,succeeded,1,0,'@SUM(A1),0.5,,,,,,-3,,,,,,");
});

test("CSV of no results is its headings", async () => {
  writeFileSync(results, "");
  expect(await csv()).toEqual([HEADINGS]);
});

test("COCO's boxes are in pixels of the picture as it is seen, and a failure is no image without findings", async () => {
  write([
    { path: "flat.jpg", result: { Fs: [{ Cs: 0.5, Lb: "dog", Dm: box }] } },
    { path: "turned.jpg", result: { Fs: [{ Cs: 0.6, Lb: "cat", Dm: box }] } },
    { path: "small.gif", result: { Fs: [] } },
    { path: "broken.jpg", status: "failed", error: { code: "bad_input", title: "", detail: "no picture" } },
  ]);
  const { images, annotations, categories, infermill } = await coco();
  expect(images).toEqual([
    { id: 1, file_name: "flat.jpg", width: 200, height: 100 },
    { id: 2, file_name: "turned.jpg", width: 100, height: 200 },
    { id: 3, file_name: "small.gif", width: 40, height: 20 },
  ]);
  // COCO's own numbers, since all labels are its own.
  expect(categories).toEqual([
    { id: 17, name: "cat", supercategory: "" },
    { id: 18, name: "dog", supercategory: "" },
  ]);
  expect(annotations).toEqual([
    {
      id: 1,
      image_id: 1,
      category_id: 18,
      bbox: [20, 20, 60, 40],
      segmentation: [],
      area: 2400,
      iscrowd: 0,
      score: 0.5,
    },
    {
      id: 2,
      image_id: 2,
      category_id: 17,
      bbox: [10, 40, 30, 80],
      segmentation: [],
      area: 2400,
      iscrowd: 0,
      score: 0.6,
    },
  ]);
  expect(infermill.failed).toEqual([
    { index: 3, file_name: "broken.jpg", code: "bad_input", detail: "no picture" },
  ]);
});

test("COCO has masks with their area, boxes at an angle as outlines, and key points", async () => {
  // 3 pixels, then 2 of the mask, then 15 without, in a picture of 4 × 5.
  const Rle = { size: [5, 4], counts: compressRuns([3, 2, 15]) };
  const Corners = [
    [0.25, 0],
    [0.5, 0.5],
    [0.25, 1],
    [0, 0.5],
  ];
  const Kp = { 1: [0.5, 0.5, 0, 0.9], 3: [0.1, 0.1, 0, 0.1] };
  write([
    { path: "gone.jpg", result: { Fs: [{ Cs: 0.9, Lb: "thing", Dm: box, Msk: { Rle, Poly: [] } }] } },
    { path: "flat.jpg", result: { Fs: [{ Cs: 0.9, Lb: "ship", Dm: box, Rb: { Angle: 1, Corners } }] } },
    { path: "flat.jpg", result: { Fs: [{ Cs: 0.9, Lb: "hand", Dm: box, Kp }] } },
  ]);
  const { images, annotations, categories } = await coco();
  // A mask says the size, also where the picture is gone.
  expect(images[0]).toEqual({ id: 1, file_name: "gone.jpg", width: 4, height: 5 });
  expect(annotations[0]).toMatchObject({ segmentation: Rle, area: 2 });
  expect(annotations[1]).toMatchObject({ segmentation: [[50, 0, 100, 50, 50, 100, 0, 50]], area: 5000 });
  expect(annotations[2]).toMatchObject({ keypoints: [100, 50, 2, 0, 0, 0, 20, 10, 1], num_keypoints: 2 });
  expect(categories.map(({ id: number, name }: { id: number; name: string }) => [number, name])).toEqual([
    [1, "hand"],
    [2, "ship"],
    [3, "thing"],
  ]);
  expect(categories[0]).toMatchObject({ keypoints: ["1", "2", "3"], skeleton: [] });
});

test("what COCO's format can't say is refused with the reason", async () => {
  write([{ path: "flat.jpg", result: { Fs: [{ Cs: 0.9, Lb: "cat", Dm: {} }] } }]);
  await expect(coco()).rejects.toThrow(/findings with boxes, and those of flat\.jpg have none; ask for csv/);
  write([{ path: "flat.jpg", result: { embedding: [] } }]);
  await expect(coco()).rejects.toThrow(/for findings, and flat\.jpg has none/);
  write([{ path: "gone.jpg", result: { Fs: [{ Cs: 0.9, Lb: "cat", Dm: box }] } }]);
  await expect(coco()).rejects.toThrow(/the size of gone\.jpg can't be found out: .*ENOENT/);
  write([{ path: "../flat.jpg", result: { Fs: [{ Cs: 0.9, Lb: "cat", Dm: box }] } }]);
  await expect(coco()).rejects.toThrow(/names no file of its folder/);
});

test("Parquet has the rows of CSV with types of its own, in row groups, and is whole without a row", async () => {
  const finished_at = "2026-01-01T00:00:00.000Z";
  write([
    {
      path: "a.jpg",
      result: {
        Fs: [
          { Cs: 0.5, Lb: "cat", Dm: box },
          { Cs: 0.25, Lb: "=dog", Dm: {}, Value: -3 },
        ],
      },
      finished_at,
    },
    { path: "c.jpg", status: "failed", error: { code: "bad_input", title: "", detail: "no picture" } },
    ...Array.from({ length: 25_000 }, (_, index) => ({ path: `${index}.jpg`, result: { Fs: [] } })),
  ]);
  const rows = await parquet();
  expect(rows.length).toBe(25_003);
  const named = (row: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(row).filter(([, cell]) => cell !== null));
  const shared = {
    index: 0,
    path: "a.jpg",
    status: "succeeded",
    findings: 2,
    finished_at: new Date(finished_at),
  };
  expect(rows.slice(0, 3).map(named)).toEqual([
    { ...shared, finding: 0, label: "cat", score: 0.5, x: 0.1, y: 0.2, width: 0.3, height: 0.4 },
    { ...shared, finding: 1, label: "=dog", score: 0.25, value: -3 },
    { index: 1, path: "c.jpg", status: "failed", error_code: "bad_input", error_detail: "no picture" },
  ]);
  expect(named(rows.at(-1)!)).toEqual({ index: 25_001, path: "24999.jpg", status: "succeeded", findings: 0 });
  expect(Object.keys(rows[0]!).join(",")).toBe(HEADINGS);

  writeFileSync(results, "");
  expect(await parquet()).toEqual([]);
});
