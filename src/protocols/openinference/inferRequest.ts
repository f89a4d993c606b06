/** An inference request as it came, over HTTP or gRPC: its form, and how it becomes the requests of predictions. */
import { z } from "zod";
import type { Api } from "../../api/api.ts";
import { checkRequestSize, readDictionary } from "../../api/requestDictionary.ts";
import type { NewInput, RequestParts, SubmissionOptions } from "../../api/service.ts";
import {
  inputsOfDescription,
  type InputDescription,
  type LoaderDescription,
} from "../../core/description.ts";
import { parseWith } from "../../core/faults.ts";
import { attachInputs, DEFAULT_INPUT, type RequestDictionary } from "../../core/request.ts";
import { BadInputError, InvalidRequestError, type Fault } from "../../errors.ts";
import { promptOfText } from "../../imil/prompt.ts";
import { isBlank, requestSchema } from "../../imil/requestSchema.ts";
import { MAX_INLINE_INPUT_BYTES, type StoredInput } from "../../queue/inputs.ts";
import type { Priority } from "../../core/prediction.ts";
import { DATATYPES, type Datatype } from "../../tensors/datatypes.ts";
import { RAW_TENSOR, readBytesElements } from "../../tensors/dialect.ts";
import { fromJson } from "../../tensors/json.ts";
import { joinBytes, toRawBytes } from "../../tensors/rawBytes.ts";
import { parseJson } from "../../core/json.ts";

/** Input of the models that take no bytes, beside those that do: a request dictionary as JSON text. */
export const REQUEST_INPUT = "request";

const parametersSchema = z
  .record(z.string(), z.union([z.string(), z.number(), z.boolean()]), {
    error: "must be an object of strings, numbers and booleans",
  })
  .default({});
const name = z.string({ error: "must be a string" }).min(1);

const inputSchema = z.object({
  name,
  datatype: z.enum(Object.keys(DATATYPES) as [Datatype, ...Datatype[]], {
    error: `must be one of ${Object.keys(DATATYPES).join(", ")}`,
  }),
  shape: z
    .array(z.int({ error: "must be a whole number" }).min(0), { error: "must be a list of whole numbers" })
    .meta({ description: "Whole dimensions, in row-major order." }),
  parameters: parametersSchema.meta({
    description:
      "binary_data_size: bytes of this tensor behind the JSON. content_type: base64 where data of BYTES is that.",
  }),
  data: z.unknown().optional().meta({ description: "Flat or nested; left out for binary data." }),
});

const requestedOutputSchema = z.object({
  name,
  parameters: parametersSchema.meta({
    description: "binary_data: as bytes behind the JSON. classification: the so many highest elements.",
  }),
});

export const inferRequestSchema = z
  .object({
    id: z
      .string({ error: "must be a string" })
      .optional()
      .meta({ description: "Comes back in the response." }),
    parameters: parametersSchema.meta({
      description:
        "priority (1 high, 2 normal, 3 low), timeout in microseconds, binary_data_output, raw; others are keys of the request dictionary.",
    }),
    inputs: z.array(inputSchema, { error: "must be a list of tensors" }).min(1),
    outputs: z
      .array(requestedOutputSchema, { error: "must be a list" })
      .default([])
      .meta({ description: "Default: all." }),
  })
  .meta({ id: "InferRequest" });

export type InferInput = z.output<typeof inputSchema> & { raw?: Buffer };
export type RequestedOutput = z.output<typeof requestedOutputSchema>;
export type Parameters = z.output<typeof parametersSchema>;
export type InferRequest = Omit<z.output<typeof inferRequestSchema>, "inputs"> & { inputs: InferInput[] };

/** @throws InvalidRequestError with all faults */
export function parseInferRequest(value: unknown): InferRequest {
  return parseWith(inferRequestSchema, value);
}

/** Keys of the request dictionary that may be parameters; what holds pictures comes as an input. */
const DICTIONARY_KEYS: ReadonlySet<string> = new Set(
  Object.keys(requestSchema.shape).filter((key) => key !== "Base_64" && key !== "image"),
);
/** Read by the protocol itself, or meant for another server. */
const OWN_PARAMETERS: ReadonlySet<string> = new Set([
  "priority",
  "timeout",
  "binary_data_output",
  "headers",
  "sequence_id",
  "sequence_start",
  "sequence_end",
]);
const PRIORITIES: readonly Priority[] = ["normal", "high", "normal", "low"];

/**
 * How its predictions are run: `priority` as Triton counts (0 default, 1 the highest), `timeout` in microseconds for
 * the whole, at most `limitMs`.
 * @throws InvalidRequestError
 */
