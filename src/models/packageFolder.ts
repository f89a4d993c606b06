/** Finds the folder of an installed package, also where its `exports` don't let its files be resolved. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Where infermill's own dependencies are found from. */
export const OWN_FOLDER = path.dirname(fileURLToPath(import.meta.url));

/** Folder of the package as seen from the first of `fromFolders` that finds it, or undefined where it isn't installed. */
export function packageFolder(name: string, fromFolders: string[]): string | undefined {
  return fromFolders
    .flatMap((folder) => createRequire(path.join(folder, "index.js")).resolve.paths(name) ?? [])
    .map((modules) => path.join(modules, name))
    .find((folder) => existsSync(path.join(folder, "package.json")));
}
