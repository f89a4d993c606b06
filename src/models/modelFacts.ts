/**
 * What a model's file and the files beside it say of themselves: labels, task,
 * input size, preprocessing. Whoever loads the model reads this first, so that
 * nobody has to type it again, and guesses only what nothing says.
 */
import { readdir } from "node:fs/promises";
import path from "node:path";
import { readLiteral, type Literal } from "./literals.ts";
import { readOnnxFile, type OnnxFile } from "./onnxFile.ts";
import { readTextFile } from "./textFile.ts";

/** Ultralytics' names of the tasks, and those of Hugging Face that a loader here is for. */
export type ModelTask =
  | "detect"
  | "segment"
  | "pose"
  | "obb"
  | "classify"
  | "semantic-segmentation"
  | "depth"
  | "image-to-image";

/** How pixels become the model's input, where a `preprocessor_config.json`, timm's `config.json` or an `infer_cfg.yml` says it. */
export interface StatedPreprocessing {
  /** Width and height in pixels. */
  size?: readonly [number, number];
  fit?: "stretch" | "crop" | "cover" | "letterbox-top-left";
  /** For `crop`: the part of the short side that is kept, 0..1. */
  crop_pct?: number;
  interpolation?: "nearest" | "bilinear" | "bicubic" | "lanczos";
  /** A pixel value (0..255) is multiplied by it. */
  scale?: number;
  mean?: readonly number[];
  std?: readonly number[];
}

export interface ModelFacts {
  /** Undefined where the file is in another format than ONNX. */
  graph?: OnnxFile;
  /** By class index. */
  labels?: readonly string[];
  task?: ModelTask;
  /** `ultralytics`, `huggingface`, `rapidocr` …: who wrote what was read. */
  family?: string;
  /** Architecture in the exporter's words: `RTDetrForObjectDetection`, `Ultralytics YOLO11n model`. */
  architecture?: string;
  /** Whether the graph picks the boxes itself; undefined where nothing says it. */
  endToEnd?: boolean;
  /** Key points of a pose, and the numbers of each (2 or 3). */
  keyPointShape?: readonly [count: number, numbers: number];
  /** Width and height in pixels. */
  inputSize?: readonly [number, number];
  /** What the outputs of a classifier are to become. */
  problem?: "single_label" | "multi_label" | "regression";
  /** The characters of a text recogniser, from class 1 on; class 0 is CTC's blank. */
  characters?: readonly string[];
  preprocessing?: StatedPreprocessing;
  /** What was read, and from where, in words: `labels`: `80 from the metadata (person, bicycle, …)`. */
  said: Readonly<Record<string, string>>;
  /** What was found but not believed, and why. */
  notes: readonly string[];
}

type Draft = { -readonly [Key in keyof ModelFacts]: ModelFacts[Key] } & {
  said: Record<string, string>;
  notes: string[];
};

/**
 * Reads the metadata of an .onnx file, and beside it (or, as the Hugging Face Hub has them, in the folder above)
 * `config.json`, `preprocessor_config.json`, `infer_cfg.yml` and `labels.txt`.
 * @throws Error of the file system where the model can't be opened
 */
export async function readModelFacts(file: string): Promise<ModelFacts> {
  const facts: Draft = { said: {}, notes: [] };
  const graph = readOnnxFile(file);
  if (graph) {
    facts.graph = graph;
    readMetadata(graph.metadata, facts);
  }
  const folder = path.dirname(file);
  const folders = path.basename(folder) === "onnx" ? [folder, path.dirname(folder)] : [folder];
  for (const place of folders) {
    await readHuggingFaceConfig(path.join(place, "config.json"), facts);
    await readPreprocessorConfig(path.join(place, "preprocessor_config.json"), facts);
  }
  await readPaddleConfig(path.join(folder, "infer_cfg.yml"), facts);
  await readLabelsFile(folder, facts);
  return facts;
}

// Metadata

const TASKS: Readonly<Record<string, ModelTask>> = {
  detect: "detect",
  segment: "segment",
  pose: "pose",
  obb: "obb",
  classify: "classify",
};
const LABEL_KEYS = ["names", "labels", "class_names", "classes", "id2label"];

