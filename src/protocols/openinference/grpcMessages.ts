/** Inference requests and responses as messages over gRPC (`proto/inference.proto`). */
import { BadInputError } from "../../errors.ts";
import { joinBytes } from "../../tensors/rawBytes.ts";
import { rawOf, type AnswerTensor } from "./answerTensors.ts";
import { VERSION } from "./infer.ts";
import { parseInferRequest, type InferRequest } from "./inferRequest.ts";

/** One of its fields, by the name of the one that is set. 64-bit numbers are texts. */
interface Parameter {
  parameter_choice?: "bool_param" | "int64_param" | "string_param" | "double_param" | "uint64_param";
  bool_param?: boolean;
  int64_param?: string;
  string_param?: string;
  double_param?: number;
  uint64_param?: string;
}

type Parameters = Record<string, Parameter>;

interface Contents {
  bool_contents: boolean[];
  int_contents: number[];
  int64_contents: string[];
  uint_contents: number[];
  uint64_contents: string[];
  fp32_contents: number[];
  fp64_contents: number[];
  bytes_contents: Buffer[];
}

export interface InferRequestMessage {
  model_name: string;
  model_version: string;
  id: string;
  parameters: Parameters;
  inputs: {
    name: string;
    datatype: string;
    shape: string[];
    parameters: Parameters;
    contents: Contents | null;
  }[];
  outputs: { name: string; parameters: Parameters }[];
  raw_input_contents: Buffer[];
}

export interface InferResponseMessage {
  model_name: string;
  model_version: string;
  id: string;
  outputs: { name: string; datatype: string; shape: readonly number[]; parameters: Parameters }[];
  raw_output_contents: Buffer[];
}

const CONTENTS: Readonly<Record<string, keyof Contents>> = {
  BOOL: "bool_contents",
  INT8: "int_contents",
  INT16: "int_contents",
  INT32: "int_contents",
  INT64: "int64_contents",
  UINT8: "uint_contents",
  UINT16: "uint_contents",
  UINT32: "uint_contents",
  UINT64: "uint64_contents",
  FP32: "fp32_contents",
  FP64: "fp64_contents",
  BYTES: "bytes_contents",
};

/** @throws InvalidRequestError, BadInputError */
export function readMessage(message: InferRequestMessage): InferRequest {
  const { id, inputs, outputs, raw_input_contents: raw } = message;
  if (raw.length > 0 && raw.length !== inputs.length) {
    throw new BadInputError(
      `raw_input_contents must have the bytes of each of the ${inputs.length} inputs, got ${raw.length}`,
    );
  }
  const request: InferRequest = parseInferRequest({
    ...(id !== "" && { id }),
    parameters: valuesOf(message.parameters),
    inputs: inputs.map(({ name, datatype, shape, parameters, contents }) => ({
      name,
      datatype,
      shape: shape.map(Number),
      parameters: valuesOf(parameters),
      ...(raw.length === 0 &&
        datatype !== "BYTES" && { data: contents?.[CONTENTS[datatype] ?? "int_contents"] }),
    })),
    outputs: outputs.map(({ name, parameters }) => ({ name, parameters: valuesOf(parameters) })),
  });
  for (const [index, input] of request.inputs.entries()) {
    if (raw.length > 0) input.raw = raw[index]!;
    else if (input.datatype === "BYTES") input.raw = joinBytes(inputs[index]!.contents?.bytes_contents ?? []);
    else if (input.datatype === "FP16")
      throw new BadInputError(`the input "${input.name}" is FP16, which comes in raw_input_contents only`);
  }
  return request;
}

function valuesOf(parameters: Parameters): Record<string, string | number | boolean> {
  return Object.fromEntries(
    Object.entries(parameters).flatMap(([key, parameter]) => {
      const choice = parameter.parameter_choice;
      if (!choice) return [];
      const value = parameter[choice]!;
      return [[key, choice === "int64_param" || choice === "uint64_param" ? Number(value) : value]];
    }),
  );
}

export function writeMessage(
  model: string,
  { id = "" }: InferRequest,
  tensors: readonly AnswerTensor[],
): InferResponseMessage {
  return {
    model_name: model,
    model_version: VERSION,
    id,
    outputs: tensors.map(({ name, datatype, shape, parameters = {} }) => ({
      name,
      datatype,
      shape,
      parameters: Object.fromEntries(
        Object.entries(parameters).map(([key, value]) => [key, { string_param: String(value) }]),
      ),
    })),
    raw_output_contents: tensors.map(rawOf),
  };
}
