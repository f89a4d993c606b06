/** What the console imports: `npm run architecture` can't read its JSX. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const SRC = fileURLToPath(new URL("../../../src/", import.meta.url));
/** Types, constants and pure functions: what runs in a browser as it is. */
const ALLOWED =
  /^(console\/.*|core\/.*|imil\/(dictionaries|runLengths)\.ts|annotate\/labelColour\.ts|errors\.ts)$/;
const PACKAGES = /^preact(\/hooks)?$/;

const files = readdirSync(path.join(SRC, "console"), { recursive: true, encoding: "utf8" }).filter((file) =>
  /\.tsx?$/.test(file),
);

test.each(files)(
  "%s imports nothing but the console's own files, the shapes of answers, and preact",
  (file) => {
    const source = readFileSync(path.join(SRC, "console", file), "utf8");
    const imports = Array.from(
      source.matchAll(/^(?:import|export)[^;]*? from "(.+?)";|import\("(.+?)"\)/gm),
      (match) => String(match[1] ?? match[2]),
    );
    const foreign = imports.filter((name) => {
      if (!name.startsWith(".")) return !PACKAGES.test(name);
      return !ALLOWED.test(path.posix.join("console", path.posix.dirname(file), name));
    });
    expect(foreign).toEqual([]);
  },
);
