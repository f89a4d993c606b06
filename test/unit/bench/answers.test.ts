import { expect, test } from "vitest";
import { checkFindings, checkNumbers, findingsOf, numbersOf } from "../../../bench/answers.ts";

const FINDINGS = [
  { Cs: 0.91, Lb: "bicycle", Dm: { X: 0.1, Y: 0.2, W: 0.3, H: 0.4 } },
  { Cs: 0.5, Lb: "dog", Dm: {} },
];

test("findings are read from JSON, and from JSON within a string of JSON", () => {
  const expected = new Map([
    ["bicycle", 0.91],
    ["dog", 0.5],
  ]);
  expect(findingsOf(JSON.stringify({ result: { Fs: FINDINGS } }))).toEqual(expected);
  const within = { outputs: [{ data: [JSON.stringify({ Fs: FINDINGS }, null, 1)] }] };
  expect(findingsOf(JSON.stringify(within))).toEqual(expected);
});

test("a label that is found several times counts with its best score", () => {
  const text = JSON.stringify([
    { Lb: "person", Cs: 0.4 },
    { Lb: "person", Cs: 0.8 },
  ]);
  expect(findingsOf(text)).toEqual(new Map([["person", 0.8]]));
});

test("findings that differ are named, those about the threshold don't count", () => {
  const right = new Map([
    ["dog", 0.9],
    ["cat", 0.26],
  ]);
  expect(() => checkFindings("Ray", new Map([["dog", 0.88]]), right, 0.25)).not.toThrow();
  expect(() => checkFindings("Ray", new Map([["dog", 0.8]]), right, 0.25)).toThrow(
    "Ray finds dog with 0.8, infermill with 0.9",
  );
  expect(() => checkFindings("Ray", new Map([["wolf", 0.9]]), right, 0.25)).toThrow("finds wolf with 0.9");
  expect(() => checkFindings("Ray", new Map(), new Map(), 0.25)).toThrow("nothing in the picture");
});

test("numbers are compared one by one", () => {
  const numbers = numbersOf('{"outputs":[{"shape":[1,3],"data":[0.5, -2e-3, 7]}],"id":[1]}');
  expect(numbers).toEqual([0.5, -0.002, 7]);
  expect(() => checkNumbers("Triton", [0.501, -0.002, 7], numbers)).not.toThrow();
  expect(() => checkNumbers("Triton", [0.5, 0.1, 7], numbers)).toThrow("Triton answers [0.5, 0.1, 7, …]");
  expect(() => checkNumbers("Triton", [0.5, -0.002], numbers)).toThrow("Triton answers");
  expect(() => checkNumbers("Triton", [], [])).toThrow("without numbers");
});
