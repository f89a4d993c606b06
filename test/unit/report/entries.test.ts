import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { BulkResult } from "../../../src/core/bulkRun.ts";
import { formatJson } from "../../../src/core/json.ts";
import { chooseGallery } from "../../../src/report/gallery.ts";
import { findResult, readEntryPage, type EntryQuery } from "../../../src/report/entries.ts";
import { rowsOf } from "../../../src/report/rows.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-entries-"));
const results = join(folder, "results.ndjson");
afterAll(() => rmSync(folder, { recursive: true }));

const COUNT = 97;
const scoreOf = (index: number) => ((index * 31) % COUNT) / 100;
const lines = Array.from({ length: COUNT }, (_, line) => {
  // They end in another order than they have in the folder.
  const index = (line * 13) % COUNT;
  const shared = {
    index,
    status: index % 10 === 3 ? "failed" : "succeeded",
    line: line + 1,
    path: `${index}.jpg`,
  };
  if (shared.status === "failed") return { ...shared, error: { code: "bad_input", title: "", detail: "" } };
  const Fs = [
    { Cs: scoreOf(index), Lb: index % 2 === 0 ? "even" : "odd", Dm: {} },
    { Cs: 0.01, Lb: "any", Dm: {} },
  ];
  const timings = { queue_ms: 1000, read_ms: 1, preprocess_ms: 1, infer_ms: index, postprocess_ms: 1 };
  return { ...shared, result: { Fs }, timings };
});
writeFileSync(results, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));

async function readAll(query: Partial<EntryQuery>) {
  const entries = [];
  let cursor: string | undefined;
  do {
    const page = await readEntryPage("bulk_1", results, { sort: "line", limit: 10, ...query, cursor }, true);
    expect(page.entries.length).toBeLessThanOrEqual(10);
    entries.push(...page.entries);
    cursor = page.next_cursor ?? undefined;
  } while (cursor);
  return entries;
}

test("page by page every entry comes once, in the order in which they ended", async () => {
  const entries = await readAll({});
  expect(entries.map(({ line }) => line)).toEqual(lines.map(({ line }) => line));
  expect(entries[0]).toMatchObject({
    id: "bulk_1-0",
    index: 0,
    path: "0.jpg",
    duration_ms: 3,
    finished_at: null,
  });
});

test("entries are chosen by status, label and score", async () => {
  expect((await readAll({ status: "failed" })).map(({ index }) => index % 10)).toEqual(
    Array.from({ length: 10 }, () => 3),
  );
  const even = await readAll({ label: "even", min_score: 0.5, max_score: 0.6 });
  const wanted = lines.filter(
    ({ index, status }) =>
      status === "succeeded" && index % 2 === 0 && scoreOf(index) >= 0.5 && scoreOf(index) <= 0.6,
  );
  expect(wanted.length).toBeGreaterThan(2);
  expect(even.map(({ index }) => index)).toEqual(wanted.map(({ index }) => index));
  // The score of a label's own finding counts, not that of another one.
  expect(await readAll({ label: "any", min_score: 0.5 })).toEqual([]);
});

test.each([
  ["-duration", (index: number) => -index],
  ["score", (index: number) => Math.max(0.01, scoreOf(index))],
  ["-score", (index: number) => -Math.max(0.01, scoreOf(index))],
] as const)("sorted by %s every entry that has it comes once, in this order", async (sort, keyOf) => {
  const wanted = lines.filter(({ status }) => status === "succeeded").map(({ index }) => index);
  const keys = wanted.map(keyOf).toSorted((a, b) => a - b);
  const entries = await readAll({ sort });
  expect(entries.map(({ index }) => keyOf(index))).toEqual(keys);
  expect(new Set(entries.map(({ index }) => index))).toEqual(new Set(wanted));
});

test("a page of a run that continues can be continued", async () => {
  const all = { sort: "line", limit: 200 } as const;
  const { next_cursor } = await readEntryPage("bulk_1", results, all, false);
  expect(await readEntryPage("bulk_1", results, { ...all, cursor: next_cursor! }, false)).toEqual({
    entries: [],
    next_cursor,
  });
  await expect(readEntryPage("bulk_1", results, { ...all, cursor: "x" }, true)).rejects.toThrow(
    /must be the next_cursor of a page with sort=line/,
  );
  const other = { ...all, sort: "score", cursor: next_cursor! } as const;
  await expect(readEntryPage("bulk_1", results, other, true)).rejects.toThrow(/sort=score/);
});

test("a number that JavaScript can't hold stays what it is in an entry, and in the rows of one without findings", async () => {
  const file = join(folder, "exact.ndjson");
  writeFileSync(file, '{"index":0,"status":"succeeded","line":1,"result":{"id":9007199254740993}}\n');
  const page = await readEntryPage("bulk_1", file, { sort: "line", limit: 1 }, true);
  const alone = await findResult(file, 0);
  for (const written of [page, alone].map((value) => formatJson(value)))
    expect(written).toContain('{"id":9007199254740993}');
  const [row] = rowsOf(readFileSync(file, "utf8"));
  expect(row!.result).toBe('{"id":9007199254740993}');
});

test("an entry is found by its index, with and without the place of its line", async () => {
  const place = JSON.stringify(lines[0]).length + 1;
  for (const at of [undefined, place, 5, 1e9])
    expect(await findResult(results, lines[1]!.index, at)).toEqual({ result: lines[1], at: place });
  expect(await findResult(results, COUNT)).toBeUndefined();
  expect(await findResult(join(folder, "none"), 0)).toBeUndefined();
});

test("a gallery has the first failures, the first, the least sure and a sample, each entry once, and always the same", async () => {
  const gallery = await chooseGallery("bulk_1", results);
  const indices = Object.values(gallery).map((shown: BulkResult[]) => shown.map(({ index }) => index));
  expect(indices.map(({ length }) => length)).toEqual([6, 12, 12, 12]);
  expect(new Set(indices.flat()).size).toBe(42);
  const firstSeen = new Set(gallery.first.map(({ index }) => index));
  const leastSure = lines
    .filter(({ status, index }) => status === "succeeded" && !firstSeen.has(index))
    .map(({ index }) => Math.max(0.01, scoreOf(index)))
    .toSorted((a, b) => a - b);
  expect(gallery.leastSure.map(({ index }) => Math.max(0.01, scoreOf(index)))).toEqual(
    leastSure.slice(0, 12),
  );
  expect(await chooseGallery("bulk_1", results)).toEqual(gallery);
  expect(await chooseGallery("bulk_2", results)).not.toEqual(gallery);
});
