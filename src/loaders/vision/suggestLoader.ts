/** Says which loader would fit a model, for the message that refuses it and for `infermill models inspect`. */
import type { ModelFacts } from "../../models/modelFacts.ts";

/** `; loader DetectionModelLoader would fit`, or an empty string. */
export function suggestLoader(_facts: ModelFacts, _labels: number, _asked: string): string {
  return "";
}
