/** Reads the labels that a model's `class_names` names, and turns its `classes` into a filter. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { didYouMean } from "../closest.ts";
import { coco91Labels, cocoLabels } from "./labels/coco.ts";
import { ferLabels } from "./labels/fer.ts";
import { imagenetLabels } from "./labels/imagenet.ts";
import { decodeText } from "../core/text.ts";

const BUILT_IN: Readonly<Record<string, readonly string[]>> = {
  imagenet: imagenetLabels,
  coco: cocoLabels,
  coco91: coco91Labels,
  fer: ferLabels,
};

/**
 * Labels by class index. `value` is `["imagenet"]` (1000 labels), `["coco"]` (80), `["coco91"]` (torchvision's numbers)
 * or `["fer"]` (7 facial expressions), a list of labels, or the path of a file, relative to `baseDir`: a JSON array, a
 * JSON object from index to label, Hugging Face's config.json (`id2label`), Ultralytics' data.yaml (`names`), or text with
 * a label on each line, or with `<index> <label>` on each.
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
    text = decodeText(await readFile(file));
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
  const labels = await labelsOfText(text, file);
  while (labels.at(-1) === "") labels.pop();
  const empty = labels.indexOf("");
  if (labels.length === 0) throw new Error(`${file} holds no labels`);
  if (empty >= 0) throw new Error(`${file} must have a label for each class, class ${empty} is empty`);
  return labels;
}

async function labelsOfText(text: string, file: string): Promise<string[]> {
  if (/\.ya?ml$/i.test(file)) {
    const { parse } = await import("yaml");
    const { names } = (parse(text) ?? {}) as { names?: unknown };
    if (typeof names !== "object" || names === null)
      throw new Error(`${file} must have the labels in names, as Ultralytics' data.yaml`);
    return labelsOfEntries(names, file);
  }
  if (/^\s*[[{]/.test(text)) return labelsOfJson(text, file);
  const lines = text.split(/\r\n|\r|\n/).map((line) => line.trim());
  const numbered = lines.filter(Boolean).map((line) => /^(\d+)(?:\s*[:,;]\s*|\s+)(\S.*)$/.exec(line));
  // Only where the numbers are those of the classes: "7 of hearts" is a label.
  const isNumbered =
    numbered.length > 1 && new Set(numbered.map((line) => line?.[1])).size === numbered.length;
  if (!isNumbered || numbered.some((line) => !line || Number(line[1]) >= numbered.length)) return lines;
  return labelsOfEntries(Object.fromEntries(numbered.map((line) => [Number(line![1]), line![2]!])), file);
}

function labelsOfJson(text: string, file: string): string[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file} begins like JSON but is none: ${(error as Error).message}`, { cause: error });
  }
  const { id2label } = parsed as { id2label?: unknown };
  return labelsOfEntries(
    typeof id2label === "object" && id2label !== null ? id2label : (parsed as object),
    file,
  );
}

/** Of a list, or of an object from index to label. */
function labelsOfEntries(parsed: object, file: string): string[] {
  const entries = Object.entries(parsed as Record<string, unknown>);
  const labels: string[] = [];
  for (const [index, label] of entries) {
    if (!/^\d+$/.test(index) || typeof label !== "string") {
      throw new Error(
        `${file} must be an array of labels or an object from class index to label, got ${JSON.stringify({ [index]: label })}`,
      );
    }
    labels[Number(index)] = label;
  }
  const missing = labels.findIndex((label) => label === undefined);
  if (missing >= 0) throw new Error(`${file} has no label for class ${missing}`);
  return labels;
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
