import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openBelowRoot, openBelowRootNow } from "../../../src/config/bulkRoots.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-roots-"));
afterAll(() => rmSync(folder, { recursive: true }));
const photos = join(folder, "photos");
mkdirSync(join(photos, "a"), { recursive: true });
mkdirSync(join(folder, "photos-of-others"));
writeFileSync(join(photos, "a", "inside.jpg"), "inside");
writeFileSync(join(folder, "secret"), "outside");
writeFileSync(join(folder, "photos-of-others", "their.jpg"), "outside");

const roots = { photos };
async function contentOf(path: string): Promise<string> {
  const file = await openBelowRoot({ root: "photos", path }, roots);
  try {
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}

describe("a file below a bulk root", () => {
  test("is opened, also by a link that stays below, and by a root that is a link", async () => {
    symlinkSync("a/inside.jpg", join(photos, "link.jpg"));
    symlinkSync(photos, join(folder, "linked"));
    expect(await contentOf("a/inside.jpg")).toBe("inside");
    expect(await contentOf("link.jpg")).toBe("inside");
    const file = await openBelowRoot(
      { root: "linked", path: "link.jpg" },
      { linked: join(folder, "linked") },
    );
    expect(await file.readFile("utf8")).toBe("inside");
    await file.close();
  });

  test.each([
    ["a file outside", "../secret"],
    ["a folder whose name begins like the root", "../photos-of-others/their.jpg"],
  ])("is refused where it is a link to %s", async (_what, target) => {
    const name = `out-${target.length}.jpg`;
    symlinkSync(target, join(photos, name));
    await expect(contentOf(name)).rejects.toThrow(`photos/${name} leads out of its bulk root`);
  });

  test("is treated alike where it is opened in this thread", () => {
    const read = (path: string, at: Record<string, string> = roots) => {
      const file = openBelowRootNow({ root: "photos", path }, at);
      try {
        return readFileSync(file, "utf8");
      } finally {
        closeSync(file);
      }
    };
    expect(read("a/inside.jpg")).toBe("inside");
    expect(read("link.jpg")).toBe("inside");
    for (const name of ["out-9.jpg", "out-29.jpg"])
      expect(() => read(name)).toThrow(`photos/${name} leads out of its bulk root`);
    expect(() => read("none.jpg")).toThrow("ENOENT");
    expect(() => read("x", { photos: join(folder, "gone") })).toThrow("ENOENT");
  });

  test("is told as missing where there is none", async () => {
    await expect(contentOf("none.jpg")).rejects.toMatchObject({ code: "ENOENT" });
    await expect(
      openBelowRoot({ root: "photos", path: "x" }, { photos: join(folder, "gone") }),
    ).rejects.toMatchObject({
      code: "ENOENT",
    });
  });

  test("never has the content of one outside, while a link is turned in and out", async () => {
    const link = join(photos, "turning.jpg");
    let isOver = false;
    const turn = (async () => {
      for (let round = 0; !isOver; round++) {
        const next = join(photos, `next-${round % 2}`);
        symlinkSync(round % 2 === 0 ? "a/inside.jpg" : "../secret", next);
        renameSync(next, link);
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const seen = { inside: 0, refused: 0 };
    for (let read = 0; read < 3000; read++) {
      const content = await contentOf("turning.jpg").catch((error: Error) => {
        expect(error.message).toMatch(/leads out of its bulk root|ENOENT/);
      });
      if (content === undefined) seen.refused++;
      else {
        expect(content).toBe("inside");
        seen.inside++;
      }
    }
    isOver = true;
    await turn;
    expect(seen.inside).toBeGreaterThan(0);
    expect(seen.refused).toBeGreaterThan(0);
  });
});
