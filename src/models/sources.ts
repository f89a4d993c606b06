/**
 * Turns what a configuration names in `model_path` into a file on this disk.
 * A source is a path, or an address whose scheme stands in the table below.
 */
import { randomUUID } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { urlSchemeOf } from "../core/urlScheme.ts";
import { removeLeftovers } from "./leftovers.ts";
import { fetchIntoCache } from "./modelCache.ts";
import { ModelSourceError } from "./modelSourceError.ts";
import { OWN_FOLDER, packageFolder } from "./packageFolder.ts";
import { readHubAddress, readWebAddress, type RemoteFile } from "./remoteFile.ts";
import { convertTfjsFile, CONVERTER_VERSION } from "./tfjsToOnnx.ts";

export { ModelSourceError };

/** Told when a source takes a while. */
export interface SourceProgress {
  source: string;
  /** What happens, as a sentence. */
  message: string;
}

export interface SourceOptions {
  /** Folder that relative paths start from: the configuration's. */
  baseDir: string;
  /** Folder whose `models` folder keeps what was converted. */
  dataDir: string;
  onProgress?: (progress: SourceProgress) => void;
  /** Whether the loader may take other formats than onnxruntime does, and folders, as one in Python may. */
  takesAnyFormat?: boolean;
  /** Folders from which packages are looked for. Default: infermill's own, then `baseDir`. */
  packageSearchFolders?: string[];
  /** Where HF_ENDPOINT, HF_TOKEN, INFERMILL_CACHE_DIR and XDG_CACHE_HOME are read. Default: this process's. */
  env?: NodeJS.ProcessEnv;
  /** See `DownloadOptions`. */
  retryDelaysMs?: readonly number[];
  /** See `DownloadOptions`. */
  silenceLimitMs?: number;
}

/**
 * Reads an address, without fetching or converting anything yet.
 * @returns what makes a file of it
 */
type ReadAddress = (source: string, options: SourceOptions) => () => Promise<string>;

/** What stands before `://`, and how such an address is read. */
const SCHEMES: Record<string, ReadAddress> = {
  demo: readDemoAddress,
  hf: (source, options) => prepareFetch(readHubAddress(source, options.env ?? process.env), options),
  https: (source, options) => prepareFetch(readWebAddress(source), options),
  http: (source, options) => prepareFetch(readWebAddress(source), options),
};

/**
 * Absolute path of the file that `source` names. Files that aren't models, such as labels, pass as they are. A source is
 * - a path; relative ones start from `baseDir`,
 * - `demo://centernet|emotion|blazeface`, converted on first use,
 * - `hf://owner/repository/path@revision` or `https://…#sha256=…`, fetched on first use.
 */
export async function resolveModelPath(source: string, options: SourceOptions): Promise<string> {
  const makeFile = readAddress(source, options);
  return makeFile ? makeFile() : resolveFile(source, options);
}

/**
 * Throws what `resolveModelPath` would, as far as it shows without fetching or converting.
 * @throws ModelSourceError
 */
export async function checkModelSource(source: string, options: SourceOptions): Promise<void> {
  if (!readAddress(source, options)) await resolveFile(source, options);
}

function readAddress(source: string, options: SourceOptions): (() => Promise<string>) | undefined {
  const scheme = urlSchemeOf(source);
  if (scheme === undefined) return undefined;
  if (!Object.hasOwn(SCHEMES, scheme)) {
    const known = ["demo", "hf", "https"].map((each) => `${each}://`);
    throw new ModelSourceError(
      `"${source}" must be a path or begin with ${known.join(" or ")}, got ${scheme}://`,
    );
  }
  return SCHEMES[scheme]!(source, options);
}

// Files

const TORCH = 'export it in Python with torch.onnx.export(model, example_input, "model.onnx")';
const ULTRALYTICS = `${TORCH}, or a YOLO model with "yolo export model=FILE format=onnx"`;
const KERAS = 'load it with Keras and call tf2onnx.convert.from_keras(model, output_path="model.onnx")';
const TENSORFLOW = "python -m tf2onnx.convert --output model.onnx";
/** Model formats that onnxruntime can't run, with the way from each to ONNX. */
const EXPORTS: Record<string, string> = {
  ".pt": ULTRALYTICS,
  ".pth": ULTRALYTICS,
  ".safetensors": `load it into its PyTorch model and ${TORCH}`,
  ".h5": KERAS,
  ".keras": KERAS,
  ".pb": `run "${TENSORFLOW} --saved-model FOLDER", or --graphdef FILE --inputs NAMES --outputs NAMES for a frozen graph`,
  ".tflite": `run "${TENSORFLOW} --tflite FILE"`,
};

