/** What `npm run architecture` can't see: a file of ours that is imported in the middle of a type. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const SOURCES = fileURLToPath(new URL("../../../src", import.meta.url));
/** `import("./x.ts")`, with what stands before it. */
const IMPORT = /(\S+\s+|[(!])import\(\s*"\.[^"]*"/g;
/** A dynamic import is awaited, returned or handed on. */
const IS_DYNAMIC = /^(await|return|=>|\(|!)\s*/;

test("types come by `import type` at the top of a file, where the check of the architecture sees them", () => {
  const found = readdirSync(SOURCES, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .flatMap((name) =>
      [...readFileSync(join(SOURCES, name), "utf8").matchAll(IMPORT)]
        .filter(([text]) => !IS_DYNAMIC.test(text))
        .map(([text]) => `${name}: ${text}`),
    );
  expect(found).toEqual([]);
});