export function runOptions(
  { priority, timeout, sequence_id: sequence }: Parameters,
  limitMs: number,
): SubmissionOptions & { limitMs: number } {
  const faults: Fault[] = [];
  const isCount = (value: unknown) => value === undefined || Number(value) === Math.trunc(Number(value));
  if (!isCount(priority) || Number(priority) < 0)
    faults.push({ key: "parameters.priority", problem: `must be a whole number ≥ 0, got ${priority}` });
  if (!isCount(timeout) || Number(timeout) < 0)
    faults.push({ key: "parameters.timeout", problem: `must be microseconds ≥ 0, got ${timeout}` });
  if (sequence !== undefined && sequence !== 0 && sequence !== "")
    faults.push({ key: "parameters.sequence_id", problem: "can't be used: no model here keeps a state" });
  if (faults.length > 0) throw new InvalidRequestError(faults);
  const timeoutMs = Number(timeout ?? 0) > 0 ? Math.max(1, Math.ceil(Number(timeout) / 1000)) : limitMs;
  const longest = Math.min(timeoutMs, limitMs);
  return { priority: PRIORITIES[Math.min(Number(priority ?? 0), 3)], ttlMs: longest, limitMs: longest };
}

/** Parameters as a dictionary: IMIL's keys by their names, the others together as `parameters`. */
function dictionaryOfParameters(parameters: Parameters): RequestDictionary {
  const dictionary: RequestDictionary = {};
  const others: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(parameters)) {
    if (OWN_PARAMETERS.has(key) || key.startsWith("triton_")) continue;
    if (key === "Prompt") dictionary[key] = promptOfText(value);
    else if (DICTIONARY_KEYS.has(key)) dictionary[key] = value;
    else others[key] = value;
  }
  return Object.keys(others).length > 0 ? { ...dictionary, parameters: others } : dictionary;
}

/**
 * The requests of the predictions that an inference request asks for: one of a model that takes tensors, else one for
 * each element of its BYTES inputs.
 * @throws InvalidRequestError, BadInputError
 */
export function partsOf(
  { config }: Api,
  model: string,
  request: InferRequest,
  description: LoaderDescription,
): RequestParts[] {
  refuseSharedMemory(request);
  if (description.takesTensors) return [tensorParts(request, config)];
  return elementParts(request, description, config, model);
}

function refuseSharedMemory({ inputs, outputs }: InferRequest): void {
  const shared = [...inputs, ...outputs].find(({ parameters }) => "shared_memory_region" in parameters);
  if (shared) throw new BadInputError(`shared memory can't be used ("${shared.name}"): send the bytes`);
}

/** The dictionary has the tensors without their data; their raw bytes are inputs of their names. */
function tensorParts({ inputs, outputs, parameters }: InferRequest, config: Api["config"]): RequestParts {
  const faults: Fault[] = [];
  let inlineBytes = 0;
  const stored = inputs.flatMap((input, index): (NewInput | StoredInput)[] => {
    try {
      const bytes = bytesOfInput(input);
      const label = { name: input.name, media_type: RAW_TENSOR };
      inlineBytes += bytes.length;
      if (inlineBytes > MAX_INLINE_INPUT_BYTES && bytes.length > 0) return [{ bytes, label }];
      return [{ ref: { data: bytes.toString("base64"), ...label }, bytes: bytes.length }];
    } catch (error) {
      faults.push({ key: `inputs[${index}] (${input.name})`, problem: (error as Error).message });
      return [];
    }
  });
  if (faults.length > 0) throw new InvalidRequestError(faults);
  const entries = inputs.map(({ name: tensor, datatype, shape }, index) => {
    const part = stored[index]!;
    const size = "ref" in part ? part.bytes : part.bytes.length;
    return { name: tensor, datatype, shape, parameters: { binary_data_size: size } };
  });
  const wanted = outputs.some(({ name: output }) => output === "response")
    ? []
    : outputs.map(({ name: output }) => ({ name: output }));
  const dictionary = {
    ...dictionaryOfParameters(parameters),
    inputs: entries,
    ...(wanted.length > 0 && { outputs: wanted }),
  };
  checkRequestSize(dictionary, config);
  return { request: dictionary, inputs: stored };
}

/** The raw bytes of an input, whatever form they came in. @throws Error that says what is wrong with it */
function bytesOfInput({ raw, ...entry }: InferInput): Buffer {
  if (raw) return raw;
  if (entry.data === undefined || entry.data === null)
    throw new Error("must have data, or binary data behind the JSON and binary_data_size");
  if (entry.datatype === "BYTES") return joinBytes(readBytesElements(entry, {}));
  try {
    const { buffer, byteOffset, byteLength } = toRawBytes(
      fromJson(entry.data, DATATYPES[entry.datatype], entry.shape),
    );
    return Buffer.from(buffer, byteOffset, byteLength);
  } catch (error) {
    throw new Error(`data ${(error as Error).message}`, { cause: error });
  }
}

