/** What a loader's `predictRequests` returned, checked, since its author may have written plain JavaScript. */
import type { RequestDictionary, ResponseDictionary } from "../core/request.ts";
import { LoaderError } from "../errors.ts";
import type { BaseModelLoader, Outcome } from "./BaseModelLoader.ts";

/** @throws LoaderError where the outcomes are not as many as the requests; one that is no dictionary becomes an error itself */
export function checkOutcomes(outcomes: unknown, expected: number): Outcome[] {
  if (!Array.isArray(outcomes) || outcomes.length !== expected) {
    const got = Array.isArray(outcomes) ? `${outcomes.length}` : typeof outcomes;
    throw new LoaderError(
      `predictRequests() must return an array of one outcome for each of its ${expected} requests, got ${got}`,
    );
  }
  return outcomes.map((outcome) => {
    if (
      outcome instanceof Error ||
      (typeof outcome === "object" && outcome !== null && !Array.isArray(outcome))
    )
      return outcome as Outcome;
    return new LoaderError(
      `the loader must return a response dictionary, got ${JSON.stringify(outcome) ?? typeof outcome}`,
    );
  });
}

/**
 * Runs one request as a batch of its own.
 * @throws whatever it fails with
 */
export async function predictAlone(
  loader: Pick<BaseModelLoader, "predictRequests">,
  request: RequestDictionary,
): Promise<ResponseDictionary> {
  const trace = { preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 };
  const [outcome] = checkOutcomes(await loader.predictRequests([request], trace), 1);
  if (outcome instanceof Error) throw outcome;
  return outcome!;
}
