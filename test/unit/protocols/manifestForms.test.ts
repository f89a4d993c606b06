import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parquetWriteBuffer, type ColumnSource } from "hyparquet-writer";
import { afterAll, expect, test } from "vitest";
import type { BulkEntry } from "../../../src/bulk/spec.ts";
import { configSchema, type Config } from "../../../src/config/schema.ts";
import { InvalidRequestError } from "../../../src/errors.ts";
import { readManifest } from "../../../src/protocols/native/manifest.ts";
import { plainPicture } from "../../support/pictures.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-manifests-"));
afterAll(() => rmSync(folder, { recursive: true }));
const settings = {
  data_dir: folder,
  bulk_roots: { photos: folder, lake: { url: "s3://bucket/lake" } },
  models: { Model: { loader: "EchoModelLoader" } },
};
const config: Config = { ...configSchema.parse(settings), file: join(folder, "infermill.json") };

type Form = Parameters<typeof readManifest>[0];

async function entriesOf(
  form: Form,
  bytes: string | ArrayBuffer,
  hasUniqueIds = false,
): Promise<BulkEntry[]> {
  async function* body() {
    const whole = typeof bytes === "string" ? Buffer.from(bytes) : Buffer.from(bytes);
    for (let start = 0; start < whole.length; start += 100) yield whole.subarray(start, start + 100);
  }
  const entries: BulkEntry[] = [];
  const options = { model: "Model", needs: undefined, hasUniqueIds };
  for await (const entry of readManifest(form, body(), config, options)) entries.push(entry);
  return entries;
}

async function faultsOf(form: Form, bytes: string | ArrayBuffer, hasUniqueIds = false): Promise<string[]> {
  const error: unknown = await entriesOf(form, bytes, hasUniqueIds).catch((thrown: unknown) => thrown);
  return (
    (error as InvalidRequestError).faults?.map(({ key, problem }) => `${key} ${problem}`) ?? [String(error)]
  );
}

const parquetOf = (columnData: ColumnSource[]) => parquetWriteBuffer({ columnData, rowGroupSize: 2 });

const expected = [
  {
    custom_id: "7",
    refs: [{ root: "photos", path: "a, b.jpg" }],
    request: { C_threshold: 0.4, n: { deep: [1] } },
  },
  { refs: [{ url: "https://example.org/c.jpg" }] },
  {
    custom_id: "d",
    refs: [
      { root: "lake", path: "d.jpg" },
      { root: "lake", path: "e.jpg" },
    ],
  },
];

test("a manifest in CSV is the one in lines of JSON", async () => {
  const csv = [
    "\uFEFFcustom_id, image ,request",
    `7,"photos/a, b.jpg","{""C_threshold"": 0.4, ""n"": {""deep"": [1]}}"`,
    ",https://example.org/c.jpg,",
    "",
    `d,"[""lake/d.jpg"",""lake/e.jpg""]",`,
  ].join("\r\n");
  expect(await entriesOf("csv", csv)).toEqual(expected);
});

test("a manifest in Parquet is the one in lines of JSON, also with whole numbers, lists and objects", async () => {
  const parquet = parquetOf([
    { name: "custom_id", data: ["7", null, "d"], type: "STRING" },
    {
      name: "image",
      data: ["photos/a, b.jpg", "https://example.org/c.jpg", '["lake/d.jpg","lake/e.jpg"]'],
      type: "STRING",
    },
    { name: "request", data: [{ C_threshold: 0.4, n: { deep: [1] } }, null, null], type: "JSON" },
  ]);
  expect(await entriesOf("parquet", parquet)).toEqual(expected);
  const numbered = parquetOf([
    { name: "custom_id", data: [12n, 13n, 14n], type: "INT64" },
    { name: "image", data: ["photos/a.jpg", "photos/b.jpg", "photos/c.jpg"], type: "STRING" },
  ]);
  expect(
    (await entriesOf("parquet", numbered)).map((entry) => (entry as { custom_id?: string }).custom_id),
  ).toEqual(["12", "13", "14"]);
});

test("pictures inside Parquet are taken as they are, and text without a type is text", async () => {
  const picture = await plainPicture(1, 2, 3);
  const bytes = [new Uint8Array(picture), new TextEncoder().encode("photos/a.jpg")];
  const entries = await entriesOf("parquet", parquetOf([{ name: "image", data: bytes, type: "BYTE_ARRAY" }]));
  expect(entries).toEqual([
    { base64: [picture.toString("base64")] },
    { refs: [expect.objectContaining({ root: "photos", path: "a.jpg" })] },
  ]);
});

test("every fault is told with its line or row, and nothing stays behind", async () => {
  const csv = "image,request,colour\nphotos/../x.jpg,,\nnowhere/x.jpg,{,\nphotos/x.jpg,,red";
  expect(await faultsOf("csv", csv)).toEqual([
    expect.stringMatching(/^line 2: image must stay below its root/),
    expect.stringMatching(/^line 3.*request/),
    expect.stringMatching(/^line 4.*colour/),
  ]);
  expect(await faultsOf("csv", 'image\n"photos/a')).toEqual([expect.stringMatching(/is no CSV/)]);
  const rows = parquetOf([{ name: "image", data: ["photos/a.jpg", "lake/../b", "/c"], type: "STRING" }]);
  expect(await faultsOf("parquet", rows)).toEqual([
    expect.stringMatching(/^row 2: image must stay below its root/),
    expect.stringMatching(/^row 3: image/),
  ]);
  for (const broken of [
    rows.slice(0, rows.byteLength - 9),
    new ArrayBuffer(0),
    rows.slice(rows.byteLength - 40),
  ])
    expect(await faultsOf("parquet", broken)).toEqual([
      expect.stringMatching(/can't be read as Parquet|cut off/),
    ]);
  expect(await faultsOf("csv", "image\n")).toEqual([expect.stringMatching(/at least one entry/)]);
  expect(readdirSync(folder)).toEqual([]);
});

test("a custom_id that comes twice is told with both lines, where they are to be unique", async () => {
  const long = "x".repeat(500);
  const lines = ["a", "b", "a", long, undefined, undefined, `${long}y`, long].map((custom_id) =>
    JSON.stringify({ custom_id, image: "photos/a.jpg" }),
  );
  expect(await faultsOf("ndjson", lines.join("\n"), true)).toEqual([
    'line 3: custom_id must be unique, "a" is that of line 1, too',
    `line 8: custom_id must be unique, "${"x".repeat(80)}" is that of line 4, too`,
  ]);
  expect(await entriesOf("ndjson", lines.join("\n"))).toHaveLength(8);
});
