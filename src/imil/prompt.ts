/** A prompt that came as plain text, in the form that loaders know: a list of lists. */

import { parseJson } from "../core/json.ts";

/** Texts (`Prompt=a&Prompt=b`, a parameter) or a JSON list in one. */
export function promptOfText(value: unknown): unknown {
  if (typeof value === "string" && value.trimStart().startsWith("[")) {
    try {
      return parseJson(value);
    } catch {
      // Then it is a prompt that begins with a bracket.
    }
  }
  return [Array.isArray(value) ? value : [value]];
}
