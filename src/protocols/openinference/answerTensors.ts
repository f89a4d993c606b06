/** The tensors of an answer: what predictions put out, joined, and in the form that a client asks for. */
import type { Output, ResponseDictionary } from "../../core/request.ts";
import { BadInputError } from "../../errors.ts";
import { findingsOf } from "../../imil/response.ts";
import { DATATYPES, isDatatype, type Datatype } from "../../tensors/datatypes.ts";
import { fromJson, toJson } from "../../tensors/json.ts";
import { fromRawBytes, joinBytes, splitBytes, textsOf, toRawBytes } from "../../tensors/rawBytes.ts";
import { countElements, type NumberTensor } from "../../tensors/tensor.ts";

/** A tensor of an answer: `data` as JSON has it, or its raw bytes. */
export interface AnswerTensor {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  parameters?: Readonly<Record<string, unknown>>;
  data?: unknown;
  raw?: Buffer;
}

/** What one prediction put out: its dictionary, and the bytes beside it that the client wants. */
export interface PredictionOutputs {
  result: ResponseDictionary;
  outputs: readonly Output[];
}

/** Largest tensor that is sorted for the classification extension, in elements. */
const MAX_CLASSIFIED = 1_000_000;

/** A list of byte strings as a tensor. */
export function bytesTensor(name: string, elements: readonly Uint8Array[]): AnswerTensor {
  return { name, datatype: "BYTES", shape: [elements.length], raw: joinBytes(elements) };
}

/**
 * All that predictions put out, in a fixed order: their tensors, then for models that don't answer in tensors the
 * findings of each, or else its response, as JSON text, then other bytes such as masks. What several predictions have
 * is joined along the first axis.
 * @param isJson whether the model's answers are dictionaries rather than tensors
 * @param isWanted by name
 * @throws BadInputError where tensors of several predictions can't be joined
 */
export function answerTensors(
  predictions: readonly PredictionOutputs[],
  isJson: boolean,
  isWanted: (name: string) => boolean,
): AnswerTensor[] {
  const lists = predictions.map(({ result, outputs }) =>
    tensorsOf(result, outputs).filter(({ name }) => isWanted(name)),
  );
  const answer = (lists[0] ?? []).map(({ name }) => join(name, lists));
  if (isJson || answer.length === 0) answer.push(dictionaryTensor(predictions.map(({ result }) => result)));
  const taken = new Set(answer.map(({ name }) => name));
  const others = new Set(predictions.flatMap(({ outputs }) => outputs.map(({ name }) => name)));
  for (const name of others) {
    if (taken.has(name)) continue;
    const parts = predictions.map(({ outputs }) => outputs.find((output) => output.name === name));
    const tensor = bytesTensor(
      name,
      parts.map((part) => part?.bytes ?? Buffer.alloc(0)),
    );
    answer.push({ ...tensor, parameters: { media_type: parts.find(Boolean)!.mediaType } });
  }
  return answer;
}

/** The findings of each prediction where its model finds things, else its response: a JSON text each. */
function dictionaryTensor(results: readonly ResponseDictionary[]): AnswerTensor {
  const finds = results.every((result) => Array.isArray(result["Fs"]));
  return finds ? jsonTensor("findings", results.map(findingsOf)) : jsonTensor("response", results);
}

export function jsonTensor(name: string, values: readonly unknown[]): AnswerTensor {
  return bytesTensor(
    name,
    values.map((value) => Buffer.from(JSON.stringify(value))),
  );
}

/** The entries of a response's `outputs`, each with its data or its raw bytes. */
function tensorsOf(result: ResponseDictionary, outputs: readonly Output[]): AnswerTensor[] {
  const entries = Array.isArray(result["outputs"]) ? (result["outputs"] as AnswerTensor[]) : [];
  return entries
    .filter((entry) => isDatatype(entry?.datatype) && Array.isArray(entry.shape))
    .map(({ name, datatype, shape, data, parameters }) => {
      const { binary_data_size: _size, content_type: encoding, ...own } = parameters ?? {};
      const head = { name, datatype, shape, ...(Object.keys(own).length > 0 && { parameters: own }) };
      if (data === undefined) {
        const output = outputs.find((candidate) => candidate.name === name);
        return output ? { ...head, raw: bufferOf(output.bytes) } : head;
      }
      if (encoding !== "base64") return { ...head, data };
      const elements = (data as string[]).map((text) => Buffer.from(text, "base64"));
      return { ...head, raw: joinBytes(elements) };
    });
}

