/** Tensors in JSON answers: their raw bytes are kept beside the response, and JSON wants numbers. */
import { attachOutputs } from "../core/request.ts";
import type { Prediction } from "../core/prediction.ts";
import { LoaderError } from "../errors.ts";
import { inlineTensors, type TensorEntry } from "../tensors/dialect.ts";
import type { Api } from "./api.ts";

/**
 * The prediction with the data of its tensors in its result. One that is larger than `max_inline_output_bytes`, or that
 * holds NaN or an infinity, has the URL of its raw bytes instead.
 */
export async function withTensorData(api: Api, prediction: Prediction): Promise<Prediction> {
  const entries = prediction.result?.["outputs"];
  if (!Array.isArray(entries) || prediction.outputs.length === 0) return prediction;
  const outputs = await Promise.all((entries as TensorEntry[]).map((entry) => fill(api, prediction, entry)));
  return { ...prediction, result: { ...prediction.result, outputs } };
}

async function fill(
  { config, predictions }: Api,
  prediction: Prediction,
  entry: TensorEntry,
): Promise<TensorEntry & { url?: string }> {
  const output = prediction.outputs.find(({ name }) => name === entry?.name);
  if (!output || entry.data !== undefined) return entry;
  if (output.bytes > config.max_inline_output_bytes) return { ...entry, url: output.url };
  const read = await predictions.readOutputs({ ...prediction, outputs: [output] });
  try {
    const { outputs } = inlineTensors(attachOutputs({ outputs: [entry] }, read));
    return outputs[0]!;
  } catch (error) {
    if (error instanceof LoaderError) return { ...entry, url: output.url };
    throw error;
  }
}
