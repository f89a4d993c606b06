import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileGlob } from "../../../src/bulk/glob.ts";
import { BadInputError } from "../../../src/errors.ts";

describe("a pattern matches", () => {
  it.each([
    ["*.jpg", ["a.jpg", "A.JPG", "deep/below/b.Jpg", ".jpg"], ["a.jpeg", "a.jpg.txt", "jpg"]],
    ["2024/*.jpg", ["2024/a.jpg"], ["a.jpg", "2024/b/a.jpg", "x/2024/a.jpg"]],
    ["2024/**/*.jpg", ["2024/a.jpg", "2024/b/a.jpg", "2024/b/c/d/a.JPG"], ["a.jpg", "x/2024/a.jpg"]],
    ["**/raw/*", ["raw/a", "x/raw/a", "x/y/raw/a"], ["raw/a/b", "xraw/a"]],
    ["raw/**", ["raw/a", "raw/a/b/c"], ["raw", "xraw/a"]],
    ["**/*.{jpg,png}", ["a.jpg", "x/a.png"], ["a.gif", "a.jpgpng"]],
    ["{a,b{1,2}}.jpg", ["a.jpg", "b1.jpg", "b2.jpg"], ["b.jpg", "ab1.jpg"]],
    ["img_?[0-9][!a-z].png", ["img_x1_.png", "img_?99.png"], ["img_x1a.png", "img_x1A.png", "img_xx_.png"]],
    ["@(a|b)*(c)+(d)?(e).png", ["ad.png", "bccdde.png"], ["a.png", "abd.png", "adee.png"]],
    ["a\\*b.png", ["a*b.png"], ["axb.png"]],
    ["{a}.png", ["{a}.png"], ["a.png"]],
    ["Ärger ü*.JPG", ["ärger ünd.jpg"], ["arger u.jpg"]],
  ] as const)("%s", (glob, matching, others) => {
    const matches = compileGlob(glob);
    for (const path of matching) expect(matches(path), path).toBe(true);
    for (const path of others) expect(matches(path), path).toBe(false);
  });

  it("or is refused with its reason", () => {
    for (const [glob, reason] of [
      ["", "must be a pattern"],
      ["/etc/*", "must be a pattern"],
      ["../*", "must be a pattern"],
      ["{a,b", 'lacks a "}"'],
      ["@(a", 'lacks a ")"'],
      ["[a", 'lacks a "]"'],
      ["!(a).jpg", "can't have !(…)"],
      ["{1..9}.jpg", "write [1-9]"],
      ["x".repeat(301), "up to 300 characters"],
    ] as const) {
      expect(() => compileGlob(glob), glob).toThrow(BadInputError);
      expect(() => compileGlob(glob), glob).toThrow(reason);
    }
  });
});

describe("no pattern takes for ever", () => {
  const name = "a".repeat(255);
  it.each([
    `${"{?,}".repeat(60)}zz`,
    `${"?(?|?)".repeat(40)}zz`,
    "*a*a*a*a*b",
    `${"*a".repeat(140)}b`,
    `${"*(*(a)|b)".repeat(25)}z`,
    `**/${"{a*,*a}".repeat(30)}zz`,
    `${"+(a|aa)".repeat(30)}b`,
    "((((((((((",
  ])("%s", (glob) => {
    const matches = compileGlob(glob);
    const startedAt = performance.now();
    for (let count = 0; count < 5; count++) expect(matches(`${"x/".repeat(20)}${name}`)).toBe(false);
    expect(performance.now() - startedAt, "ms for five names").toBeLessThan(1000);
  });

  it("of random ones either", () => {
    const part = fc.constantFrom(
      "*",
      "**",
      "?",
      "/",
      "a",
      "b",
      "{a,b}",
      "{?,}",
      "*(a|*)",
      "+(?)",
      "[ab]",
      "?(a)",
    );
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 1, maxLength: 40 }),
        fc.string({ unit: fc.constantFrom("a", "b", "/"), maxLength: 80 }),
        (parts, path) => {
          const startedAt = performance.now();
          try {
            compileGlob(parts.join(""))(path);
          } catch (error) {
            expect(error).toBeInstanceOf(BadInputError);
          }
          expect(performance.now() - startedAt).toBeLessThan(500);
        },
      ),
      { numRuns: 500 },
    );
  });
});