/** One request for each element, with the bytes of its index of every input. */
function elementParts(
  { inputs, parameters }: InferRequest,
  description: LoaderDescription,
  config: Api["config"],
  model: string,
): RequestParts[] {
  const known = inputsOfDescription(description);
  const lists = readElements(inputs, known, model);
  const counts = new Set([...lists.values()].map(({ length }) => length));
  const [count = 0] = counts;
  if (counts.size > 1 || count === 0) {
    const got = [...lists].map(([input, elements]) => `${input} has ${elements.length}`).join(", ");
    throw new BadInputError(`every input must have as many elements as the others, at least one: ${got}`);
  }
  if (count > config.max_predictions_per_call) {
    throw new BadInputError(
      `at most ${config.max_predictions_per_call} elements may come (max_predictions_per_call), got ${count}`,
    );
  }
  const hasBytes = known.some((input) => lists.has(input.name));
  const given = dictionaryOfParameters(parameters);
  return Array.from({ length: count }, (_, index) => {
    const text = lists.get(REQUEST_INPUT)?.[index];
    const place = `${REQUEST_INPUT}[${index}]`;
    const own = text ? parseDictionary(text, place) : {};
    if (!hasBytes) refuseMissing(known, own, model);
    const needs = hasBytes ? { ...description, picture: "optional" as const } : description;
    const parts = readDictionary({ ...given, ...own }, config, model, needs);
    const bytes = known.flatMap((input): NewInput[] => {
      const element = lists.get(input.name)?.[index];
      return element ? [{ bytes: element, label: labelOf(input) }] : [];
    });
    return { request: parts.request, inputs: [...bytes, ...parts.inputs] };
  });
}

/** The elements of every input. @throws InvalidRequestError with all faults */
function readElements(
  inputs: readonly InferInput[],
  known: readonly InputDescription[],
  model: string,
): Map<string, Buffer[]> {
  const lists = new Map<string, Buffer[]>();
  const faults: Fault[] = [];
  for (const [index, { raw, ...input }] of inputs.entries()) {
    const fail = (problem: string) => faults.push({ key: `inputs[${index}] (${input.name})`, problem });
    const description = known.find((candidate) => candidate.name === input.name);
    const names = [...known.map((candidate) => candidate.name), REQUEST_INPUT];
    if (!names.includes(input.name)) fail(`is no input of "${model}", which has ${names.join(", ")}`);
    else if (lists.has(input.name)) fail("comes twice");
    else if (input.datatype !== "BYTES") fail(`must be BYTES, got ${input.datatype}`);
    else if (description && !raw && !isText(description) && input.parameters["content_type"] !== "base64")
      fail('must be binary data, or base64 in data with parameters {"content_type": "base64"}');
    else {
      try {
        const carrier = raw
          ? attachInputs({}, [{ name: input.name, mediaType: RAW_TENSOR, bytes: raw }])
          : {};
        lists.set(input.name, readBytesElements(input, carrier));
      } catch (error) {
        fail((error as Error).message);
      }
    }
  }
  if (faults.length > 0) throw new InvalidRequestError(faults);
  return lists;
}

function isText({ mediaTypes }: InputDescription): boolean {
  return mediaTypes.some((type) => type.startsWith("text/"));
}

/** The media type is known where the input can have one only. */
function labelOf({ name: input, mediaTypes: [type, ...others] }: InputDescription) {
  const isKnown = type !== undefined && others.length === 0 && !type.includes("*");
  return { ...(input !== DEFAULT_INPUT && { name: input }), ...(isKnown && { media_type: type }) };
}

/** @throws MalformedBodyError, BadInputError */
function parseDictionary(text: Buffer, place: string): RequestDictionary {
  let value: unknown;
  try {
    value = parseJson(text.toString());
  } catch (error) {
    throw new BadInputError(`${place} must be a request dictionary as JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as RequestDictionary;
  throw new BadInputError(`${place} must be a JSON object`);
}

/** @throws InvalidRequestError where a request has none of the bytes that its model needs */
function refuseMissing(
  known: readonly InputDescription[],
  dictionary: RequestDictionary,
  model: string,
): void {
  if (!isBlank(dictionary["Base_64"]) || !isBlank(dictionary["image"])) return;
  const missing = known.filter(({ required }) => required).map((input) => input.name);
  if (missing.length === 0) return;
  throw new InvalidRequestError([
    { key: "inputs", problem: `must have ${missing.join(", ")} as BYTES: the model "${model}" needs it` },
  ]);
}
