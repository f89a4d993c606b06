/** `infermill predict`: one picture through a model in this process, without Redis. */
import { readFile } from "node:fs/promises";
import { loadConfig } from "../config/load.ts";
import type { PredictionRequest } from "../imil/dictionaries.ts";
import { openModel } from "../engines/openModel.ts";
import { checkLoaders } from "../loaders/openLoader.ts";
import { attachPictures } from "../imil/requestPictures.ts";
import { UsageError } from "./exit.ts";
import { printWarning } from "./log.ts";
import { formatJson, parseJson } from "../core/json.ts";

export async function predict(
  picture: string,
  options: { config?: string; model: string; request?: string },
): Promise<void> {
  const config = await loadConfig({ file: options.config, check: checkLoaders, onWarning: printWarning });
  const request = attachPictures(parseRequest(options.request), [await readPicture(picture)]);
  const loader = await openModel(config, options.model, (line) => console.error(line));
  try {
    console.log(formatJson(await loader.predictRequest(request), 2));
  } finally {
    await loader.close();
  }
}

/** @throws BadInputError where it is no JSON object */
export function parseRequest(text = "{}"): PredictionRequest {
  try {
    const request: unknown = parseJson(text);
    if (typeof request === "object" && request !== null && !Array.isArray(request))
      return request as PredictionRequest;
  } catch {
    // Falls through to the one message for both.
  }
  throw new UsageError(`--request must be a JSON object, got ${text}`);
}

/** @throws UsageError where there is no such file */
export async function readPicture(path: string): Promise<Buffer> {
  return readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(
      error.code === "ENOENT" ? `there is no file ${path}` : `${path} can't be read: ${error.message}`,
      { cause: error },
    );
  });
}
