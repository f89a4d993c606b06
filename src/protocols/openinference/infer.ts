/** Runs an inference request through the queue, and makes the answer of what its predictions put out. */
import type { Api } from "../../api/api.ts";
import { descriptionOf, draftOf, runAllToEnd } from "../../api/service.ts";
import type { LoaderDescription } from "../../core/description.ts";
import {
  InfermillError,
  InvalidRequestError,
  ModelNotFoundError,
  PredictionCancelledError,
  RetryableError,
} from "../../errors.ts";
import type { Prediction } from "../../core/prediction.ts";
import { errorOfSummary } from "../../queue/jobs.ts";
import {
  answerTensors,
  classify,
  jsonTensor,
  type AnswerTensor,
  type PredictionOutputs,
} from "./answerTensors.ts";
import { partsOf, runOptions, type InferRequest, type RequestedOutput } from "./inferRequest.ts";

/** Output of every model: its whole dictionary, as JSON text. */
const RESPONSE = "response";

/** Models have one version; the protocol wants a name for it. */
export const VERSION = "1";

/** @throws ModelNotFoundError where another version is asked for */
export function checkVersion(model: string, version: string | undefined): void {
  if (version === undefined || version === "" || version === VERSION) return;
  throw new ModelNotFoundError(
    `the model "${model}" has the version ${VERSION} only, got ${JSON.stringify(version)}`,
  );
}

/** @throws RetryableError while no live worker has told what the model takes */
export async function knownDescription(api: Api, model: string): Promise<LoaderDescription> {
  const description = await descriptionOf(api, model);
  if (description) return description;
  throw new RetryableError(`no worker has loaded the model "${model}" yet; try again later`);
}

/**
 * Runs a request to its end.
 * @param client aborted when the client is gone; what was queued is cancelled then
 * @returns the wanted outputs, classified where that is asked for
 * @throws what the request or one of its predictions failed with
 */
export async function infer(
  api: Api,
  model: string,
  request: InferRequest,
  client: AbortSignal,
): Promise<AnswerTensor[]> {
  const description = await knownDescription(api, model);
  const { limitMs, ...options } = runOptions(request.parameters, api.config.sync_timeout_ms);
  checkWanted(request.outputs, description);
  const drafts = partsOf(api, model, request, description).map((parts) => draftOf(parts));
  const outcomes = await runAllToEnd(api, model, drafts, options, { client, limitMs });
  const predictions = allOf(outcomes);
  const wanted = request.outputs.map(({ name }) => name);
  const isWanted = (name: string) => wanted.length === 0 || wanted.includes(name);
  const answers = await Promise.all(predictions.map((prediction) => readWanted(api, prediction, isWanted)));
  const tensors = answerTensors(answers, !description.takesTensors, isWanted);
  if (wanted.length === 0) return tensors;
  return request.outputs.map(({ name, parameters }) => {
    const tensor =
      tensors.find((candidate) => candidate.name === name) ??
      (name === RESPONSE
        ? jsonTensor(
            name,
            answers.map(({ result }) => result),
          )
        : undefined);
    if (!tensor)
      throw unknownOutput(
        name,
        tensors.map((candidate) => candidate.name),
      );
    const count = Number(parameters["classification"] ?? 0);
    return count > 0 ? classify(tensor, count, description.labels) : tensor;
  });
}

/** An output that the model doesn't have is refused before anything is run, where the outputs are known. */
function checkWanted(
  outputs: readonly RequestedOutput[],
  { takesTensors, tensors }: LoaderDescription,
): void {
  const names = takesTensors ? (tensors?.outputs.map(({ name }) => name) ?? []) : [];
  if (names.length === 0) return;
  const unknown = outputs.find(({ name }) => name !== RESPONSE && !names.includes(name));
  if (unknown) throw unknownOutput(unknown.name, names);
}

function unknownOutput(name: string, names: readonly string[]): InvalidRequestError {
  return new InvalidRequestError([
    { key: "outputs", problem: `must be of ${names.join(", ")}, got ${JSON.stringify(name)}` },
  ]);
}

/** @throws the error of the first prediction that failed; with several of them it says which one that is */
function allOf(outcomes: readonly (Prediction | InfermillError)[]): Prediction[] {
  const failed = outcomes.findIndex(
    (outcome) => outcome instanceof InfermillError && !(outcome instanceof PredictionCancelledError),
  );
  const error = outcomes[failed] ?? outcomes.find((outcome) => outcome instanceof InfermillError);
  if (!(error instanceof InfermillError)) return outcomes as Prediction[];
  if (outcomes.length === 1 || failed < 0) throw error;
  const { code, title, detail } = error.toSummary();
  const placed = errorOfSummary({ code, title, detail: `element ${failed}: ${detail}` });
  throw placed.code === code ? placed : error;
}

/** A prediction's dictionary, and those of its outputs that the client wants. */
async function readWanted(
  { predictions }: Api,
  prediction: Prediction,
  isWanted: (name: string) => boolean,
): Promise<PredictionOutputs> {
  const outputs = prediction.outputs.filter(({ name }) => isWanted(name));
  return { result: prediction.result!, outputs: await predictions.readOutputs({ ...prediction, outputs }) };
}