function refuseOtherFormats(source: string, file: string, { takesAnyFormat }: SourceOptions): void {
  if (takesAnyFormat) return;
  const way = EXPORTS[path.extname(file).toLowerCase()];
  if (way) {
    throw new ModelSourceError(`"${source}" must be an .onnx or .ort file; to make one of it, ${way}`);
  }
}

async function resolveFile(source: string, options: SourceOptions): Promise<string> {
  const file = path.resolve(options.baseDir, source);
  refuseOtherFormats(source, file, options);
  const found = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" && error.code !== "ENOTDIR") {
      throw new ModelSourceError(`"${source}": ${file} can't be read (${error.code})`, {
        cause: error,
      });
    }
  });
  if (!found) {
    throw new ModelSourceError(`"${source}" must be a file that exists, but there is no ${file}`);
  }
  if (!found.isFile() && !(options.takesAnyFormat && found.isDirectory())) {
    throw new ModelSourceError(`"${source}" must be a file, but ${file} isn't one`);
  }
  return file;
}

// Files of other machines

function prepareFetch(remote: RemoteFile, options: SourceOptions): () => Promise<string> {
  const { source } = remote;
  refuseOtherFormats(source, remote.cachePath, options);
  return () =>
    fetchIntoCache(remote, {
      env: options.env ?? process.env,
      tell: (message) => options.onProgress?.({ source, message }),
      retryDelaysMs: options.retryDelaysMs,
      silenceLimitMs: options.silenceLimitMs,
    });
}

// Demo models

const DEMO_PACKAGE = "@vladmandic/human";
const DEMO_MODELS = ["centernet", "emotion", "blazeface"];
/** The unfinished files of `writeWhole`. */
const UNFINISHED = /\.[0-9a-f-]{36}\.tmp$/;

/** Whether the package of the demo models is installed where infermill finds it. */
export function hasDemoWeights(): boolean {
  return packageFolder(DEMO_PACKAGE, [OWN_FOLDER]) !== undefined;
}

function readDemoAddress(source: string, options: SourceOptions): () => Promise<string> {
  const name = source.slice("demo://".length);
  if (!DEMO_MODELS.includes(name)) {
    const known = DEMO_MODELS.map((each) => `demo://${each}`).join(", ");
    throw new ModelSourceError(`"${source}" must be one of ${known}`);
  }
  return () => convertDemoModel(name, source, options);
}

async function convertDemoModel(name: string, source: string, options: SourceOptions): Promise<string> {
  const folder = packageFolder(DEMO_PACKAGE, options.packageSearchFolders ?? [OWN_FOLDER, options.baseDir]);
  if (!folder) {
    throw new ModelSourceError(
      `"${source}" needs the package ${DEMO_PACKAGE}, which holds its weights and isn't installed: ` +
        `run "npm i -D ${DEMO_PACKAGE}", or name an .onnx file of your own`,
    );
  }
  const { version } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8")) as {
    version: string;
  };
  const file = path.resolve(options.dataDir, "models", `${name}-${version}-${CONVERTER_VERSION}.onnx`);
  if (await stat(file).catch(() => undefined)) return file;

  options.onProgress?.({
    source,
    message: `Converting ${name} of ${DEMO_PACKAGE} ${version} to ${file}, once.`,
  });
  try {
    await writeWhole(file, await convertTfjsFile(path.join(folder, "models", `${name}.json`)));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ModelSourceError(`"${source}" can't be converted to ${file}: ${reason}`, {
      cause: error,
    });
  }
  await removeLeftovers(path.dirname(file), UNFINISHED);
  return file;
}

/** Other processes see no file or the whole file, even if they write it too or the machine stops halfway. */
async function writeWhole(file: string, bytes: Uint8Array): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const unfinished = `${file}.${randomUUID()}.tmp`;
  try {
    const handle = await open(unfinished, "wx");
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(unfinished, file);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
}