function readMetadata(metadata: Readonly<Record<string, string>>, facts: Draft): void {
  const value = (key: string) => metadata[key] ?? metadata[key.toUpperCase()];
  const task = TASKS[value("task") ?? ""];
  if (task) {
    facts.task = task;
    facts.said["task"] = `${task} from the metadata`;
  }
  for (const key of LABEL_KEYS) {
    const text = value(key);
    const labels = text === undefined ? undefined : readLabels(text);
    if (labels) {
      setLabels(facts, labels, `the metadata "${key}"`);
      break;
    }
    if (text) facts.notes.push(`the metadata "${key}" holds no list of labels and is left out`);
  }
  const about = [value("description"), value("head")].filter(Boolean).join(", head ");
  if (/ultralytics/i.test(`${about} ${value("author") ?? ""}`) || (task && value("stride"))) {
    facts.family = "ultralytics";
    facts.architecture = about;
  }
  const args = asObject(readLiteral(value("args") ?? ""));
  const endToEnd = [value("end2end"), args?.["nms"], args?.["end2end"]].filter((each) => each !== undefined);
  if (endToEnd.length > 0) {
    facts.endToEnd = endToEnd.some(
      (each) => each === true || (typeof each === "string" && /^true$/i.test(each)),
    );
    if (facts.endToEnd) facts.said["end2end"] = "true from the metadata";
  }
  const keyPoints = readLiteral(value("kpt_shape") ?? "");
  if (Array.isArray(keyPoints) && keyPoints.length === 2 && keyPoints.every((each) => isCount(each))) {
    facts.keyPointShape = keyPoints as unknown as [number, number];
    facts.said["kpt_shape"] = `${keyPoints.join(" × ")} from the metadata`;
  }
  const size = readLiteral(value("imgsz") ?? "");
  const [height, width] = Array.isArray(size) ? size : [size, size];
  if (isCount(height) && isCount(width)) {
    facts.inputSize = [width, height];
    facts.said["input size"] = `${width}×${height} from the metadata "imgsz"`;
  }
  const characters = value("character");
  if (characters) {
    // A list of lines, of which a trailing break is no character.
    facts.characters = characters.replace(/\r?\n$/, "").split(/\r?\n/);
    facts.family = "rapidocr";
    facts.said["characters"] = `${facts.characters.length} from the metadata "character"`;
  }
}

/** Labels from a list or a dictionary of class indices, in JSON, Python's writing or lines. */
function readLabels(text: string): string[] | undefined {
  const literal = readLiteral(text.trim());
  if (literal !== undefined && typeof literal === "object" && literal !== null) return toLabels(literal);
  return /\n/.test(text.trim()) ? text.trim().split(/\r?\n/) : undefined;
}

function toLabels(literal: Literal): string[] | undefined {
  if (typeof literal !== "object" || literal === null) return undefined;
  const entries = Object.entries(literal);
  const labels: string[] = [];
  for (const [index, label] of entries) {
    if (!/^\d+$/.test(index) || (typeof label !== "string" && typeof label !== "number")) return undefined;
    labels[Number(index)] = String(label);
  }
  return entries.length > 0 && labels.length === entries.length ? labels : undefined;
}

function setLabels(facts: Draft, labels: readonly string[], from: string): void {
  facts.labels = labels;
  const first = labels.slice(0, 3).join(", ");
  facts.said["labels"] = `${labels.length} from ${from} (${first}${labels.length > 3 ? ", …" : ""})`;
}

// Hugging Face

async function readHuggingFaceConfig(file: string, facts: Draft): Promise<void> {
  const config = await readJson(file, facts);
  // Others call their files config.json, too.
  if (!config || !("model_type" in config || "architecture" in config || "id2label" in config)) return;
  facts.family ??= "huggingface";
  const [architecture] = Array.isArray(config["architectures"]) ? config["architectures"] : [];
  const named = architecture ?? config["architecture"] ?? config["model_type"];
  if (typeof named === "string") {
    facts.architecture ??= named;
    facts.said["architecture"] = `${named} from ${path.basename(file)}`;
    const task = taskOf(named);
    if (task) facts.task ??= task;
  }
  const labels = toLabels(config["id2label"] ?? config["label_names"] ?? null);
  if (labels && !facts.labels) setLabels(facts, labels, `${path.basename(file)} "id2label"`);
  const problem = config["problem_type"];
  if (problem === "multi_label_classification") facts.problem = "multi_label";
  if (problem === "single_label_classification") facts.problem = "single_label";
  if (problem === "regression") facts.problem = "regression";
  const timm = asObject(config["pretrained_cfg"]);
  if (timm) facts.preprocessing ??= readTimm(timm);
}

