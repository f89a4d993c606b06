/** Bundles src/console into dist/console: a page, and a script and a style whose names change with what they hold. */
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../", import.meta.url));
const source = path.join(root, "src/console");
const target = path.join(root, "dist/console");

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
const { metafile } = await build({
  entryPoints: [path.join(source, "console.tsx"), path.join(source, "console.css")],
  outdir: path.join(target, "assets"),
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  // Every browser that is kept up to date.
  target: "es2022",
  format: "esm",
  metafile: true,
  absWorkingDir: root,
  tsconfig: path.join(source, "tsconfig.json"),
});

const page = await readFile(path.join(source, "index.html"), "utf8");
const files = Object.keys(metafile.outputs).map((file) => path.basename(file));
const nameOf = (name: string) => files.find((file) => file.startsWith("console-") && file.endsWith(name))!;
await writeFile(
  path.join(target, "index.html"),
  page.replace("console.css", `assets/${nameOf(".css")}`).replace("console.js", `assets/${nameOf(".js")}`),
);
// Its licence has to be where its code is.
await cp(path.join(root, "node_modules/preact/LICENSE"), path.join(target, "assets/preact-LICENSE.txt"));
