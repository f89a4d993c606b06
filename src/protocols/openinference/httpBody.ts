/**
 * Inference requests and responses as bodies over HTTP: JSON, and with the binary tensor extension the bytes of
 * tensors behind it, in the order of their entries. `Inference-Header-Content-Length` is the length of the JSON.
 */
import { promisify } from "node:util";
import { gunzip, inflate, type ZlibOptions } from "node:zlib";
import type { Request, Response } from "express";
import { checkTransfer, parseJson, readWholeBody, textOf } from "../../api/body/read.ts";
import { BodyTooLargeError, MalformedBodyError } from "../../api/problems.ts";
import { inputsOfDescription, type LoaderDescription } from "../../core/description.ts";
import { BadInputError } from "../../errors.ts";
import { joinBytes } from "../../tensors/rawBytes.ts";
import { isElementType, TENSOR_ARRAYS } from "../../tensors/tensor.ts";
import { datatypeOf } from "../../tensors/datatypes.ts";
import { jsonOf, rawOf, type AnswerTensor } from "./answerTensors.ts";
import { VERSION } from "./infer.ts";
import { parseInferRequest, type InferRequest } from "./inferRequest.ts";
import { formatJson } from "../../core/json.ts";

const DECODERS = new Map([
  ["gzip", promisify<Buffer, ZlibOptions, Buffer>(gunzip)],
  ["deflate", promisify<Buffer, ZlibOptions, Buffer>(inflate)],
]);
const HEADER = "Inference-Header-Content-Length";

/** @throws UnsupportedMediaTypeError, BodyTooLargeError, MalformedBodyError, InvalidRequestError */
export async function readInferBody(
  req: Request,
  maxBytes: number,
  describe: () => Promise<LoaderDescription>,
): Promise<InferRequest> {
  const body = await readBody(req, maxBytes);
  const header = req.get(HEADER);
  const length = header === undefined ? body.length : Number(header);
  if (!Number.isInteger(length) || length < 0 || length > body.length)
    throw new BadInputError(`${HEADER} must be from 0 to the body's ${body.length} bytes, got ${header}`);
  if (header !== undefined && length === 0) return wholeBody(body, await describe());
  const request = parseInferRequest(parseJson(textOf(body.subarray(0, length)), "the body"));
  takeBinaryData(request, body.subarray(length));
  return request;
}

/** The body, which Triton's clients may compress. */
async function readBody(req: Request, maxBytes: number): Promise<Buffer> {
  const decode = DECODERS.get(req.headers["content-encoding"] ?? "");
  if (!decode) checkTransfer(req, maxBytes);
  const bytes = await readWholeBody(req, maxBytes);
  if (!decode) return bytes;
  try {
    return await decode(bytes, { maxOutputLength: maxBytes });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE")
      throw new BodyTooLargeError(maxBytes);
    throw new MalformedBodyError(
      `the body is not what its Content-Encoding says: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
}

/** Gives every input with `binary_data_size` its bytes. */
function takeBinaryData({ inputs }: InferRequest, bytes: Buffer): void {
  let at = 0;
  for (const input of inputs) {
    const { binary_data_size: size, ...parameters } = input.parameters;
    if (size === undefined) continue;
    const end = at + Number(size);
    if (!Number.isInteger(size) || Number(size) < 0 || end > bytes.length) {
      throw new BadInputError(
        `the input "${input.name}" has binary_data_size ${size}, but ${bytes.length - at} bytes are left behind the JSON (${HEADER})`,
      );
    }
    if (input.data !== undefined)
      throw new BadInputError(`the input "${input.name}" has both data and binary_data_size`);
    input.raw = bytes.subarray(at, end);
    input.parameters = parameters;
    at = end;
  }
  if (at < bytes.length)
    throw new BadInputError(
      `${bytes.length - at} bytes behind the JSON belong to no input (binary_data_size)`,
    );
}

/** A raw binary request: the body is the one input of the model, and the answer is binary. */
function wholeBody(body: Buffer, description: LoaderDescription): InferRequest {
  const input = description.takesTensors ? wholeTensor(body, description) : wholeElement(body, description);
  return { parameters: { binary_data_output: true }, inputs: [{ parameters: {}, ...input }], outputs: [] };
}

function wholeElement(body: Buffer, description: LoaderDescription) {
  const inputs = inputsOfDescription(description);
  const needed = inputs.filter(({ required }) => required);
  const [input] = needed.length > 0 ? needed : inputs;
  if (!input || needed.length > 1)
    throw new BadInputError(`a body without JSON needs a model with one input (${HEADER}: 0)`);
  return { name: input.name, datatype: "BYTES" as const, shape: [1], raw: joinBytes([body]) };
}

function wholeTensor(body: Buffer, { tensors }: LoaderDescription) {
  const [input, second] = tensors?.inputs ?? [];
  const type = input?.type ?? "";
  if (!input || second || !isElementType(type))
    throw new BadInputError(`a body without JSON needs a model with one input (${HEADER}: 0)`);
  if (type === "string")
    return { name: input.name, datatype: "BYTES" as const, shape: [1], raw: joinBytes([body]) };
  const fixed = input.shape.filter((dim): dim is number => typeof dim === "number" && dim >= 0);
  const size = fixed.reduce((product, dim) => product * dim, TENSOR_ARRAYS[type].BYTES_PER_ELEMENT);
  if (input.shape.length - fixed.length > 1 || size === 0) {
    throw new BadInputError(
      `the shape of "${input.name}" [${input.shape.join(", ")}] doesn't follow from the size of the body: send its JSON, too`,
    );
  }
  const free = body.length / size;
  const shape = input.shape.map((dim) => (typeof dim === "number" && dim >= 0 ? dim : free));
  if (!Number.isInteger(free) || (free !== 1 && fixed.length === shape.length))
    throw new BadInputError(
      `the body must have ${fixed.length === shape.length ? "" : "a multiple of "}${size} bytes, got ${body.length}`,
    );
  return { name: input.name, datatype: datatypeOf(type), shape, raw: body };
}

/** Sends an answer: JSON, and behind it the bytes of the outputs that are wanted as binary data. */
export function sendAnswer(
  res: Response,
  model: string,
  { id, parameters, outputs: requested }: InferRequest,
  tensors: readonly AnswerTensor[],
): void {
  const parts: Buffer[] = [];
  const outputs = tensors.map((tensor, index) => {
    const { name, datatype, shape } = tensor;
    const asked = requested[index]?.parameters["binary_data"] ?? parameters["binary_data_output"];
    const head = { name, datatype, shape };
    if (asked === true) {
      const raw = rawOf(tensor);
      parts.push(raw);
      return { ...head, parameters: { ...tensor.parameters, binary_data_size: raw.length } };
    }
    const { data, parameters: encoding } = jsonOf(tensor);
    const own = { ...tensor.parameters, ...encoding };
    return { ...head, ...(Object.keys(own).length > 0 && { parameters: own }), data };
  });
  const answer = { model_name: model, model_version: VERSION, ...(id !== undefined && { id }), outputs };
  // Not by res.json: what a loader calls url in its parameters is none of the api's links.
  const json = formatJson(answer);
  const isBinary = outputs.some((output) => !("data" in output));
  if (!isBinary) {
    res.type("json").send(json);
    return;
  }
  const head = Buffer.from(json);
  res.set({ "Content-Type": "application/octet-stream", [HEADER]: String(head.length) });
  res.send(Buffer.concat([head, ...parts]));
}
