/** From the configuration to a loaded model: checks at start, the model's files, the loader instance. */
import { devicesOf } from "../core/devices.ts";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import type { Config } from "../config/schema.ts";
import { ConfigError, LoaderError, ModelNotFoundError, type ConfigFault } from "../errors.ts";
import { checkModelSource, resolveModelPath } from "../models/sources.ts";
import type { BaseModelLoader, LoaderClass, ModelSection } from "./BaseModelLoader.ts";
import { didYouMean } from "../closest.ts";
import { readClassNames } from "./labels.ts";
import type { LoaderSpec } from "./loaderSpec.ts";
import { disableTelemetry } from "./onnx/telemetry.ts";
import { checkPythonLoader } from "./python/checkPythonLoader.ts";
import { findPythonLoader } from "./python/pythonLoader.ts";
import { loadLoaderClass } from "./registry.ts";
import { buildModelSection, checkModelSection } from "./section.ts";

/**
 * What is wrong with the models of a configuration, as far as it shows without loading them: loader classes that
 * can't be found, settings that a loader doesn't take, files that aren't there. For `loadConfig({ check })`.
 */
export async function checkLoaders(config: Pick<Config, "models" | "file">): Promise<ConfigFault[]> {
  const faults = await Promise.all(
    Object.keys(config.models).map((modelName) => checkModel(config, modelName)),
  );
  return faults.flat();
}

async function checkModel(
  config: Pick<Config, "models" | "file">,
  modelName: string,
): Promise<ConfigFault[]> {
  const source = config.file;
  const baseDir = dirname(source);
  const model = config.models[modelName]!;
  const faults: ConfigFault[] = [];
  const addFault = (key: string, problem: string) =>
    faults.push({ source, key: `models.${modelName}.${key}`, problem });
  const python = findPythonLoader(model, baseDir);
  for (const [index, path] of model.model_path.entries()) {
    await checkModelSource(path, { baseDir, dataDir: baseDir, takesAnyFormat: python !== undefined }).catch(
      (error: Error) => addFault(`model_path.${index}`, error.message),
    );
  }
  if (python) {
    await readClassNames(model.class_names, baseDir).catch((error: Error) =>
      addFault("class_names", error.message),
    );
    for (const { key, problem } of await checkPythonLoader(model, python)) addFault(key, problem);
    return faults;
  }
  if (model.python !== undefined) addFault("python", "is for loaders in Python, this model's is none");
  try {
    const LoaderClass = await loadLoaderClass({ modelName, ...model, baseDir, source });
    faults.push(...(await checkModelSection(modelName, model, LoaderClass, { baseDir, source })));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    faults.push(...error.faults);
  }
  return faults;
}

/**
 * Builds the loader, loads its model and warms it up.
 * @throws ConfigError, or whatever the loader throws
 */
export async function openLoader(spec: LoaderSpec): Promise<BaseModelLoader> {
  // A loader of the user's own may import onnxruntime by itself.
  disableTelemetry();
  const { modelName, model, baseDir } = spec;
  const LoaderClass = await loadLoaderClass({ modelName, ...model, baseDir });
  const section = await buildModelSection(modelName, model, LoaderClass, spec);
  const loader = construct(LoaderClass, section, modelName);
  await loader.load();
  await loader.warmUp();
  return loader;
}

function construct(LoaderClass: LoaderClass, section: ModelSection, modelName: string): BaseModelLoader {
  try {
    return new LoaderClass({ [modelName]: section }, modelName);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LoaderError(`models.${modelName}: the constructor of ${LoaderClass.name} failed: ${reason}`, {
      cause: error,
    });
  }
}

/**
 * What it takes to open a model of the configuration by itself, with all cores.
 * @throws ModelNotFoundError
 */
export async function specOfModel(
  config: Config,
  modelName: string,
  onProgress: (line: string) => void,
): Promise<LoaderSpec> {
  const model = config.models[modelName];
  if (!model)
    throw new ModelNotFoundError(
      `there is no model "${modelName}"; configured are: ${Object.keys(config.models).join(", ")}${didYouMean(modelName, Object.keys(config.models))}`,
    );
  return {
    modelName,
    model,
    configFile: config.file,
    baseDir: dirname(config.file),
    modelPaths: await resolveModelPaths(config, modelName, onProgress),
    device: devicesOf(model.device)[0]!,
    intraOpThreads: model.intra_op_threads ?? availableParallelism(),
    maxPicturePixels: config.max_picture_pixels,
    maxDecodedBytes: config.max_decoded_bytes,
  };
}

/** The files of a model as absolute paths, fetched or converted where that is needed. */
export async function resolveModelPaths(
  config: Config,
  modelName: string,
  onProgress: (line: string) => void,
): Promise<string[]> {
  const model = config.models[modelName]!;
  const baseDir = dirname(config.file);
  const takesAnyFormat = findPythonLoader(model, baseDir) !== undefined;
  const paths: string[] = [];
  for (const source of model.model_path) {
    paths.push(
      await resolveModelPath(source, {
        baseDir,
        takesAnyFormat,
        dataDir: config.data_dir,
        onProgress: ({ source: from, message }) => onProgress(`${from}: ${message}`),
      }),
    );
  }
  return paths;
}
