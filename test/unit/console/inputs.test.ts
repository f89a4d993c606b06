/** What a model can be given, by its description. */
import { expect, test } from "vitest";
import type { Model } from "../../../src/console/answers.ts";
import { exampleOfTensors, inputFormsOf, parseObject } from "../../../src/console/inputs.ts";

const nothing = { inputs: [], tensors: null, takes_tensors: false, required_keys: [], embeds: null };
const input = (name: string, type: string, required = true) => ({
  name,
  media_types: [type],
  required,
  multiple: false,
});
const tensors = { inputs: [], outputs: [] };

test.each<[string, Partial<Model>, string[]]>([
  ["a detector takes pictures", { inputs: [input("image", "image/*")] }, ["files"]],
  [
    "and tensors where it says so",
    { inputs: [input("image", "image/*")], tensors, takes_tensors: true },
    ["files", "tensors"],
  ],
  [
    "a text model takes text",
    { inputs: [input("text", "text/plain", false)], embeds: "text" },
    ["text", "request"],
  ],
  [
    "a model of tensors takes their JSON, and not their raw bytes",
    { inputs: [input("X", "application/octet-stream", false)], tensors, takes_tensors: true },
    ["tensors"],
  ],
  [
    "a loader that needs no file may go by keys",
    { inputs: [input("image", "image/*", false)] },
    ["files", "request"],
  ],
  ["of one that isn't loaded nobody knows", { inputs: null }, ["files", "request"]],
])("%s", (_what, description, forms) => {
  expect(inputFormsOf({ ...nothing, ...description } as Model)).toEqual(forms);
});

test("an example has the model's tensors, one sample of zeros", () => {
  const example = exampleOfTensors([
    { name: "X", type: "float32", shape: ["N", 2] },
    { name: "name", type: "string", shape: [-1, 1] },
    { name: "flag", type: "bool", shape: [] },
  ]);
  expect(JSON.parse(example)).toEqual({
    inputs: [
      { name: "X", datatype: "FP32", shape: [1, 2], data: [0, 0] },
      { name: "name", datatype: "BYTES", shape: [1, 1], data: [""] },
      { name: "flag", datatype: "BOOL", shape: [], data: [false] },
    ],
  });
});

test.each<[string, unknown]>([
  ["", {}],
  ['{"Fid": "42"}', { Fid: "42" }],
  ["[1]", undefined],
  ["null", undefined],
  ['{"Fid"', undefined],
])("the keys %s of a form are an object or nothing", (text, keys) => {
  expect(parseObject(text)).toEqual(keys);
});
