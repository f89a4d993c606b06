/**
 * IMIL's configuration, mil_config.json, as ours: its three general sections
 * become settings, every other section a model. What a section lacks to be
 * served is told with its key in their file.
 */
import { stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { ConfigFault } from "../errors.ts";
import { exportAdvice, type ModelFamily } from "./exportAdvice.ts";

const GENERAL_SECTIONS = ["ModelExecutor", "ModelLoader", "FastAPI"];

export interface ConvertedConfig {
  /** As `configSchema` takes it. */
  settings: Record<string, unknown>;
  faults: ConfigFault[];
  /** What is not served, or not as it stands there. */
  warnings: string[];
  /** A key of `settings`, such as `models.PyTorch.device`, as IMIL's file has it. */
  keyInFile: (key: string) => string;
}

type Section = Readonly<Record<string, unknown>>;

/** What keeps a section from being served. */
interface Problem {
  key: string;
  problem: string;
}

/** A loader and what IMIL's section of that kind means for it. */
interface Kind {
  loader: string;
  family: ModelFamily;
  /** Settings that IMIL has in its code. */
  defaults?: Section;
}

const YOLO: Kind = { loader: "YoloModelLoader", family: "ultralytics", defaults: { class_names: ["coco"] } };
const DETECTION: Kind = { loader: "DetectoModelLoader", family: "torchvision detection" };
const CLASSIFICATION: Kind = { loader: "ImageClassificationModelLoader", family: "torch classification" };

/** By lower-case name, because IMIL's documents and its file spell some of them differently. */
const KINDS: Readonly<Record<string, (section: Section) => Kind | undefined>> = {
  cocoobjectdetection_de: () => DETECTION,
  cocoobjectdetection_y5: () => YOLO,
  cocoobjectdetection_y7: () => ({ ...YOLO, family: "yolov7" }),
  cocoobjectdetection_y8: () => YOLO,
  poseestimation_y7: () => ({ loader: "PoseEstimationModelLoader", family: "yolov7-pose" }),
  pytorch: kindOfCategory,
  firesmokeclassifier_r50: kindOfCategory,
  tensorflow: () => ({
    loader: "ImageClassificationModelLoader",
    family: "tensorflow",
    // Only ÷ 255. That the tensor is NHWC stands in the model itself.
    defaults: { mean: [0, 0, 0], std: [1, 1, 1] },
  }),
  facialexpressionrecognition: () => ({
    loader: "FacialExpressionRecognitionModelLoader",
    family: "facial expression",
  }),
};

function kindOfCategory({ category = "image_classification" }: Section): Kind | undefined {
  if (category === "image_classification") return CLASSIFICATION;
  return category === "object_detection" ? DETECTION : undefined;
}

/** The worked examples of IMIL's advanced guide are built in here, too. */
const BUILT_IN_TWINS: Readonly<Record<string, string>> = {
  CustomDetectoModelLoader: "DetectoModelLoader",
  CustomClipModelLoader: "ClipModelLoader",
};

/** Keys of IMIL's sections that say nothing that the ONNX file or the loader doesn't. */
const IMIL_ONLY = new Set(["name", "category", "yolo_path", "img_size", "clip_model"]);

export function isMilConfig(content: Section): boolean {
  return !("models" in content) && GENERAL_SECTIONS.some((name) => isSection(content[name]));
}

/**
 * Converts the content of a mil_config.json.
 *
 * All its models are served, not only `model_name`. IMIL ships sections for models that its user may not have; such a
 * section (no `model_path`, or weights that are no ONNX) is left out with a warning. It is a fault where it is the
 * section of `model_name`, or where it shows that it is meant to be served here: by an .onnx file or an address, a
 * `loader` or a `model_loader_file`.
 * @param settingNames keys of ours that may stand beside the sections, such as `data_dir`
 */
export async function convertMilConfig(
  content: Section,
  file: string,
  settingNames: readonly string[],
): Promise<ConvertedConfig> {
  const mainModel = textOf(sectionOf(content, "ModelExecutor")["model_name"]);
  const sections = Object.entries(content).filter(
    ([name]) => !GENERAL_SECTIONS.includes(name) && !settingNames.includes(name),
  );
  const { models, faults, leftOut } = await convertSections(sections, content, file);
  if (sections.length === 0) faults.push({ key: "", problem: "must have a section for at least one model" });
  if (mainModel !== undefined && !sections.some(([name]) => name === mainModel)) {
    const names = sections.map(([name]) => name).join(", ");
    faults.push({
      key: "ModelExecutor.model_name",
      problem: `must be the name of a section of this file (${names}), got ${JSON.stringify(mainModel)}`,
    });
  }
  // With nothing to serve, what was left out is all that there is to tell.
  if (Object.keys(models).length === 0 && faults.length === 0) faults.push(...leftOut.splice(0));

  const ownSettings = Object.entries(content).filter(([name]) => settingNames.includes(name));
  const endpoint = convertEndpoint(content, mainModel, models);
  const keys = keysInFile(content, models);
  return {
    settings: {
      ...(mainModel !== undefined && mainModel in models && { default_model: mainModel }),
      ...Object.fromEntries(ownSettings),
      ...convertAddress(sectionOf(content, "FastAPI")),
      endpoints: { ...sectionOf(content, "endpoints"), ...endpoint.endpoints },
      models,
    },
    faults: faults.map((fault) => ({ source: file, ...fault })),
    warnings: [
      ...leftOut.map(({ key, problem }) => `${key.split(".")[0]} is not served: ${key} ${problem}`),
      ...endpoint.warnings,
      ...warningsOfMethod(content),
    ].map((warning) => `${file}: ${warning}`),
    keyInFile: (key) => translateKey(key, keys),
  };
}

async function convertSections(
  sections: readonly [name: string, section: unknown][],
  content: Section,
  file: string,
): Promise<{ models: Record<string, Section>; faults: Problem[]; leftOut: Problem[] }> {
  const mainModel = textOf(sectionOf(content, "ModelExecutor")["model_name"]);
  const models: Record<string, Section> = {};
  const faults: Problem[] = [];
  const leftOut: Problem[] = [];
  for (const [name, section] of sections) {
    const { model, problems } =
      name === mainModel && isCustom(content)
        ? await convertCustomSection(name, section, content, file)
        : convertSection(name, section);
    if (problems.length === 0) models[name] = model;
    else if (name === mainModel || isPrepared(section)) faults.push(...problems);
    else leftOut.push(...problems);
  }
  return { models, faults, leftOut };
}

/** Whether `model_name` is run by a class of the user's own. */
function isCustom(content: Section): boolean {
  const file = textOf(sectionOf(content, "ModelExecutor")["model_loader_file"]);
  return file !== undefined && file !== "default";
}

interface ConvertedSection {
  model: Section;
  problems: Problem[];
}

/** A section whose loader is built in, or named in the section itself. */
function convertSection(name: string, section: unknown): ConvertedSection {
  if (!isSection(section))
    return refused(name, `must be a section (an object), got ${JSON.stringify(section)}`);
  const kind = KINDS[name.toLowerCase()]?.(section);
  if (section["loader"] !== undefined || section["model_loader_file"] !== undefined) {
    const isOwn = section["model_loader_file"] !== undefined;
    return { model: { ...kind?.defaults, loader: name, ...settingsOf(section, isOwn) }, problems: [] };
  }
  if (!kind) return refused(`${name}.${missingKey(name)}`, adviceForUnknown(name, section));
  const model = { loader: kind.loader, ...kind.defaults, ...settingsOf(section, false) };
  return { model, problems: problemsOfPaths(name, section, kind.family) };
}

function problemsOfPaths(name: string, section: Section, family: ModelFamily): Problem[] {
  const paths = pathsOf(section);
  const size = imageSizeOf(section) ?? (/_y\d$/i.test(name) ? [640, 640] : [224, 224]);
  const advice = (file?: string) =>
    exportAdvice(family, { file, architecture: textOf(section["name"]), size });
  if (paths.length === 0) {
    return [{ key: `${name}.model_path`, problem: `must name an .onnx file, got []; ${advice()}` }];
  }
  return paths.flatMap((path, index) =>
    isOnnx(path)
      ? []
      : {
          key: `${name}.model_path.${index}`,
          problem: `must be an .onnx file, got ${JSON.stringify(path)}; ${advice(path)}`,
        },
  );
}

/** The section of `model_name` where `model_loader_file` names a file: its class is the user's own. */
async function convertCustomSection(
  name: string,
  section: unknown,
  content: Section,
  configFile: string,
): Promise<ConvertedSection> {
  if (!isSection(section))
    return refused(name, `must be a section (an object), got ${JSON.stringify(section)}`);
  const loaderSection = sectionOf(content, "ModelLoader");
  const given = textOf(sectionOf(content, "ModelExecutor")["model_loader_file"])!;
  const file = await findLoaderFile(
    given,
    textOf(loaderSection["file_location"]) ?? ".",
    dirname(configFile),
  );
  if (loaderSection["is_class"] === false || /^no$/i.test(textOf(loaderSection["is_class"]) ?? "yes")) {
    return refused("ModelLoader.is_class", "must be yes: a loader is a class");
  }
  const loader = textOf(loaderSection["class_name"]) ?? name;
  return { model: { ...settingsOf(section, true), loader, model_loader_file: file }, problems: [] };
}

/** IMIL names the file without its ending, in the folder `file_location`. */
async function findLoaderFile(given: string, folder: string, baseDir: string): Promise<string> {
  if (/\.(py|[cm]?[jt]s)$/i.test(given)) return join(folder, given);
  const isFile = (path: string) =>
    stat(resolve(baseDir, path)).then(
      (found) => found.isFile(),
      () => false,
    );
  for (const ending of [".ts", ".mts", ".js", ".mjs", ".cjs"]) {
    if (await isFile(join(folder, given + ending))) return join(folder, given + ending);
  }
  return join(folder, `${given}.py`);
}

/**
 * IMIL's keys under our names; keys of ours in the section pass as they are.
 * @param isOwnLoader whether the class is the user's, which may read any key
 */
function settingsOf(section: Section, isOwnLoader: boolean): Section {
  const { classes, device, ...others } = section;
  const size = imageSizeOf(section);
  return {
    ...Object.fromEntries(Object.entries(others).filter(([key]) => isOwnLoader || !IMIL_ONLY.has(key))),
    ...("model_path" in section && { model_path: pathsOf(section) }),
    ...(classes !== undefined && classes !== "" && { classes }),
    ...(device !== undefined && device !== "" && { device }),
    ...(size && !isOwnLoader && { input_image_size: size }),
  };
}

/** A list, one path, or a list as JSON in a string; "" stands for none. */
function pathsOf(section: Section): string[] {
  const given = section["model_path"];
  if (typeof given === "string" && given.trimStart().startsWith("[")) {
    try {
      return pathsOf({ model_path: JSON.parse(given) as unknown });
    } catch {
      // Then it is a path.
    }
  }
  return [given].flat().filter((path): path is string => typeof path === "string" && path.trim() !== "");
}

function imageSizeKey(section: unknown): string {
  return isSection(section) && "img_size" in section && !("input_image_size" in section)
    ? "img_size"
    : "input_image_size";
}

/** One number stands for both sides; what is no size passes, for the schema to tell. */
function imageSizeOf(section: Section): readonly number[] | undefined {
  const size = section[imageSizeKey(section)];
  return typeof size === "number" ? [size, size] : (size as readonly number[] | undefined);
}

function isPrepared(section: unknown): boolean {
  if (!isSection(section)) return true;
  return "loader" in section || "model_loader_file" in section || pathsOf(section).some(isOnnx);
}

function isOnnx(path: string): boolean {
  return /\.(onnx|ort)$/i.test(path) || path.includes("://");
}

function missingKey(name: string): string {
  return name.endsWith("ModelLoader")
    ? "model_loader_file"
    : name.toLowerCase() === "pytorch"
      ? "category"
      : "loader";
}

function adviceForUnknown(name: string, { category }: Section): string {
  if (missingKey(name) === "category")
    return `must be image_classification or object_detection, got ${JSON.stringify(category)}`;
  if (missingKey(name) === "model_loader_file") {
    const twin = BUILT_IN_TWINS[name];
    return (
      "is missing: it must name the Python, TypeScript or JavaScript file that has this class (see docs/python-loaders.md)" +
      (twin === undefined ? "" : `, or "loader": "${twin}" must name the built-in one`)
    );
  }
  return 'is missing: infermill knows no model of this name, so "loader" must name the class that runs it, such as "YoloModelLoader"';
}

function convertAddress({ host, port }: Section): Section {
  return {
    ...(host !== undefined && { host }),
    ...(port !== undefined && {
      port: typeof port === "string" && /^\d+$/.test(port) ? Number(port) : port,
    }),
  };
}

function convertEndpoint(
  content: Section,
  mainModel: string | undefined,
  models: Section,
): { endpoints: Record<string, string>; warnings: string[] } {
  const none = { endpoints: {}, warnings: [] };
  const given = textOf(sectionOf(content, "FastAPI")["endpoint"]);
  const target = mainModel ?? Object.keys(models)[0];
  if (given === undefined || target === undefined || !(target in models)) return none;
  const path = `/${given.replaceAll(/^\/+|\/+$/g, "")}`;
  if (path === `/${target}`) return none;
  if (!(path.slice(1) in models)) return { endpoints: { [path]: target }, warnings: [] };
  const warning = `FastAPI.endpoint ${given} is the model ${path.slice(1)}'s own path and runs that one; ${target} is at /${target}`;
  return { endpoints: {}, warnings: [warning] };
}

function warningsOfMethod(content: Section): string[] {
  const method = textOf(sectionOf(content, "ModelLoader")["first_method_to_call_in_class"]);
  if (!isCustom(content) || method === undefined || /^predict_?request$/i.test(method)) return [];
  return [
    `ModelLoader.first_method_to_call_in_class ${method} is not called: a loader's main driver is predictRequest`,
  ];
}

/** Keys of our settings, and what stands for them in IMIL's file. */
function keysInFile(content: Section, models: Section): Map<string, string> {
  const keys = new Map([
    ["endpoints", "FastAPI.endpoint"],
    ["default_model", "ModelExecutor.model_name"],
    ["host", "FastAPI.host"],
    ["port", "FastAPI.port"],
  ]);
  for (const name of Object.keys(models)) {
    keys.set(`models.${name}`, name);
    keys.set(`models.${name}.input_image_size`, `${name}.${imageSizeKey(content[name])}`);
  }
  if (isCustom(content)) {
    const mainModel = textOf(sectionOf(content, "ModelExecutor")["model_name"]);
    keys.set(`models.${mainModel}.loader`, "ModelLoader.class_name");
    keys.set(`models.${mainModel}.model_loader_file`, "ModelExecutor.model_loader_file");
  }
  return keys;
}

function translateKey(key: string, keys: ReadonlyMap<string, string>): string {
  const known = [...keys.keys()]
    .filter((prefix) => key === prefix || key.startsWith(`${prefix}.`))
    .toSorted((a, b) => b.length - a.length)[0];
  if (known === undefined) return key;
  return keys.get(known)! + (known === "endpoints" ? "" : key.slice(known.length));
}

function refused(key: string, problem: string): ConvertedSection {
  return { model: {}, problems: [{ key, problem }] };
}

function isSection(value: unknown): value is Section {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function sectionOf(content: Section, name: string): Section {
  const section = content[name];
  return isSection(section) ? section : {};
}

/** Undefined where it is left out or blank. */
function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value.trim() !== "" ? value.trim() : undefined;
}
