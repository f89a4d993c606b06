/** What an engine is notified of the loader that it is to hold. */
import type { ModelConfig } from "../config/schema.ts";

/** Everything that it takes to build the loader of one model for one device. */
export interface LoaderSpec {
  modelName: string;
  model: ModelConfig;
  /** The file that it was read from. */
  configFile: string;
  /** Folder that relative paths of the model start from. */
  baseDir: string;
  /** The model's files, fetched and converted, as absolute paths. */
  modelPaths: readonly string[];
  device: string;
  intraOpThreads: number;
  maxPicturePixels: number;
  /** Most bytes that the pictures of one request may decode to. Default: no limit. */
  maxDecodedBytes?: number;
}
