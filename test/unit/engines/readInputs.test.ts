import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readInputs } from "../../../src/engines/node/readInputs.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-inputs-"));
afterAll(() => rmSync(folder, { recursive: true }));
const photos = join(folder, "photos");
mkdirSync(join(photos, "a"), { recursive: true });
const [small, large] = [Buffer.from("small"), Buffer.alloc(5 * 1024 * 1024, 7)];
writeFileSync(join(photos, "small.jpg"), small);
writeFileSync(join(photos, "a", "large.jpg"), large);
writeFileSync(join(folder, "upload"), large);
symlinkSync("../upload", join(photos, "outside.jpg"));

test("each input is read, wherever it is and however large, and what can't be read is an error in its place", async () => {
  const found = await readInputs(
    [
      { root: "photos", path: "small.jpg" },
      { bytes: small },
      { root: "photos", path: "a/large.jpg" },
      { file: "upload" },
      { path: join(photos, "a", "large.jpg") },
      { root: "photos", path: "none.jpg" },
      { root: "photos", path: "outside.jpg" },
      { root: "photos", path: "a" },
      { path: join(folder, "gone.jpg") },
      { file: "gone" },
    ],
    { folder, roots: { photos } },
  );
  expect(found.slice(0, 5).map((each) => Buffer.isBuffer(each) && each.length)).toEqual(
    [small, small, large, large, large].map(({ length }) => length),
  );
  expect(found.slice(5).map((each) => (each as Error).message)).toEqual([
    "there is no file photos/none.jpg",
    "photos/outside.jpg leads out of its bulk root",
    "photos/a is no regular file",
    `there is no file ${join(folder, "gone.jpg")}`,
    expect.stringContaining("the stored picture is gone"),
  ]);
});
