/** Loaders in Python: whether a model has one, which interpreter runs it, what it gets. */
import { existsSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DEFAULT_MAX_BATCH_SIZE, modelSchema, type ModelConfig } from "../../config/schema.ts";
import { isMilConfig } from "../../imil/milConfig.ts";
import { readClassNames } from "../labels.ts";
import type { LoaderSpec } from "../loaderSpec.ts";
import { withoutTelemetry } from "../onnx/telemetry.ts";
import { decodeText } from "../../core/text.ts";

/** What is started as an engine; `infermill`, the package for loaders, lies beside it. */
export const ENGINE_SCRIPT = fileURLToPath(new URL("../../../python/infermill_engine.py", import.meta.url));

/** Where a Python class is found. */
export interface PythonPlace {
  /** Absolute path of its file. */
  file?: string;
  /** Or the name of its module. */
  module?: string;
  class: string;
  base_dir: string;
}

type LoaderSettings = Pick<ModelConfig, "loader" | "model_loader_file" | "python">;

const MODULE_AND_CLASS = /^([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)$/;

/** Where the Python class of a model is; undefined where its loader is none in Python. Looks at the disk for folders. */
export function findPythonLoader(
  { loader, model_loader_file: given }: LoaderSettings,
  baseDir: string,
): PythonPlace | undefined {
  if (given === undefined) return undefined;
  const place = { class: loader, base_dir: baseDir };
  const named = MODULE_AND_CLASS.exec(given);
  if (named) return { ...place, module: named[1]!, class: named[2]! };
  const path = resolve(baseDir, given);
  if (/\.py$/i.test(given)) return { ...place, file: path };
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return undefined;
  const own = [join(path, "__init__.py"), join(path, "custom_model_loader.py")];
  return { ...place, file: own.find((file) => existsSync(file)) ?? own[0]! };
}

/** A setting that can't be used. */
export interface PythonProblem {
  key: string;
  problem: string;
}

/**
 * The interpreter of a model, as what is executed: what `python` names, else the `.venv` beside the loader file or the
 * configuration, VIRTUAL_ENV, `python3`.
 */
export function findInterpreter(
  { python: given }: LoaderSettings,
  place: PythonPlace,
  env: NodeJS.ProcessEnv = process.env,
): string | PythonProblem {
  if (given !== undefined) {
    const path = resolve(place.base_dir, given);
    const found = interpreterAt(path) ?? (basename(given) === given ? commandOnPath(given, env) : undefined);
    if (found !== undefined) return found;
    return {
      key: "python",
      problem: `must be a Python interpreter or the folder of a virtual environment, there is none at ${path}`,
    };
  }
  const folders = [...(place.file === undefined ? [] : [dirname(place.file)]), place.base_dir].map((folder) =>
    join(folder, ".venv"),
  );
  if (env["VIRTUAL_ENV"]) folders.push(env["VIRTUAL_ENV"]);
  for (const folder of folders) {
    const found = interpreterAt(folder);
    if (found !== undefined) return found;
  }
  return (
    commandOnPath("python3", env) ??
    commandOnPath("python", env) ?? {
      key: "python",
      problem:
        "is missing and no Python was found: there is no .venv beside the loader file, VIRTUAL_ENV is not set, and there " +
        "is no python3 on the PATH. Install Python 3.9 or later, or name an interpreter or a virtual environment",
    }
  );
}

function interpreterAt(path: string): string | undefined {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isFile()) return path;
  if (!found?.isDirectory()) return undefined;
  return [join(path, "bin", "python"), join(path, "bin", "python3")].find((file) => existsSync(file));
}

function commandOnPath(name: string, env: NodeJS.ProcessEnv): string | undefined {
  return (env["PATH"] ?? "")
    .split(delimiter)
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .find((file) => statSync(file, { throwIfNoEntry: false })?.isFile());
}

/**
 * The environment of an engine: threads and the GPU are fixed before a package is imported that reads them only then.
 * On `cuda:1` the loader sees that GPU as `cuda:0`.
 */
export function engineEnvironment({ device, intraOpThreads, model }: LoaderSpec): NodeJS.ProcessEnv {
  const threads = String(intraOpThreads);
  const [kind, index = "0"] = device.split(":");
  const visible = process.env["CUDA_VISIBLE_DEVICES"]?.split(",");
  return {
    ...process.env,
    ...withoutTelemetry,
    OMP_NUM_THREADS: threads,
    MKL_NUM_THREADS: threads,
    OPENBLAS_NUM_THREADS: threads,
    ...(kind === "cuda" && { CUDA_VISIBLE_DEVICES: visible?.[Number(index)] ?? index }),
    ...model.env,
  };
}

/** What the `load` message tells a Python engine. */
export async function describePythonLoad(spec: LoaderSpec, place: PythonPlace): Promise<object> {
  const { model, modelName, baseDir } = spec;
  const { env: _env, python: _python, ...settings } = model;
  const section = {
    ...settings,
    model_path: spec.modelPaths,
    class_names: await readClassNames(model.class_names, baseDir),
    device: spec.device.startsWith("cuda") ? "cuda:0" : spec.device,
    max_batch_size: model.max_batch_size ?? DEFAULT_MAX_BATCH_SIZE,
    intra_op_threads: spec.intraOpThreads,
    max_picture_pixels: spec.maxPicturePixels,
  };
  return {
    model: modelName,
    loader: place,
    config: await asImilHasIt(section, spec),
    common_keys: [...Object.keys(modelSchema.shape), "max_picture_pixels"],
  };
}

/**
 * The configuration that the constructor gets: this model's section; of a mil_config.json the whole file, and keys of
 * the section in the form in which they stand there.
 */
async function asImilHasIt(
  section: { model_path: readonly string[]; [key: string]: unknown },
  { modelName, configFile }: LoaderSpec,
): Promise<Record<string, unknown>> {
  const content = await readFile(configFile).then(
    (bytes) => JSON.parse(decodeText(bytes)) as Record<string, unknown>,
    (): Record<string, unknown> => ({}),
  );
  if (!isMilConfig(content)) return { [modelName]: section };
  const raw = (content[modelName] ?? {}) as Record<string, unknown>;
  const given = raw["model_path"];
  const isJsonText = typeof given === "string" && given.trimStart().startsWith("[");
  const isBlank = Array.isArray(given) && given.length > 0 && section.model_path.length === 0;
  const model_path = isBlank ? given : isJsonText ? JSON.stringify(section.model_path) : section.model_path;
  return { ...content, [modelName]: { ...raw, ...section, model_path } };
}
