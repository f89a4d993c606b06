import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { overlap } from "../../../src/bulk/copies.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { isSafeKey, isStorageUrl } from "../../../src/config/storagePlace.ts";
import { placeOfUrl } from "../../../src/storage/storage.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-places-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function load(settings: Record<string, unknown>) {
  const file = join(folder, "infermill.json");
  writeFileSync(file, JSON.stringify({ ...settings, models: { Model: { loader: "EchoModelLoader" } } }));
  return loadConfig({ file, env: {} });
}

test("a place is a URL or an object, and takes from s3 what it does not say itself", async () => {
  const config = await load({
    s3: { region: "eu-central-1", endpoint: "http://127.0.0.1:9000" },
    bulk_roots: {
      here: "photos",
      there: "s3://bucket/a/b/",
      other: { url: "s3://other", endpoint: "https://example.org", path_style: false },
    },
    inputs: "s3",
    input_storage: "s3://outbox/inputs",
  });
  const shared = { region: "eu-central-1", endpoint: "http://127.0.0.1:9000" };
  expect(config.bulk_roots).toEqual({
    here: join(folder, "photos"),
    there: { ...shared, url: "s3://bucket/a/b" },
    other: { ...shared, url: "s3://other", endpoint: "https://example.org", path_style: false },
  });
  expect(config.input_storage).toEqual({ ...shared, url: "s3://outbox/inputs" });
  // On a command line, a bucket is reached as its root is.
  expect(placeOfUrl("s3://other/c", config)).toMatchObject({ url: "s3://other/c", path_style: false });
  expect(placeOfUrl("s3://new", config)).toEqual({ ...shared, url: "s3://new" });
});

test.each([
  [{ bulk_roots: { a: "gs://bucket" } }, /bulk_roots\.a must be a folder or s3:\/\//],
  [{ bulk_roots: { a: "s3://bucket/../up" } }, /bulk_roots\.a must be/],
  [{ bulk_roots: { a: { url: "s3://b" } } }, /bulk_roots\.a.* must be/],
  [{ bulk_roots: { a: { url: "/srv/photos" } } }, /bulk_roots\.a.* must be/],
  [{ s3: { endpoint: "127.0.0.1:9000" } }, /s3\.endpoint must be an http:\/\/ or https:\/\/ URL/],
  [{ inputs: "s3" }, /input_storage .*must be set for inputs: "s3"/],
  [{ input_storage: "s3://outbox" }, /input_storage goes with inputs: "s3" only/],
])("%j is refused with its reason", async (settings, reason) => {
  await expect(load(settings)).rejects.toThrow(reason);
});

test("no key that is safe leaves its prefix, however a server reads it", () => {
  const part = fc.oneof(
    fc.constantFrom("..", ".", "", "a", "..a", "%2e%2e", "\\", "..\\", "\0"),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 6 }), (parts) => {
      const key = parts.join("/");
      if (!isSafeKey(key)) return;
      const read = new URL(`http://host/prefix/${key.split("/").map(encodeURIComponent).join("/")}`);
      expect(decodeURIComponent(read.pathname)).toBe(`/prefix/${key}`);
      expect(join("/prefix", key.replaceAll("\\", "/")).startsWith("/prefix/")).toBe(true);
    }),
  );
  for (const key of ["a/../b", "../a", "a/..", "a//b", "/a", "a/", "", "a\0", "a/..\\b", ".", "\ud800"])
    expect([key, isSafeKey(key)]).toEqual([key, false]);
  for (const key of ["a", "a/b..c", "..a", "a b+ü%2f", "a/...", "..%2fa"])
    expect([key, isSafeKey(key)]).toEqual([key, true]);
  expect(["s3://bucket", "s3://bucket/", "s3://bucket/a/"].every(isStorageUrl)).toBe(true);
  expect(["s3://", "s3://ab", "s3:/bucket", "s3://bucket//a", "http://bucket"].some(isStorageUrl)).toBe(
    false,
  );
});

test("copies and originals overlap where one place is the other or lies in it", () => {
  const at = (url: string, endpoint?: string) => ({ url, endpoint });
  expect(overlap(at("s3://b/a"), at("s3://b/a/c"))).toBe(true);
  expect(overlap(at("s3://b"), at("s3://b/a"))).toBe(true);
  expect(overlap(at("s3://b/a"), at("s3://b/ab"))).toBe(false);
  expect(overlap(at("s3://b/a"), at("s3://b/a", "http://127.0.0.1"))).toBe(false);
  expect(overlap("/srv/a", at("s3://b/a"))).toBe(false);
  expect(overlap("/srv/a", "/srv/a/b")).toBe(true);
});
