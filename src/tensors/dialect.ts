/**
 * The tensor dialect of requests and responses, as the Open Inference Protocol writes it: `inputs` and `outputs` with
 * name, datatype, shape and data. Large tensors are no JSON: their raw bytes travel beside the dictionary as inputs and
 * outputs of the tensor's name.
 */
import {
  attachOutputs,
  inputsOf,
  outputsOf,
  type Output,
  type RequestDictionary,
  type ResponseDictionary,
} from "../core/request.ts";
import { InvalidRequestError, LoaderError } from "../errors.ts";
import { DATATYPES, datatypeOf, isDatatype, type Datatype } from "./datatypes.ts";
import { fromBase64, fromJson, isFinite, toJson } from "./json.ts";
import { byteSizeOf, fromRawBytes, splitBytes, toRawBytes } from "./rawBytes.ts";
import { countElements, type TensorValue, type Tensors } from "./tensor.ts";

/** A tensor in a dictionary. Without `data`, the input or output of its name holds its raw bytes. */
export interface TensorEntry {
  name: string;
  datatype: Datatype;
  shape: number[];
  data?: unknown;
  parameters?: Record<string, unknown>;
}

/** Media type of raw tensor bytes. */
export const RAW_TENSOR = "application/octet-stream";
/** A tensor of more raw bytes is attached to its response instead of written into it. */
const MAX_INLINE_BYTES = 4096;
const MAX_RANK = 64;

/**
 * The tensors of a request's `inputs`.
 * @throws InvalidRequestError that names every entry which can't be read, and why
 */
export function readTensors(request: RequestDictionary): Tensors {
  const entries = request["inputs"];
  if (!Array.isArray(entries)) {
    const got = entries === undefined ? "" : `, got ${typeof entries}`;
    throw new InvalidRequestError([
      { key: "inputs", problem: `must be a list of tensors {name, datatype, shape, data}${got}` },
    ]);
  }
  const tensors: Record<string, TensorValue> = {};
  const faults = entries.flatMap((entry: unknown, index) => {
    const key = `inputs[${index}]`;
    try {
      const head = readHead(entry);
      if (Object.hasOwn(tensors, head.name)) throw new Error(`repeats the name "${head.name}"`);
      tensors[head.name] = readTensor(head, request);
      return [];
    } catch (error) {
      return [
        {
          key: nameOf(entry) === undefined ? key : `${key} (${nameOf(entry)})`,
          problem: (error as Error).message,
        },
      ];
    }
  });
  if (faults.length > 0) throw new InvalidRequestError(faults);
  return tensors;
}

/**
 * The elements of a BYTES entry as bytes, whatever they hold: pictures, texts, sounds.
 * @throws Error that says what is wrong with the entry
 */
export function readBytesElements(entry: TensorEntry, request: RequestDictionary): Buffer[] {
  const { name, shape, data, parameters } = readHead(entry);
  if (data === undefined) return splitBytes(rawBytesOf(name, parameters, request), countElements(shape));
  const isBase64 = parameters?.["content_type"] === "base64";
  const texts = fromJson(data, "string", shape).data as readonly string[];
  return texts.map((text, index) => (isBase64 ? fromBase64(text, index) : Buffer.from(text)));
}

/** A response with these tensors as its `outputs`: small ones as JSON, large or non-finite ones as attached bytes. */
export function writeTensors(tensors: Tensors, response: ResponseDictionary = {}): ResponseDictionary {
  const attached: Output[] = [...outputsOf(response)];
  const outputs = Object.entries(tensors).map(([name, tensor]): TensorEntry => {
    const head = { name, datatype: datatypeOf(tensor.type), shape: [...tensor.dims] };
    const size = byteSizeOf(tensor);
    if (size <= MAX_INLINE_BYTES && isFinite(tensor)) return { ...head, data: toJson(tensor) };
    attached.push({ name, mediaType: RAW_TENSOR, bytes: toRawBytes(tensor) });
    return { ...head, parameters: { binary_data_size: size } };
  });
  return attachOutputs({ ...response, outputs }, attached);
}

