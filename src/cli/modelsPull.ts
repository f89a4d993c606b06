/** `infermill models pull`: brings every file that the configuration's models name onto this disk. */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { didYouMean } from "../closest.ts";
import { loadConfig } from "../config/load.ts";
import { InfermillError, ModelNotFoundError } from "../errors.ts";
import { formatBytes } from "../core/byteSize.ts";
import { resolveModelPath } from "../models/sources.ts";
import { EXIT_FAILED } from "./exit.ts";
import { printWarning } from "./log.ts";

/**
 * Fetches the sources of the named models, of all where none is named, and prints a line for each. One that fails
 * doesn't keep the others from being fetched.
 */
export async function pullModels(names: readonly string[], options: { config?: string }): Promise<void> {
  // Loader files and labels needn't be there yet: an image build pulls before it copies them.
  const config = await loadConfig({ file: options.config, onWarning: printWarning });
  const known = Object.keys(config.models);
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    throw new ModelNotFoundError(
      `there is no model ${unknown.join(", ")}; configured are: ${known.join(", ")}${didYouMean(unknown[0]!, known)}`,
    );
  }

  for (const name of names.length > 0 ? names : known) {
    for (const source of config.models[name]!.model_path) {
      try {
        const file = await resolveModelPath(source, {
          baseDir: dirname(config.file),
          dataDir: config.data_dir,
          onProgress: (progress) => console.error(`${progress.source}: ${progress.message}`),
        });
        console.log(`${name}  ${file}  ${formatBytes((await stat(file)).size)}`);
      } catch (error) {
        if (!(error instanceof InfermillError)) throw error;
        console.error(`infermill: ${name}: ${error.message}`);
        process.exitCode = EXIT_FAILED;
      }
    }
  }
}
