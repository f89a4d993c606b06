/**
 * Runs before the install scripts of the dependencies: onnxruntime-node's fetches CUDA libraries from NuGet on Linux x64,
 * and without internet it fails the whole install. It leaves alone what is there already, so empty files stand for them;
 * `ONNXRUNTIME_NODE_INSTALL=cuda12 node node_modules/onnxruntime-node/script/install.js` replaces these on a GPU host.
 */
import { closeSync, openSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import process from "node:process";

const isClone = process.env.npm_config_local_prefix === process.cwd();
const choice = process.env.ONNXRUNTIME_NODE_INSTALL ?? process.env.npm_config_onnxruntime_node_install;

if (!isClone && choice === undefined) {
  try {
    const metadataFile = createRequire(import.meta.url).resolve(
      "onnxruntime-node/script/install-metadata.js",
    );
    const { requirements, manifests } = (await import(metadataFile)).default;
    const platform = `${process.platform}/${process.arch}`;
    const libraries = (requirements[platform] ?? []).flatMap((name) =>
      Object.keys(manifests[`${platform}:${name}`] ?? {}),
    );
    const folder = join(dirname(metadataFile), "../bin/napi-v6", platform);
    for (const library of libraries) closeSync(openSync(join(folder, library), "a"));
  } catch (error) {
    console.warn(`infermill: onnxruntime-node may fetch CUDA libraries now: ${String(error)}`);
  }
}
