/** What a prediction was made of, to be run again. */
import { InputsGoneError, NotEndedError } from "../errors.ts";
import { isFinal, PRIORITIES, type Priority } from "../core/prediction.ts";
import type { RequestDictionary } from "../core/request.ts";
import { isUploaded, type InputRef } from "./inputs.ts";
import { notFound, readJob, type PredictionStore } from "./predictionStore.ts";
import { readPrediction } from "./read.ts";

export interface Retry {
  request: RequestDictionary;
  /** Bytes where the first prediction's own are still there; else where they are, which is for its worker to read. */
  inputs: { ref: InputRef; bytes: Buffer | undefined }[];
  priority: Priority;
  timeoutMs: number | undefined;
}

/**
 * @throws PredictionNotFoundError
 * @throws NotEndedError
 * @throws InputsGoneError where it had uploads, which are removed when a prediction ends
 */
export async function readForRetry(store: PredictionStore, model: string, id: string): Promise<Retry> {
  const { status } = await readPrediction(store, model, id);
  const job = await readJob(store, model, id);
  if (!job) throw notFound(store, model, id);
  if (!isFinal(status))
    throw new NotEndedError(`the prediction ${id} is ${status}; it can be run again later`);
  const inputs = await Promise.all(
    job.data.inputs.map(async (ref) => {
      if (!isUploaded(ref)) return { ref, bytes: undefined };
      const bytes = await store.inputs.read(ref);
      if (bytes) return { ref, bytes };
      throw new InputsGoneError(
        `what was uploaded for the prediction ${id} is gone: uploads are removed when a prediction ends (console.keep_inputs keeps those of the last ones); submit it again`,
      );
    }),
  );
  const priority = (Object.keys(PRIORITIES) as Priority[]).find((each) => PRIORITIES[each] === job.priority);
  return {
    request: job.data.request,
    inputs,
    priority: priority ?? "normal",
    timeoutMs: job.data.timeout_ms,
  };
}