function taskOf(architecture: string): ModelTask | undefined {
  if (/ForImageClassification/.test(architecture)) return "classify";
  if (/ForObjectDetection/.test(architecture)) return "detect";
  if (/ForSemanticSegmentation/.test(architecture)) return "semantic-segmentation";
  if (/ForDepthEstimation/.test(architecture)) return "depth";
  if (/ForImageSuperResolution|ForImageToImage/.test(architecture)) return "image-to-image";
  return undefined;
}

const PILLOW_FILTERS: Readonly<Record<string, StatedPreprocessing["interpolation"]>> = {
  0: "nearest",
  1: "lanczos",
  2: "bilinear",
  3: "bicubic",
};

async function readPreprocessorConfig(file: string, facts: Draft): Promise<void> {
  const config = await readJson(file, facts);
  if (!config || !("image_mean" in config || "do_resize" in config || "do_rescale" in config)) return;
  const preprocessing: StatedPreprocessing = {};
  const size = asObject(config["size"]);
  const short = numberOf(size?.["shortest_edge"]) ?? numberOf(config["size"]) ?? numberOf(size?.["height"]);
  const crop = asObject(config["crop_size"]);
  const cropped = numberOf(crop?.["height"]) ?? numberOf(config["crop_size"]);
  const fraction = numberOf(config["crop_pct"]);
  if (config["do_resize"] !== false && short !== undefined) {
    if (config["do_center_crop"] === true && cropped !== undefined) {
      const width = numberOf(crop?.["width"]) ?? cropped;
      Object.assign(preprocessing, { size: [width, cropped] });
      const kept = Math.min(width, cropped) / short;
      if (kept < 1) Object.assign(preprocessing, { fit: "crop", crop_pct: kept });
      else if (kept === 1) Object.assign(preprocessing, { fit: "cover" });
      else
        facts.notes.push(`${path.basename(file)} crops to more than it resizes to; its sizes are left out`);
    } else if (fraction !== undefined && size?.["shortest_edge"] !== undefined) {
      // As ConvNeXT does it: from 384 on the whole picture is used.
      Object.assign(preprocessing, { size: [short, short] });
      Object.assign(preprocessing, short < 384 ? { fit: "crop", crop_pct: fraction } : { fit: "stretch" });
    } else if (size?.["longest_edge"] !== undefined) {
      Object.assign(preprocessing, { fit: "letterbox-top-left" });
    } else if (size?.["shortest_edge"] === undefined) {
      const width = numberOf(size?.["width"]) ?? short;
      Object.assign(preprocessing, { size: [width, short], fit: "stretch" });
    }
  }
  const filter = PILLOW_FILTERS[numberOf(config["resample"]) ?? -1];
  if (filter) Object.assign(preprocessing, { interpolation: filter });
  if (config["do_rescale"] === false) Object.assign(preprocessing, { scale: 1 });
  else Object.assign(preprocessing, { scale: numberOf(config["rescale_factor"]) ?? 1 / 255 });
  const [mean, std] = [numbersOf(config["image_mean"]), numbersOf(config["image_std"])];
  if (config["do_normalize"] === false) Object.assign(preprocessing, { mean: [0, 0, 0], std: [1, 1, 1] });
  else if (mean && std) Object.assign(preprocessing, { mean, std });
  facts.preprocessing = preprocessing;
  facts.said["preprocessing"] = `${describe(preprocessing)} from ${path.basename(file)}`;
}

function readTimm(config: Record<string, Literal>): StatedPreprocessing {
  const [, height, width] = numbersOf(config["input_size"]) ?? [];
  const fraction = numberOf(config["crop_pct"]);
  const [mean, std] = [numbersOf(config["mean"]), numbersOf(config["std"])];
  const interpolation = ["nearest", "bilinear", "bicubic", "lanczos"].find(
    (each) => each === config["interpolation"],
  ) as StatedPreprocessing["interpolation"];
  return {
    ...(width && height ? { size: [width, height] } : {}),
    ...(fraction === undefined
      ? {}
      : fraction >= 1
        ? { fit: config["crop_mode"] === "squash" ? "stretch" : "cover" }
        : { fit: "crop", crop_pct: fraction }),
    ...(interpolation && { interpolation }),
    ...(mean && std && { mean, std }),
  };
}

// PaddleDetection