/**
 * The response with all of its tensors as JSON; outputs that are no tensors stay attached.
 * @throws LoaderError where a tensor holds NaN or an infinity
 */
export function inlineTensors<T extends ResponseDictionary>(response: T): T {
  const entries = response["outputs"];
  if (!Array.isArray(entries)) return response;
  const attached = new Map(outputsOf(response).map((output) => [output.name, output]));
  const outputs = (entries as TensorEntry[]).map((entry) => {
    const output = attached.get(entry.name);
    if (entry.data !== undefined || !output) return entry;
    const { binary_data_size: _size, ...parameters } = entry.parameters ?? {};
    const { parameters: _given, ...head } = entry;
    attached.delete(entry.name);
    const tensor = fromRawBytes(output.bytes, DATATYPES[entry.datatype], entry.shape);
    return {
      ...head,
      ...(Object.keys(parameters).length > 0 && { parameters }),
      data: dataOf(entry.name, tensor),
    };
  });
  return attachOutputs({ ...response, outputs }, [...attached.values()]);
}

function dataOf(name: string, tensor: TensorValue): unknown[] {
  try {
    return toJson(tensor);
  } catch (error) {
    throw new LoaderError(`the output "${name}" ${(error as Error).message}`, { cause: error });
  }
}

/** The tensor of one entry. @throws Error that says what is wrong with it */
function readTensor(
  { name, datatype, shape, data, parameters }: TensorEntry,
  request: RequestDictionary,
): TensorValue {
  const type = DATATYPES[datatype];
  if (data === undefined) {
    const bytes = rawBytesOf(name, parameters, request);
    return within("raw bytes", () => fromRawBytes(bytes, type, shape));
  }
  const isBase64 = parameters?.["content_type"] === "base64";
  return within("data", () => fromJson(data, type, shape, { isBase64 }));
}

function rawBytesOf(name: string, parameters: TensorEntry["parameters"], request: RequestDictionary): Buffer {
  const declared = parameters?.["binary_data_size"];
  const input = inputsOf(request).find((candidate) => candidate.name === name);
  if (!input) {
    throw new Error(
      declared === undefined
        ? "must have data, or raw bytes in an input of its name"
        : `has binary_data_size, but there is no input "${name}" with its raw bytes`,
    );
  }
  if (declared !== undefined && declared !== input.bytes.byteLength) {
    throw new Error(
      `has binary_data_size ${JSON.stringify(declared)}, but ${input.bytes.byteLength} raw bytes came`,
    );
  }
  return input.bytes;
}

/** @throws Error where name, datatype or shape can't be used */
function readHead(entry: unknown): TensorEntry {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry))
    throw new Error("must be an object {name, datatype, shape, data}");
  const { name, datatype, shape, data, parameters } = entry as Record<string, unknown>;
  if (typeof name !== "string" || name === "") throw new Error("must have a name");
  if (!isDatatype(datatype)) {
    const got = datatype === undefined ? "none" : JSON.stringify(datatype);
    throw new Error(`must have one of the datatypes ${Object.keys(DATATYPES).join(", ")}, got ${got}`);
  }
  const isShape =
    Array.isArray(shape) &&
    shape.length <= MAX_RANK &&
    shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0);
  if (!isShape || !Number.isSafeInteger(countElements(shape as number[])))
    throw new Error(
      `must have a shape, a list of whole numbers from 0, got ${JSON.stringify(shape) ?? "none"}`,
    );
  if (parameters !== undefined && (typeof parameters !== "object" || parameters === null))
    throw new Error("must have an object as parameters");
  return {
    name,
    datatype,
    shape: shape as number[],
    ...(data !== undefined && data !== null && { data }),
    ...(parameters !== undefined && { parameters: parameters as Record<string, unknown> }),
  };
}

function within<T>(part: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new Error(`${part} ${(error as Error).message}`, { cause: error });
  }
}

function nameOf(entry: unknown): string | undefined {
  const name = (entry as { name?: unknown } | null)?.name;
  return typeof name === "string" ? name.slice(0, 80) : undefined;
}
