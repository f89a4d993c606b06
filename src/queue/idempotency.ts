/** Submissions under an id of the client's: the same request again is the first prediction, another one is refused. */
import { createHash } from "node:crypto";
import { stringify } from "safe-stable-stringify";
import type { RequestDictionary } from "../core/request.ts";
import { IdempotencyConflictError } from "../errors.ts";
import type { StoredInput } from "./inputs.ts";
import { readJob, removeInputs, type PredictionStore } from "./predictionStore.ts";

/** Equal for two requests with the same keys, in any order, and the same inputs. */
export function fingerprintOf(request: RequestDictionary, inputs: readonly StoredInput[]): string {
  const bytes = inputs.map(({ sha256, ref }) => (ref.name === undefined ? sha256 : [ref.name, sha256]));
  return createHash("sha256")
    .update(stringify({ request, inputs: bytes }) ?? "")
    .digest("base64url");
}

/**
 * Compares a submission with the prediction that has its id, and removes the inputs that came with it.
 * @throws IdempotencyConflictError where it is another request
 */
export async function confirmSame(
  store: PredictionStore,
  model: string,
  { id, request, inputs }: { id: string; request: RequestDictionary; inputs: StoredInput[] },
): Promise<void> {
  const first = await readJob(store, model, id);
  await removeInputs(store, inputs);
  if (first?.data.fingerprint !== fingerprintOf(request, inputs)) throw idempotencyConflict(id);
}

export function idempotencyConflict(id: string): IdempotencyConflictError {
  return new IdempotencyConflictError(
    `the prediction ${id} was made from another request; use a new key, or send the same dictionary and inputs again`,
  );
}
