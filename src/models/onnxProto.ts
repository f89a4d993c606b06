/**
 * Writes and reads ONNX files: the part of onnx.proto that plain graphs need,
 * and short builders for nodes, tensors and graph inputs.
 */
import protobuf from "protobufjs";

// Field numbers are those of onnx.proto; unknown fields of a file that is read are skipped.
const SCHEMA = `
syntax = "proto2";
package onnx;
message AttributeProto {
  optional string name = 1;
  optional float f = 2;
  optional int64 i = 3;
  optional bytes s = 4;
  optional TensorProto t = 5;
  repeated float floats = 7;
  repeated int64 ints = 8;
  repeated bytes strings = 9;
  optional int32 type = 20;
}
message NodeProto {
  repeated string input = 1;
  repeated string output = 2;
  optional string name = 3;
  optional string op_type = 4;
  repeated AttributeProto attribute = 5;
  optional string domain = 7;
}
message TensorProto {
  repeated int64 dims = 1;
  optional int32 data_type = 2;
  optional string name = 8;
  optional bytes raw_data = 9;
}
message Dimension {
  oneof value { int64 dim_value = 1; string dim_param = 2; }
}
message TensorShapeProto { repeated Dimension dim = 1; }
message TensorTypeProto {
  optional int32 elem_type = 1;
  optional TensorShapeProto shape = 2;
}
message SequenceTypeProto { optional TypeProto elem_type = 1; }
message MapTypeProto {
  optional int32 key_type = 1;
  optional TypeProto value_type = 2;
}
message TypeProto {
  optional TensorTypeProto tensor_type = 1;
  optional SequenceTypeProto sequence_type = 4;
  optional MapTypeProto map_type = 5;
}
message ValueInfoProto {
  optional string name = 1;
  optional TypeProto type = 2;
}
message GraphProto {
  repeated NodeProto node = 1;
  optional string name = 2;
  repeated TensorProto initializer = 5;
  repeated ValueInfoProto input = 11;
  repeated ValueInfoProto output = 12;
}
message OperatorSetIdProto {
  optional string domain = 1;
  optional int64 version = 2;
}
message ModelProto {
  optional int64 ir_version = 1;
  optional string producer_name = 2;
  optional string producer_version = 3;
  optional GraphProto graph = 7;
  repeated OperatorSetIdProto opset_import = 8;
}
`;

const { root } = protobuf.parse(SCHEMA);
const modelType = root.lookupType("onnx.ModelProto");

/** How a NodeProto, a ValueInfoProto or an OperatorSetIdProto is written and read alone, for changes of a file's parts. */
export const NODE_PROTO = root.lookupType("onnx.NodeProto");
export const VALUE_INFO_PROTO = root.lookupType("onnx.ValueInfoProto");
export const OPSET_PROTO = root.lookupType("onnx.OperatorSetIdProto");

/** Element types, as TensorProto.DataType numbers them. */
export const DATA_TYPE = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
} as const;
export type DataType = keyof typeof DATA_TYPE;

/** Numbers of a tensor. A Uint8Array is `uint8` unless `bool` is said. */
export type TensorData = Float32Array | Uint8Array | Int32Array | BigInt64Array;

/** A TensorProto: dimensions in row-major order, numbers as little-endian bytes. */
export interface OnnxTensor {
  name: string;
  dims: number[];
  dataType: number;
  rawData: Uint8Array;
}

/** An AttributeProto; `type` says which field holds the value. */
export interface OnnxAttribute {
  name: string;
  type: number;
  f?: number;
  i?: number;
  s?: Uint8Array;
  floats?: number[];
  ints?: number[];
  strings?: Uint8Array[];
}

/** A NodeProto: one operator of the graph. An input of "" is one that is left out. */
export interface OnnxNode {
  opType: string;
  /** "" is ONNX's own. */
  domain?: string;
  name: string;
  input: string[];
  output: string[];
  attribute: OnnxAttribute[];
}

/** A ValueInfoProto: name, element type and shape of a graph's input or output. */
export interface OnnxValueInfo {
  name: string;
  type: {
    tensorType: { elemType: number; shape?: { dim: { dimValue?: number; dimParam?: string }[] } };
  };
}

