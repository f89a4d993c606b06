/** The files that lie beside a model of texts, as the Hugging Face Hub has them: tokenizer.json, config.json and others. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { decodeText } from "../../core/text.ts";

/**
 * Finds a file of a model: among the further files of `model_path` by its name, else beside the first one or, where that
 * lies in a folder `onnx`, in the folder above.
 */
export class ModelFolder {
  readonly #files: readonly string[];

  constructor(modelPath: readonly string[]) {
    this.#files = modelPath;
  }

  /** The parsed file; undefined where there is none. @throws Error where it is no JSON */
  async readJson(name: string): Promise<Record<string, unknown> | undefined> {
    for (const file of this.#candidates(name)) {
      const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
        throw error;
      });
      if (bytes === undefined) continue;
      try {
        return JSON.parse(decodeText(bytes)) as Record<string, unknown>;
      } catch (error) {
        throw new Error(`${file} is not JSON: ${(error as Error).message}`, { cause: error });
      }
    }
    return undefined;
  }

  #candidates(name: string): string[] {
    const [model, ...others] = this.#files;
    const named = others.filter((file) => path.basename(file) === path.basename(name));
    if (model === undefined) return named;
    const folder = path.dirname(model);
    const above = path.basename(folder) === "onnx" ? [path.join(path.dirname(folder), name)] : [];
    return [...named, path.join(folder, name), ...above];
  }
}
