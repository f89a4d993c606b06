/** Reads the labels that a model's `class_names` names, and turns its `classes` into a filter. */
import { resolve } from "node:path";
import { didYouMean } from "../closest.ts";
import { readTextFile } from "../models/textFile.ts";
import { coco91Labels, cocoLabels } from "./labels/coco.ts";
import { ferLabels } from "./labels/fer.ts";
import { imagenetLabels } from "./labels/imagenet.ts";

const BUILT_IN: Readonly<Record<string, readonly string[]>> = {
  imagenet: imagenetLabels,
  coco: cocoLabels,
  coco91: coco91Labels,
  fer: ferLabels,
};

/**
 * Labels by class index. `value` is `["imagenet"]` (1000 labels), `["coco"]` (80), `["coco91"]` (torchvision's numbers)
 * or `["fer"]` (7 facial expressions), a list of labels, or the path of a file, relative to `baseDir`: a JSON array, a
 * JSON object from index to label or one with `id2label`, a `data.yaml` with `names`, or text with a label on each line,
 * with or without its number before it. UTF-8 or UTF-16.
 * @throws Error that says what is wrong with the file.
 */
export async function readClassNames(value: readonly string[] | string, baseDir: string): Promise<string[]> {
  if (typeof value === "string") return readLabelFile(resolve(baseDir, value));
  const builtIn = value.length === 1 ? BUILT_IN[value[0]!] : undefined;
  return [...(builtIn ?? value)];
}

async function readLabelFile(file: string): Promise<string[]> {
  let text: string;
  try {
    text = await readTextFile(file);
  } catch (error) {
    const reason =
      (error as NodeJS.ErrnoException).code === "ENOENT" ? "there is no such file" : (error as Error).message;
    throw new Error(
      `must be ${Object.keys(BUILT_IN)
        .map((name) => JSON.stringify([name]))
        .join(", ")}, a list of labels or the path of a file of labels, got ${file}: ${reason}`,
      { cause: error },
    );
  }
  const labels = await readLabels(text, file);
  while (labels.at(-1) === "") labels.pop();
  const empty = labels.indexOf("");
  if (labels.length === 0) throw new Error(`${file} holds no labels`);
  if (empty >= 0) throw new Error(`${file} must have a label for each class, class ${empty} is empty`);
  return labels;
}

async function readLabels(text: string, file: string): Promise<string[]> {
  if (/^\s*[[{]/.test(text)) return labelsOf(parseJson(text, file), file);
  if (/\.ya?ml$/i.test(file)) return labelsOf(await parseYaml(text, file), file);
  const lines = text.split(/\r\n|\r|\n/).map((line) => line.trim());
  return numberedLabels(lines) ?? lines;
}

function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${file} begins like JSON but is none: ${(error as Error).message}`, { cause: error });
  }
}

async function parseYaml(text: string, file: string): Promise<unknown> {
  const { parse } = await import("yaml");
  try {
    // Plain scalars stay as they are written: `names: [7, no]` are labels.
    return parse(text, { schema: "failsafe" });
  } catch (error) {
    throw new Error(`${file} is no YAML: ${(error as Error).message.split("\n")[0]}`, { cause: error });
  }
}

/** Keys that hold the labels in files that hold more: Ultralytics' data.yaml, Hugging Face's config.json. */
const LABEL_KEYS = ["names", "id2label", "labels"];

function labelsOf(parsed: unknown, file: string): string[] {
  const whole = (parsed ?? {}) as Record<string, unknown>;
  const key = Array.isArray(parsed) ? undefined : LABEL_KEYS.find((each) => typeof whole[each] === "object");
  const entries = Object.entries((key === undefined ? whole : whole[key]) as Record<string, unknown>);
  const labels: string[] = [];
  for (const [index, label] of entries) {
    if (!/^\d+$/.test(index) || typeof label !== "string") {
      throw new Error(
        `${file} must be an array of labels, an object from class index to label, or one that has them as ${LABEL_KEYS.join(", ")}, got ${JSON.stringify({ [index]: label })}`,
      );
    }
    labels[Number(index)] = label;
  }
  const missing = labels.findIndex((label) => label === undefined);
  if (missing >= 0) throw new Error(`${file} has no label for class ${missing}`);
  return labels;
}

/** Labels of lines such as `0 cat` or `0: cat`, where every line has a number and they go from 0 on. */
function numberedLabels(lines: readonly string[]): string[] | undefined {
  const labels: string[] = [];
  for (const line of lines) {
    if (line === "") continue;
    const [, index, label] = /^(\d+)\s*[:,;\t ]\s*(.+)$/.exec(line) ?? [];
    if (index === undefined || labels[Number(index)] !== undefined) return undefined;
    labels[Number(index)] = label!;
  }
  const count = lines.filter((line) => line !== "").length;
  return labels.length === count && count > 0 && !labels.includes(undefined as unknown as string)
    ? labels
    : undefined;
}

/**
 * The filter that `classes` (labels, or indices from 0) means for these labels; empty keeps every class. A label that
 * several classes share keeps all of them.
 * @throws Error that names every entry that is no class.
 */
export function keepClasses(
  classes: readonly (string | number)[],
  labels: readonly string[],
): (classIndex: number) => boolean {
  if (classes.length === 0) return () => true;
  const kept = new Set<number>();
  const faults: string[] = [];
  for (const entry of classes) {
    if (typeof entry === "number") {
      if (Number.isInteger(entry) && entry >= 0 && (labels.length === 0 || entry < labels.length))
        kept.add(entry);
      else faults.push(`class ${entry} is out of range, the model has the classes 0 to ${labels.length - 1}`);
    } else if (labels.includes(entry)) {
      for (const [index, label] of labels.entries()) if (label === entry) kept.add(index);
    } else {
      const known = labels.length === 0 ? ", since class_names is empty" : didYouMean(entry, labels);
      faults.push(`${JSON.stringify(entry)} is no label of the model${known}`);
    }
  }
  if (faults.length > 0) throw new Error(faults.join("; "));
  return (classIndex) => kept.has(classIndex);
}
