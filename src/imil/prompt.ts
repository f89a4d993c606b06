/** A prompt that came as plain text, in the form that loaders know: a list of lists. */

/** Texts (`Prompt=a&Prompt=b`, a parameter) or a JSON list in one. */
export function promptOfText(value: unknown): unknown {
  if (typeof value === "string" && value.trimStart().startsWith("[")) {
    try {
      return JSON.parse(value);
    } catch {
      // Then it is a prompt that begins with a bracket.
    }
  }
  return [Array.isArray(value) ? value : [value]];
}
