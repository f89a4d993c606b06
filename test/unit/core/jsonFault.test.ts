import * as fc from "fast-check";
import { expect, test } from "vitest";
import { MAX_DEPTH, parseJson, TooDeepError } from "../../../src/core/json.ts";
import { findJsonFault } from "../../../src/core/jsonFault.ts";

test.each([
  ["", 0],
  ['{"a":1,}', 7],
  ['{"a" 1}', 5],
  ["[1,2", 4],
  ["[1 2]", 3],
  ['"a\tb"', 2],
  ['"a\\x"', 3],
  ['"\\u12g4"', 5],
  ["tru", 3],
  ["trux", 3],
  ["01", 1],
  ["1.x", 2],
  ["-", 1],
  ["1e+x", 3],
  ["{}x", 2],
  ["[1]]", 3],
  ["\u{feff}1", 0],
])("%j stops being JSON at %i", (text, position) => {
  expect(findJsonFault(text)).toBe(position);
});

test("a cut or changed text is faulty where no continuation could save it", () => {
  fc.assert(
    fc.property(fc.json(), fc.nat(), fc.string({ maxLength: 1 }), (json, seed, char) => {
      const at = seed % (json.length + 1);
      const changed = json.slice(0, at) + char + json.slice(at + 1);
      let isJson = true;
      try {
        JSON.parse(changed);
      } catch {
        isJson = false;
      }
      const fault = findJsonFault(changed);
      if (isJson) expect(fault).toBe(changed.length);
      else {
        expect(fault).toBeLessThanOrEqual(changed.length);
        // What stands before it is a beginning of JSON, and with the next character it isn't any more.
        expect(findJsonFault(changed.slice(0, fault))).toBe(fault);
        if (fault < changed.length) expect(findJsonFault(changed.slice(0, fault + 1))).toBe(fault);
      }
    }),
    { numRuns: 2000, seed: 13 },
  );
});

test("the place of a fault at the end of a megabyte is found in a few milliseconds", () => {
  const text = `[${"[1,2.5e3,true,null],".repeat(50_000)}}`;
  const start = performance.now();
  expect(findJsonFault(text)).toBe(text.length - 1);
  expect(performance.now() - start).toBeLessThan(200);
});

test("what nests too deep is refused before anything walks it", () => {
  const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
  expect(() => parseJson(nested(MAX_DEPTH))).not.toThrow();
  for (const depth of [MAX_DEPTH + 1, 4125, 200_000])
    expect(() => parseJson(nested(depth))).toThrow(TooDeepError);
  expect(() => parseJson('{"a":'.repeat(5000) + "1" + "}".repeat(5000))).toThrow(TooDeepError);
});
