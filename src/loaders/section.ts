/** Turns one model's part of the configuration into what its loader gets: options checked, labels read, paths resolved. */
import { faultsOf } from "../config/load.ts";
import { DEFAULT_MAX_BATCH_SIZE, modelSchema, type ModelConfig } from "../config/schema.ts";
import { ConfigError, type ConfigFault } from "../errors.ts";
import type { LoaderClass, ModelSection } from "./BaseModelLoader.ts";
import { didYouMean } from "../closest.ts";
import { keepClasses, readClassNames } from "./labels.ts";

export interface SectionPlace {
  /** Folder that relative paths start from. */
  baseDir: string;
  /** File that the configuration was read from, for error messages. Default "configuration". */
  source?: string;
}

export interface SectionContext extends SectionPlace {
  /** The one device of the engine. */
  device: string;
  intraOpThreads: number;
  maxPicturePixels: number;
  maxDecodedBytes?: number;
  /** The model's files, fetched and converted, as absolute paths. */
  modelPaths: readonly string[];
}

/**
 * The section that the loader's constructor reads.
 * @throws ConfigError with every fault that `checkModelSection` finds.
 */
export async function buildModelSection(
  modelName: string,
  model: ModelConfig,
  LoaderClass: LoaderClass,
  context: SectionContext,
): Promise<ModelSection> {
  const { faults, options, classNames } = await readSection(modelName, model, LoaderClass, context);
  if (faults.length > 0) throw new ConfigError(faults);
  return {
    ...model,
    ...options,
    model_path: context.modelPaths,
    class_names: classNames,
    device: context.device,
    max_batch_size: model.max_batch_size ?? DEFAULT_MAX_BATCH_SIZE,
    measures_batch_size: model.max_batch_size === undefined,
    intra_op_threads: context.intraOpThreads,
    max_picture_pixels: context.maxPicturePixels,
    ...(context.maxDecodedBytes !== undefined && { max_decoded_bytes: context.maxDecodedBytes }),
  };
}

/**
 * Every fault of a model's section that can be known without opening the model: the loader's own options, labels,
 * classes, unknown keys. A loader that declares no `options` takes whatever keys it likes.
 */
export async function checkModelSection(
  modelName: string,
  model: ModelConfig,
  LoaderClass: LoaderClass,
  place: SectionPlace,
): Promise<ConfigFault[]> {
  return (await readSection(modelName, model, LoaderClass, place)).faults;
}

async function readSection(
  modelName: string,
  model: ModelConfig,
  LoaderClass: LoaderClass,
  { baseDir, source = "configuration" }: SectionPlace,
): Promise<{ faults: ConfigFault[]; options: Record<string, unknown>; classNames: string[] }> {
  const faults: ConfigFault[] = [];
  const addFault = (key: string, problem: string) =>
    faults.push({ source, key: `models.${modelName}.${key}`, problem });

  let classNames: string[] = [];
  let reading = "class_names";
  try {
    classNames = await readClassNames(model.class_names, baseDir);
    classNames = [...(LoaderClass.labelsFrom?.(classNames) ?? classNames)];
    reading = "classes";
    // Labels may be in the model's files: then its loader checks the classes.
    if (classNames.length > 0) keepClasses(model.classes, classNames);
  } catch (error) {
    addFault(reading, (error as Error).message);
  }
  if (model.model_loader_file === undefined && model.model_path.length === 0) {
    addFault("model_path", `must name the model's .onnx file, got []`);
  }

  const schema = LoaderClass.options;
  if (!schema) return { faults, options: {}, classNames };
  const parsed = schema.safeParse(model, { reportInput: true });
  if (!parsed.success) {
    faults.push(...parsed.error.issues.flatMap((issue) => faultsOf(issue, source, ["models", modelName])));
  }
  const known = [...Object.keys(modelSchema.shape), ...Object.keys(schema.shape)];
  if (!schema.def.catchall) {
    for (const key of Object.keys(model).filter((name) => !known.includes(name))) {
      addFault(key, `is no setting of ${LoaderClass.name}${didYouMean(key, known)}`);
    }
  }
  return { faults, options: parsed.data ?? {}, classNames };
}
