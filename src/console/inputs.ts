/** What a model can be given, by what its description says, and an example of it. */
import type { TensorDescription } from "../core/description.ts";
import type { InputOfModel, Model } from "./answers.ts";

/** `files`: pictures, sounds, other bytes; `tensors`: the Open Inference Protocol's JSON; `request`: a whole dictionary. */
export type InputForm = "files" | "text" | "tensors" | "request";

const RAW = "application/octet-stream";

/** Ways to give it something, the most natural first. */
export function inputFormsOf(model: Model): InputForm[] {
  const forms: InputForm[] = [];
  const inputs = model.inputs ?? [];
  const isOnlyRaw = inputs.every(({ media_types }) => media_types.every((type) => type === RAW));
  if (fileInputsOf(model).length > 0 && !(isOnlyRaw && model.takes_tensors)) forms.push("files");
  if (takesText(model)) forms.push("text");
  if (model.takes_tensors && model.tensors) forms.push("tensors");
  // One that needs no file may go by keys of its own.
  if (inputs.every(({ required }) => !required) && !forms.includes("tensors")) forms.push("request");
  return forms;
}

function takesText({ inputs, required_keys: keys, embeds }: Model): boolean {
  return (
    embeds === "text" ||
    (keys?.includes("Text") ?? false) ||
    (inputs ?? []).some(({ media_types }) => media_types.some((type) => type.startsWith("text/")))
  );
}

/** Inputs that files are chosen for. Nobody knows yet of a model that isn't loaded: it may take a picture. */
export function fileInputsOf({ inputs }: Model): InputOfModel[] {
  if (inputs === null) return [{ name: "image", media_types: ["image/*"], required: false, multiple: true }];
  return inputs.filter(({ media_types }) => !media_types.every((type) => type.startsWith("text/")));
}

export function takesPictures(model: Model): boolean {
  return fileInputsOf(model).some(({ media_types }) => media_types.some((type) => type.startsWith("image/")));
}

/** For the attribute `accept` of a file field; empty where anything goes. */
export function acceptOf({ media_types }: InputOfModel): string {
  if (media_types.some((type) => type === "*" || type === "*/*" || type === RAW)) return "";
  // Pictures that browsers have no type for.
  const more = media_types.includes("image/*") ? [".heic", ".heif", ".tif", ".tiff", ".avif"] : [];
  return [...media_types, ...more].join(",");
}

const DATATYPES: Record<string, string> = {
  bool: "BOOL",
  string: "BYTES",
  float16: "FP16",
  float32: "FP32",
  float64: "FP64",
};

function datatypeOf(type: string): string {
  return DATATYPES[type] ?? type.toUpperCase();
}

/** More elements than this are left to the reader. */
const MAX_EXAMPLE = 4096;

/** A request of one sample with zeros (or empty texts), as the model's tensors are. */
export function exampleOfTensors(tensors: readonly TensorDescription[]): string {
  const entries = tensors.map(({ name, type, shape }) => {
    const sizes = shape.map((size) => (typeof size === "number" && size > 0 ? size : 1));
    const count = sizes.reduce((product, size) => product * size, 1);
    const filler = type === "string" ? "" : type === "bool" ? false : 0;
    const data = Array.from({ length: Math.min(count, MAX_EXAMPLE) }, () => filler);
    return `    ${JSON.stringify({ name, datatype: datatypeOf(type), shape: sizes, data })}`;
  });
  return `{\n  "inputs": [\n${entries.join(",\n")}\n  ]\n}`;
}

/** Empty text is an empty object; undefined where it is none. */
export function parseObject(text: string): Record<string, unknown> | undefined {
  if (text.trim() === "") return {};
  try {
    const value = JSON.parse(text) as unknown;
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