/** OpenCV's numbers. */
const OPENCV_FILTERS: Readonly<Record<string, StatedPreprocessing["interpolation"]>> = {
  0: "nearest",
  1: "bilinear",
  2: "bicubic",
  4: "lanczos",
};

/** What `tools/export_model.py` of PaddleDetection writes beside a model: labels, and the steps of its preprocessing. */
async function readPaddleConfig(file: string, facts: Draft): Promise<void> {
  const config = await readYaml(file, facts);
  if (!config || !Array.isArray(config["Preprocess"])) return;
  facts.family ??= "paddledetection";
  if (typeof config["arch"] === "string") {
    facts.architecture ??= config["arch"];
    facts.said["architecture"] = `${config["arch"]} from ${path.basename(file)}`;
  }
  const labels = toLabels(config["label_list"] ?? null);
  if (labels && !facts.labels) setLabels(facts, labels, `${path.basename(file)} "label_list"`);
  const steps = config["Preprocess"].map((step) => asObject(step));
  const step = (type: string) => steps.find((each) => each?.["type"] === type);
  const preprocessing: StatedPreprocessing = {};
  const [resize, normalise] = [step("Resize"), step("NormalizeImage")];
  const [height, width] = numbersOf(resize?.["target_size"]) ?? [];
  if (resize?.["keep_ratio"] === true && height !== width) {
    facts.notes.push(
      `${path.basename(file)} keeps the ratio within ${height}×${width}, which is left out: fit and size say how pictures are resized`,
    );
  } else if (isCount(height) && isCount(width)) {
    const fit = resize?.["keep_ratio"] === true ? "letterbox-top-left" : "stretch";
    Object.assign(preprocessing, { size: [width, height], fit });
  }
  const filter = OPENCV_FILTERS[numberOf(resize?.["interp"]) ?? -1];
  if (filter) Object.assign(preprocessing, { interpolation: filter });
  if (normalise) {
    Object.assign(preprocessing, { scale: normalise["is_scale"] === false ? 1 : 1 / 255 });
    const [mean, std] = [numbersOf(normalise["mean"]), numbersOf(normalise["std"])];
    if (normalise["norm_type"] === "none") Object.assign(preprocessing, { mean: [0, 0, 0], std: [1, 1, 1] });
    else if (mean && std) Object.assign(preprocessing, { mean, std });
  }
  facts.preprocessing = preprocessing;
  facts.said["preprocessing"] = `${describe(preprocessing)} from ${path.basename(file)}`;
}

function describe(preprocessing: StatedPreprocessing): string {
  const parts = Object.entries(preprocessing).map(
    ([key, value]) =>
      `${key} ${Array.isArray(value) ? `[${value.join(", ")}]` : typeof value === "number" ? Number(value.toPrecision(4)) : value}`,
  );
  return parts.join(", ");
}

// labels.txt

async function readLabelsFile(folder: string, facts: Draft): Promise<void> {
  const file = path.join(folder, "labels.txt");
  if (facts.labels) return;
  const text = await readText(file);
  if (text === undefined) return;
  const models = (await readdir(folder)).filter((name) => /\.(onnx|ort)$/i.test(name));
  if (models.length > 1) {
    facts.notes.push(
      `${file} lies beside ${models.length} models, so that it's unclear whose labels these are; class_names can name it`,
    );
    return;
  }
  const labels = text.split(/\r?\n/).map((line) => line.trim());
  while (labels.at(-1) === "") labels.pop();
  if (labels.length === 0 || labels.includes("")) return;
  setLabels(facts, labels, "labels.txt beside the model");
}

// Files and values

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readTextFile(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR" || code === "EACCES") return undefined;
    throw error;
  }
}

async function readJson(file: string, facts: Draft): Promise<Record<string, Literal> | undefined> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  try {
    return asObject(JSON.parse(text) as Literal);
  } catch {
    facts.notes.push(`${file} is no JSON and is left out`);
    return undefined;
  }
}

async function readYaml(file: string, facts: Draft): Promise<Record<string, Literal> | undefined> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  const { parse } = await import("yaml");
  try {
    return asObject(parse(text) as Literal);
  } catch {
    facts.notes.push(`${file} is no YAML and is left out`);
    return undefined;
  }
}

function asObject(value: Literal | undefined): Record<string, Literal> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
}

function numberOf(value: Literal | undefined): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

function numbersOf(value: Literal | undefined): number[] | undefined {
  return Array.isArray(value) && value.every((each) => typeof each === "number") ? value : undefined;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value > 0;
}
