/** Opens a model of the configuration without a worker: in this process, or in an engine where its loader is in Python. */
import { dirname } from "node:path";
import { folderRoots } from "../config/bulkRoots.ts";
import type { Config } from "../config/schema.ts";
import type { BaseModelLoader } from "../loaders/BaseModelLoader.ts";
import { openLoader, specOfModel } from "../loaders/openLoader.ts";
import { findPythonLoader } from "../loaders/python/pythonLoader.ts";
import { EngineModelLoader } from "./EngineModelLoader.ts";

/**
 * @throws ModelNotFoundError, ConfigError, or whatever the loader throws
 */
export async function openModel(
  config: Config,
  modelName: string,
  onProgress: (line: string) => void,
): Promise<BaseModelLoader> {
  const spec = await specOfModel(config, modelName, onProgress);
  if (!findPythonLoader(spec.model, dirname(config.file))) return openLoader(spec);
  const loader = new EngineModelLoader(spec, folderRoots(config.bulk_roots));
  await loader.load();
  return loader;
}
