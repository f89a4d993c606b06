/**
 * Finds the loader class that a model's section names: a built-in one, or one
 * that a TypeScript or JavaScript file of the user's exports.
 */
import { stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { ConfigError } from "../errors.ts";
import { BaseModelLoader, type LoaderClass } from "./BaseModelLoader.ts";
import { CenterNetModelLoader } from "./vision/CenterNetModelLoader.ts";
import { ClipModelLoader } from "./vision/ClipModelLoader.ts";
import { didYouMean } from "../closest.ts";
import { DepthEstimationModelLoader } from "./vision/DepthEstimationModelLoader.ts";
import { ImageEmbeddingModelLoader } from "./vision/ImageEmbeddingModelLoader.ts";
import { ImageRegressionModelLoader } from "./vision/ImageRegressionModelLoader.ts";
import { ImageToImageModelLoader } from "./vision/ImageToImageModelLoader.ts";
import { SemanticSegmentationModelLoader } from "./vision/SemanticSegmentationModelLoader.ts";
import { TextDetectionModelLoader } from "./vision/TextDetectionModelLoader.ts";
import { TextRecognitionModelLoader } from "./vision/TextRecognitionModelLoader.ts";
import { DetectionModelLoader } from "./vision/DetectionModelLoader.ts";
import { DetectoModelLoader } from "./vision/DetectoModelLoader.ts";
import { FacialExpressionRecognitionModelLoader } from "./vision/FacialExpressionRecognitionModelLoader.ts";
import { ImageClassificationModelLoader } from "./vision/ImageClassificationModelLoader.ts";
import { OnnxTensorModelLoader } from "./onnx/OnnxTensorModelLoader.ts";
import { PoseEstimationModelLoader } from "./vision/PoseEstimationModelLoader.ts";
import { TextClassificationModelLoader } from "./text/TextClassificationModelLoader.ts";
import { TextEmbeddingModelLoader } from "./text/TextEmbeddingModelLoader.ts";
import { YoloModelLoader } from "./vision/YoloModelLoader.ts";
import { YoloxModelLoader } from "./vision/YoloxModelLoader.ts";

/** Loaders that the configuration can name without a `model_loader_file`. */
export const BUILT_IN_LOADERS: Readonly<Record<string, LoaderClass>> = {
  CenterNetModelLoader,
  ClipModelLoader,
  DepthEstimationModelLoader,
  DetectionModelLoader,
  DetectoModelLoader,
  FacialExpressionRecognitionModelLoader,
  ImageClassificationModelLoader,
  ImageEmbeddingModelLoader,
  ImageRegressionModelLoader,
  ImageToImageModelLoader,
  OnnxTensorModelLoader,
  PoseEstimationModelLoader,
  TextClassificationModelLoader,
  TextEmbeddingModelLoader,
  SemanticSegmentationModelLoader,
  TextDetectionModelLoader,
  TextRecognitionModelLoader,
  YoloModelLoader,
  YoloxModelLoader,
};

export interface LoaderReference {
  modelName: string;
  /** Name of the class. */
  loader: string;
  /** File that exports it; relative paths start from `baseDir`. Left out for a built-in loader. */
  model_loader_file?: string | undefined;
  baseDir: string;
  /** File that the configuration was read from, for error messages. Default "configuration". */
  source?: string;
}

/**
 * The loader class of a model. A custom file stands anywhere, needs no build step, and gets the running infermill when
 * it imports "infermill".
 * @throws ConfigError that names the key and what to do.
 */
export async function loadLoaderClass(reference: LoaderReference): Promise<LoaderClass> {
  const { loader } = reference;
  if (!loader.endsWith("ModelLoader")) {
    throw fault(
      reference,
      "loader",
      `must be the name of a class that ends in ModelLoader, got ${JSON.stringify(loader)}`,
    );
  }
  if (reference.model_loader_file !== undefined)
    return importLoaderClass(reference, reference.model_loader_file);

  const builtIn = Object.hasOwn(BUILT_IN_LOADERS, loader) ? BUILT_IN_LOADERS[loader] : undefined;
  if (builtIn) return builtIn;
  const names = Object.keys(BUILT_IN_LOADERS);
  throw fault(
    reference,
    "loader",
    `must be a built-in loader (${names.join(", ")}), or model_loader_file must name the file that exports the class, ` +
      `got ${JSON.stringify(loader)}${didYouMean(loader, names)}`,
  );
}

async function importLoaderClass(reference: LoaderReference, givenFile: string): Promise<LoaderClass> {
  const { loader } = reference;
  const file = resolve(reference.baseDir, givenFile);
  const isFile = await stat(file).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!isFile)
    throw fault(
      reference,
      "model_loader_file",
      `must be a TypeScript or JavaScript file, there is none at ${file}`,
    );

  let exported: Record<string, unknown>;
  try {
    exported = await importFile(file);
  } catch (error) {
    const place = (error as Error).stack
      ?.split("\n")
      .find((line) => line.includes(file) && /:\d+:\d+/.test(line));
    const detail = `can't be imported: ${(error as Error).message ?? error}${place ? ` (${place.trim()})` : ""}`;
    throw fault(reference, "model_loader_file", `${file} ${detail}`, error);
  }

  const defaultExport = exported["default"];
  const isNamedSo = typeof defaultExport === "function" && defaultExport.name === loader;
  const found = exported[loader] ?? (isNamedSo ? defaultExport : undefined);
  if (found === undefined) {
    const names = Object.keys(exported).filter((name) => name !== "__esModule");
    throw fault(
      reference,
      "loader",
      `must be exported by ${file}, got ${JSON.stringify(loader)}; the file exports ${names.join(", ") || "nothing"}`,
    );
  }
  if (typeof found !== "function" || !(found.prototype instanceof BaseModelLoader)) {
    throw fault(
      reference,
      "loader",
      `must extend BaseModelLoader (import { BaseModelLoader } from "infermill"), ${loader} of ${file} doesn't`,
    );
  }
  return found as LoaderClass;
}

/** Packages of infermill's own that a custom file may import where its own folder has none of them. */
const LENT_PACKAGES = ["zod", "sharp", "onnxruntime-node"];

async function importFile(file: string): Promise<Record<string, unknown>> {
  const lent = LENT_PACKAGES.filter((name) => !canResolve(name, file));
  const { createJiti } = await import("jiti");
  const jiti = createJiti(file, {
    // The module object itself: a second copy of BaseModelLoader would fail every instanceof.
    virtualModules: { infermill: await import("./public.ts") },
    alias: Object.fromEntries(lent.map((name) => [name, createRequire(import.meta.url).resolve(name)])),
    fsCache: false,
    interopDefault: false,
  });
  return jiti.import<Record<string, unknown>>(file);
}

function canResolve(name: string, from: string): boolean {
  try {
    createRequire(from).resolve(name);
    return true;
  } catch {
    return false;
  }
}

function fault(reference: LoaderReference, key: string, problem: string, cause?: unknown): ConfigError {
  const { source = "configuration", modelName } = reference;
  return Object.assign(new ConfigError([{ source, key: `models.${modelName}.${key}`, problem }]), { cause });
}