/** A graph with the opset that its operators are taken from. */
export interface OnnxModel {
  opset: number;
  /** Version of the operators of domain ai.onnx.ml, where it has such. */
  mlOpset?: number;
  name: string;
  inputs: OnnxValueInfo[];
  outputs: OnnxValueInfo[];
  nodes: OnnxNode[];
  /** Constant tensors, found by name. */
  initializers: OnnxTensor[];
}

/** A bare number or list of numbers is an int attribute; `{ float }` and `{ floats }` are floats. */
export type AttributeValue = number | number[] | string | string[] | { float: number } | { floats: number[] };

function attribute(name: string, value: AttributeValue): OnnxAttribute {
  if (typeof value === "string") return { name, type: 3, s: new TextEncoder().encode(value) };
  if (Array.isArray(value) && typeof value[0] === "string")
    return { name, type: 8, strings: (value as string[]).map((text) => new TextEncoder().encode(text)) };
  if (typeof value === "object" && "float" in value) return { name, type: 1, f: value.float };
  if (typeof value === "object" && "floats" in value) {
    return { name, type: 6, floats: value.floats };
  }
  if (![value].flat().every(Number.isSafeInteger)) {
    throw new TypeError(
      `ONNX attribute ${name} must be whole numbers, got ${JSON.stringify(value)}; write { float: … } for a float`,
    );
  }
  return Array.isArray(value) ? { name, type: 7, ints: value as number[] } : { name, type: 2, i: value };
}

/** One operator, named after its first output. */
export function node(
  opType: string,
  inputs: string[],
  outputs: string[],
  attributes: Record<string, AttributeValue> = {},
): OnnxNode {
  return {
    opType,
    name: outputs[0] ?? "",
    input: inputs,
    output: outputs,
    attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
  };
}

function dataTypeOf(data: TensorData): DataType {
  if (data instanceof Float32Array) return "float32";
  if (data instanceof Int32Array) return "int32";
  return data instanceof BigInt64Array ? "int64" : "uint8";
}

/** A constant tensor; `dims` of [] is a scalar. */
export function tensor(
  name: string,
  dims: number[],
  data: TensorData,
  dataType = dataTypeOf(data),
): OnnxTensor {
  const count = dims.reduce((product, dim) => product * dim, 1);
  if (count !== data.length) {
    throw new RangeError(
      `tensor ${name} of shape [${dims.join()}] must have ${count} numbers, got ${data.length}`,
    );
  }
  const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { name, dims, dataType: DATA_TYPE[dataType], rawData };
}

/** A graph's input or output. A string in `shape` names a dimension that is free; without `shape` even the rank is. */
export function valueInfo(name: string, dataType: DataType, shape?: (number | string)[]): OnnxValueInfo {
  const dim = shape?.map((size) => (typeof size === "string" ? { dimParam: size } : { dimValue: size }));
  return {
    name,
    type: { tensorType: { elemType: DATA_TYPE[dataType], ...(dim && { shape: { dim } }) } },
  };
}

/** The bytes of an .onnx file (IR version 8). */
export function encodeModel(model: OnnxModel): Uint8Array {
  return modelType
    .encode({
      irVersion: 8,
      producerName: "infermill",
      opsetImport: [
        { domain: "", version: model.opset },
        ...(model.mlOpset === undefined ? [] : [{ domain: "ai.onnx.ml", version: model.mlOpset }]),
      ],
      graph: {
        name: model.name,
        node: model.nodes,
        initializer: model.initializers,
        input: model.inputs,
        output: model.outputs,
      },
    })
    .finish();
}

/** Reads an .onnx file. Weights in separate files, subgraphs and metadata are left out. */
export function decodeModel(bytes: Uint8Array): OnnxModel {
  const { opsetImport, graph } = modelType.toObject(modelType.decode(bytes), {
    longs: Number,
    arrays: true,
  }) as {
    opsetImport: { domain?: string; version: number }[];
    graph: { name: string } & Record<string, never>;
  };
  return {
    opset: opsetImport.find(({ domain }) => !domain)?.version ?? 0,
    name: graph.name,
    inputs: graph["input"] ?? [],
    outputs: graph["output"] ?? [],
    nodes: graph["node"] ?? [],
    initializers: graph["initializer"] ?? [],
  };
}
