/** The lines that the console shows to copy: which body they send, and that what they quote survives. */
import { expect, test } from "vitest";
import { bodyFormOf, pathOfCall, snippetsOf, type Call } from "../../../src/console/call.ts";

const SERVER = "http://127.0.0.1:8448/";
const picture = { field: "image", name: "sheep.jpg", mediaType: "image/jpeg" };
const simple: Call = { model: "Coco", files: [picture], request: { C_threshold: 0.4 } };

function snippetsBy(call: Call, isKeyed = false): Record<string, string> {
  return Object.fromEntries(snippetsOf(call, SERVER, isKeyed).map(({ title, code }) => [title, code]));
}

test.each<[string, Call, string]>([
  ["one picture with plain settings is the body itself", simple, "bytes"],
  ["several pictures are a form", { ...simple, files: [picture, picture] }, "form"],
  ["a list of prompts makes a form", { ...simple, request: { Prompt: [["a"]] } }, "form"],
  [
    "a picture with a role of its own is in a form",
    { ...simple, files: [{ ...picture, field: "anchor" }] },
    "form",
  ],
  ["a file of an unknown type is in a form", { ...simple, files: [{ ...picture, mediaType: "" }] }, "form"],
  ["no file is the dictionary", { ...simple, files: [], request: { Text: "a" } }, "json"],
])("%s", (_what, call, form) => {
  expect(bodyFormOf(call)).toBe(form);
});

test("settings of one picture travel in the query", () => {
  expect(pathOfCall(simple)).toBe("v1/models/Coco/predictions?C_threshold=0.4");
});

test("one picture, in three languages", () => {
  const { curl, JavaScript: javascript, Python: python } = snippetsBy(simple);
  expect(curl).toBe(
    [
      "curl \\",
      "  -H 'Prefer: wait=60' \\",
      "  -H 'Content-Type: image/jpeg' \\",
      "  --data-binary '@sheep.jpg' \\",
      "  'http://127.0.0.1:8448/v1/models/Coco/predictions?C_threshold=0.4'",
      "",
    ].join("\n"),
  );
  expect(javascript).toContain('body: await readFile("sheep.jpg")');
  expect(python).toContain('params={"C_threshold": 0.4}');
  expect(python).toContain('data=open("sheep.jpg", "rb")');
});

test("the key is read from the environment and never shown", () => {
  const { curl, JavaScript: javascript, Python: python } = snippetsBy(simple, true);
  expect(curl).toContain('-H "Authorization: Bearer $INFERMILL_API_KEY"');
  expect(javascript).toContain("process.env.INFERMILL_API_KEY");
  expect(python).toContain("os.environ['INFERMILL_API_KEY']");
});

test("true and null are Python's in Python, and text in a query", () => {
  const nested: Call = { model: "M", files: [], request: { Hp: { deep: true, none: null } } };
  expect(snippetsBy(nested)["Python"]).toContain('json={"Hp": {"deep": True, "none": None}}');
  expect(snippetsBy({ ...simple, request: { deep: true } })["Python"]).toContain('params={"deep": "true"}');
});
