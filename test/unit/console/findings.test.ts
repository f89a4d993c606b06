/** What the console reads from findings. */
import { expect, test } from "vitest";
import { findingsOf, noteOf, pictureOf } from "../../../src/console/findings.ts";

test.each<[string, string | undefined, number | undefined, string | undefined]>([
  ["of the second picture", "1", 1, "number 2 of the request"],
  ["with a text about it", "covers 0.31 of the picture", undefined, "covers 0.31 of the picture"],
  ["of the only picture", undefined, undefined, undefined],
])("a finding %s says so", (_what, Info, picture, note) => {
  const [found] = findingsOf({ Fs: [{ Cs: 0.9, Lb: "sheep", Dm: {}, ...(Info !== undefined && { Info }) }] });
  expect(pictureOf(found!)).toBe(picture);
  expect(noteOf(found!)).toBe(note);
});
