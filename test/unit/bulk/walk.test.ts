import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Skipped, walkFolder, type WalkOptions } from "../../../src/bulk/walk.ts";
import { decodeFileName, toFilePath } from "../../../src/core/filePaths.ts";

describe("names that are not UTF-8", () => {
  it("become strings and come back as they were", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 30 }), (bytes) => {
        const name = Buffer.from(bytes);
        const text = decodeFileName(name);
        expect(Buffer.from(toFilePath(text))).toEqual(name);
        expect(JSON.parse(JSON.stringify(text))).toBe(text);
      }),
      { numRuns: 3000 },
    );
    for (const text of ["plain.jpg", "Füße 足.jpg", "😀.png", "\uFFFD.png"])
      expect(decodeFileName(Buffer.from(text))).toBe(text);
    // As Python's os.fsdecode has it.
    expect(decodeFileName(Buffer.from("caf\xe9.jpg", "latin1"))).toBe("caf\uDCE9.jpg");
  });
});

describe("a folder with every trap in it", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-walk-"));
  const photos = join(folder, "photos");
  const latin1 = decodeFileName(Buffer.from("caf\xe9.JPG", "latin1"));
  let jpeg: Buffer;

  beforeAll(async () => {
    const image = sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } });
    jpeg = await image.clone().jpeg().toBuffer();
    mkdirSync(join(photos, "Deep", "er"), { recursive: true });
    mkdirSync(join(photos, ".git"));
    mkdirSync(join(photos, "empty folder"));
    writeFileSync(join(photos, ".git", "a.jpg"), jpeg);
    for (const name of [
      "a.jpg",
      "B.JPG",
      "Deep/er/c.JpEg",
      "no-extension",
      "wrong.txt",
      "really a png.jpg",
      "x.heic",
    ])
      writeFileSync(join(photos, name), jpeg);
    writeFileSync(join(photos, "scan.TIF"), await image.clone().tiff().toBuffer());
    writeFileSync(toFilePath(join(photos, latin1)), jpeg);
    writeFileSync(join(photos, "empty.jpg"), "");
    writeFileSync(join(photos, "empty"), "");
    writeFileSync(join(photos, "notes.txt"), "Dear Sir or Madam");
    writeFileSync(join(photos, "paper.pdf"), "%PDF-1.7");
    writeFileSync(join(photos, "Thumbs.db"), Buffer.from([0xd0, 0xcf, 0x11, 0xe0]));
    writeFileSync(join(photos, ".hidden.jpg"), jpeg);
    writeFileSync(join(folder, "outside.jpg"), jpeg);
    symlinkSync(join(photos, "a.jpg"), join(photos, "link.jpg"));
    symlinkSync(join(folder, "outside.jpg"), join(photos, "out.jpg"));
    symlinkSync(join(folder, "nowhere"), join(photos, "broken.jpg"));
    symlinkSync(photos, join(photos, "loop"));
    execFileSync("mkfifo", [join(photos, "pipe.jpg")]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function walked(options: WalkOptions = {}) {
    const entries: string[] = [];
    const skipped: Record<string, string[]> = {};
    const details = new Map<string, string | undefined>();
    for await (const found of walkFolder(photos, options)) {
      if (!(found instanceof Skipped)) entries.push(found);
      else {
        (skipped[found.reason] ??= []).push(found.path);
        details.set(found.path, found.detail);
      }
    }
    for (const paths of Object.values(skipped)) paths.sort();
    return { entries: entries.toSorted(), skipped, details };
  }

  const PICTURES = [
    "B.JPG",
    "Deep/er/c.JpEg",
    "a.jpg",
    "empty.jpg",
    "link.jpg",
    "no-extension",
    "out.jpg",
    "really a png.jpg",
    "scan.TIF",
    "wrong.txt",
    "x.heic",
  ];

  it("has each file among the entries or among what is left out, by content and without regard to case", async () => {
    const { entries, skipped, details } = await walked();
    expect(entries).toEqual([...PICTURES, latin1].toSorted());
    expect(skipped).toEqual({
      hidden: [".git/", ".hidden.jpg"],
      not_a_picture: ["Thumbs.db", "notes.txt", "paper.pdf"],
      empty: ["empty"],
      broken_link: ["broken.jpg"],
      link_to_folder: ["loop"],
      not_a_file: ["pipe.jpg"],
    });
    expect(details.get("paper.pdf")).toBe("a PDF");
    expect(details.get("notes.txt")).toBe('bytes that begin with "Dear Sir or Madam"');
  });

  it("within a root, leaves out links that lead outside", async () => {
    const { entries, skipped } = await walked({ within: photos });
    expect(entries).not.toContain("out.jpg");
    expect(entries).toContain("link.jpg");
    expect(skipped["link_outside"]).toEqual(["out.jpg"]);
  });

  it("with a pattern, takes what matches whatever it is, and counts the rest", async () => {
    const { entries, skipped } = await walked({ glob: "*.{jpg,pdf}" });
    expect(entries).toEqual(
      [
        "B.JPG",
        "a.jpg",
        "empty.jpg",
        "link.jpg",
        "out.jpg",
        "paper.pdf",
        "really a png.jpg",
        latin1,
      ].toSorted(),
    );
    expect(skipped["not_matched"]).toEqual([
      "Deep/er/c.JpEg",
      "Thumbs.db",
      "empty",
      "no-extension",
      "notes.txt",
      "scan.TIF",
      "wrong.txt",
      "x.heic",
    ]);
  });

  it("that isn't there is an error", async () => {
    await expect(walkFolder(join(folder, "nowhere")).next()).rejects.toThrow("ENOENT");
  });
});
