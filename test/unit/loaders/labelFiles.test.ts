import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readClassNames } from "../../../src/loaders/labels.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-labels-"));
afterAll(() => rmSync(folder, { recursive: true }));

function labelsOf(name: string, content: string | Buffer): Promise<string[]> {
  writeFileSync(join(folder, name), content);
  return readClassNames(name, folder);
}

describe("labels are read from", () => {
  it.each([
    ["lines.txt", "cat\ndog\n\n"],
    ["windows.txt", Buffer.from("\uFEFFcat\r\ndog\r\n")],
    ["utf16.txt", Buffer.from("\uFEFFcat\r\ndog\r\n", "utf16le")],
    ["mac.txt", "cat\rdog"],
    ["numbered.txt", "0 cat\n1 dog\n"],
    ["colons.txt", "1: dog\n0: cat\n"],
    ["list.json", '["cat","dog"]'],
    ["object.json", '{"1":"dog","0":"cat"}'],
    ["config.json", '{"model_type":"vit","id2label":{"0":"cat","1":"dog"},"label2id":{"cat":0}}'],
    ["data.yaml", "path: ../datasets\ntrain: images\nnames:\n  0: cat\n  1: dog\n"],
    ["list.yml", "nc: 2\nnames: ['cat', \"dog\"]\n"],
  ])("%s", async (name, content) => {
    expect(await labelsOf(name, content)).toEqual(["cat", "dog"]);
  });

  it("lines that begin with a number which isn't the class's as they are", async () => {
    expect(await labelsOf("cards.txt", "7 of hearts\n8 of hearts")).toEqual(["7 of hearts", "8 of hearts"]);
    expect(await labelsOf("mixed.txt", "0 cat\ndog")).toEqual(["0 cat", "dog"]);
    expect(await labelsOf("twice.txt", "0 cat\n0 dog")).toEqual(["0 cat", "0 dog"]);
  });

  it("no file that has none", async () => {
    await expect(labelsOf("empty.yaml", "path: x\n")).rejects.toThrow("names, id2label");
    await expect(labelsOf("gap.yaml", "names:\n  0: cat\n  2: dog\n")).rejects.toThrow(
      "no label for class 1",
    );
  });
});