/** The tensor of a name of all predictions as one. */
function join(name: string, lists: readonly AnswerTensor[][]): AnswerTensor {
  const parts = lists.map((list) => list.find((tensor) => tensor.name === name));
  const [first] = parts as [AnswerTensor];
  if (parts.length === 1) return first;
  const [, ...rest] = first.shape;
  for (const part of parts) {
    const fits =
      part &&
      part.datatype === first.datatype &&
      part.shape.length > 0 &&
      part.shape.length === first.shape.length &&
      rest.every((dim, axis) => part.shape[axis + 1] === dim);
    if (fits) continue;
    const got = part ? `[${part.shape.join(", ")}]` : "none";
    throw new BadInputError(
      `the output "${name}" can't be joined: its shapes are [${first.shape.join(", ")}] and ${got}; send one element a request, or leave it out of the requested outputs`,
    );
  }
  const rows = (parts as AnswerTensor[]).reduce((sum, { shape }) => sum + shape[0]!, 0);
  return {
    ...first,
    shape: [rows, ...rest],
    data: undefined,
    raw: Buffer.concat(parts.map((part) => rawOf(part!))),
  };
}

/** The raw bytes of a tensor. */
export function rawOf({ name, datatype, shape, data, raw }: AnswerTensor): Buffer {
  if (raw) return raw;
  if (data === undefined) throw new BadInputError(`the output "${name}" is no longer there`);
  return bufferOf(toRawBytes(fromJson(data, DATATYPES[datatype], shape)));
}

/**
 * The data of a tensor for JSON. Bytes that are no text become base64, and `content_type` says so.
 * @throws BadInputError where it holds NaN or an infinity
 */
export function jsonOf(tensor: AnswerTensor): { data: unknown; parameters?: Record<string, unknown> } {
  const { name, datatype, shape, data, raw } = tensor;
  if (data !== undefined) return { data };
  if (!raw) throw new BadInputError(`the output "${name}" is no longer there`);
  if (datatype === "BYTES") {
    const elements = splitBytes(raw, countElements(shape));
    try {
      return { data: textsOf(elements) };
    } catch {
      return {
        data: elements.map((element) => element.toString("base64")),
        parameters: { content_type: "base64" },
      };
    }
  }
  try {
    return { data: toJson(fromRawBytes(raw, DATATYPES[datatype], shape)) };
  } catch (error) {
    throw new BadInputError(
      `the output "${name}" ${(error as Error).message} (binary_data, binary_data_output)`,
      { cause: error },
    );
  }
}

/**
 * The `count` highest elements of each row as `value:index` or `value:index:label` (classification extension). A row is
 * all that lies behind the first axis; a tensor of one axis is one row.
 * @throws BadInputError where the tensor has no numbers to compare
 */
export function classify(tensor: AnswerTensor, count: number, labels: readonly string[]): AnswerTensor {
  const { name, datatype, shape } = tensor;
  const isComparable = datatype !== "BYTES" && datatype !== "BOOL" && datatype !== "FP16";
  const elements = countElements(shape);
  if (!isComparable || elements > MAX_CLASSIFIED) {
    const why = isComparable ? `its ${elements} elements` : `its datatype ${datatype}`;
    throw new BadInputError(`the output "${name}" can't be classified because of ${why}`);
  }
  const { data } = fromRawBytes(rawOf(tensor), DATATYPES[datatype], shape) as NumberTensor;
  const values = data as Float32Array;
  const rows = shape.length > 1 ? shape[0]! : 1;
  const size = rows > 0 ? elements / rows : 0;
  const top = Math.min(count, size);
  const isWhole = datatype !== "FP32" && datatype !== "FP64";
  const texts: Buffer[] = [];
  for (let row = 0; row < rows; row++) {
    const part = values.subarray(row * size, (row + 1) * size);
    const order = Array.from({ length: size }, (_, index) => index).sort((a, b) =>
      part[b]! > part[a]! ? 1 : part[b]! < part[a]! ? -1 : a - b,
    );
    for (const index of order.slice(0, top)) {
      const value = isWhole ? String(part[index]) : part[index]!.toFixed(6);
      const label = labels.length === size ? `:${labels[index]}` : "";
      texts.push(Buffer.from(`${value}:${index}${label}`));
    }
  }
  return { ...bytesTensor(name, texts), shape: shape.length > 1 ? [rows, top] : [top] };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
