/** `infermill models inspect`: what a model's file says of itself, which loader fits, a configuration to paste. */
import path from "node:path";
import { readModelFacts } from "../models/modelFacts.ts";
import { resolveModelPath } from "../models/sources.ts";
import { suggestLoaders, type Suggestion } from "../loaders/vision/suggestLoader.ts";

export async function inspectModel(source: string, options: { json?: boolean }): Promise<void> {
  const file = await resolveModelPath(source, { baseDir: process.cwd(), dataDir: path.resolve("data") });
  const facts = await readModelFacts(file);
  const suggestions = suggestLoaders(facts);
  if (options.json) {
    const { graph, said, notes } = facts;
    const { inputs = [], outputs = [], metadata = {}, producer = "" } = graph ?? {};
    console.log(
      JSON.stringify({ file, producer, inputs, outputs, metadata, said, notes, suggestions }, null, 2),
    );
    return;
  }
  console.log(file);
  if (!facts.graph) {
    console.log(
      "This is no .onnx file, or one that is cut short: nothing is known of it before it is opened.",
    );
    return;
  }
  const { producer, inputs, outputs } = facts.graph;
  if (producer) console.log(`  written by ${producer}`);
  for (const [title, tensors] of [
    ["takes", inputs],
    ["puts out", outputs],
  ] as const) {
    for (const { name, type, shape } of tensors)
      console.log(
        `  ${title} ${name}: ${type} [${(shape ?? ["of any rank"]).map((dim) => dim || "?").join(", ")}]`,
      );
  }
  for (const [what, value] of Object.entries(facts.said)) console.log(`  ${what}: ${value}`);
  for (const note of facts.notes) console.log(`  note: ${note}`);
  printSuggestions(suggestions, source);
}

function printSuggestions(suggestions: readonly Suggestion[], source: string): void {
  const [first] = suggestions;
  if (!first) {
    console.log("\nNo loader is known to fit. OnnxTensorModelLoader serves any graph as it is.");
    return;
  }
  console.log(
    suggestions.length === 1 ? "\nThe loader that fits:" : "\nLoaders that may fit, the likeliest first:",
  );
  for (const { loader, why, settings } of suggestions) {
    const format = typeof settings["format"] === "string" ? ` with format "${settings["format"]}"` : "";
    console.log(`  ${loader}${format}: ${why}`);
  }
  const { name, section } = toSection(source, first);
  console.log(`\n${JSON.stringify({ models: { [name]: section } }, null, 2)}`);
  if (first.settings["class_names"] === null)
    console.log(
      '\nThe file doesn\'t say its labels: class_names names a file of them, or is a list, or ["coco"], ["imagenet"]; without it findings have class indices.',
    );
}

/** A model's name and its section of a configuration, after what was found. */
export function toSection(source: string, { loader, settings }: Suggestion) {
  const name =
    path
      .basename(source)
      .replace(/\.(onnx|ort)$/i, "")
      .replaceAll(/[^\w.-]/g, "_")
      .replace(/^[^a-z0-9]+/i, "") || "model";
  const { class_names, ...others } = settings;
  const labels =
    class_names === null && loader === "TextRecognitionModelLoader"
      ? "characters.txt"
      : (class_names ?? undefined);
  return {
    name,
    section: {
      loader,
      model_path: [source],
      ...(labels !== undefined && { class_names: labels }),
      ...others,
    },
  };
}
