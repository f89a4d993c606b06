/**
 * Reads the TensorFlow.js graph format: the parts of a model.json, its weights
 * (also quantized ones) and the attributes of its nodes.
 */
import type { DataType } from "./onnxProto.ts";

interface TfjsAttribute {
  /** Base64. */
  s?: string;
  i?: string | number;
  b?: boolean;
  type?: string;
  shape?: TfjsShape;
  list?: { s?: string[]; i?: (string | number)[] };
}

interface TfjsShape {
  dim?: { size: string | number }[];
  unknownRank?: boolean;
}

/** One op of the graph. An input is a node's name, with ":1" for its second output. */
export interface TfjsNode {
  name: string;
  op: string;
  input?: string[];
  attr?: Record<string, TfjsAttribute>;
}

interface TfjsWeight {
  name: string;
  shape: number[];
  dtype: string;
  quantization?: { dtype: string; scale?: number; min?: number };
}

interface TfjsSignature {
  outputs: Record<string, { name: string; dtype?: string; tensorShape?: TfjsShape }>;
}

/** What a model.json of format "graph-model" holds, as far as it is read here. */
export interface TfjsGraphModel {
  format?: string;
  signature?: TfjsSignature;
  userDefinedMetadata?: { signature?: TfjsSignature };
  modelTopology: { node: TfjsNode[] };
  weightsManifest: { paths: string[]; weights: TfjsWeight[] }[];
}

/** The first output of a node goes by the node's name, with or without ":0". */
export function valueName(input: string): string {
  return input.replace(/:0$/, "");
}

/** Sizes of a shape, a free one as its name; undefined where even the rank is free. */
export function readShape(shape: TfjsShape | undefined): (number | string)[] | undefined {
  if (!shape || shape.unknownRank) return undefined;
  return (shape.dim ?? []).map(({ size }, axis) => {
    if (Number(size) >= 0) return Number(size);
    return axis === 0 ? "batch" : `dim${axis}`;
  });
}

/** Element type of TensorFlow's `DT_…`. */
export function onnxType(type: string | undefined): DataType {
  const known: Record<string, DataType> = {
    DT_FLOAT: "float32",
    DT_INT32: "int32",
    DT_BOOL: "bool",
    DT_UINT8: "uint8",
  };
  const found = known[type ?? ""];
  if (!found) {
    throw new Error(`can't convert the TensorFlow type ${type}: known are ${Object.keys(known).join(", ")}`);
  }
  return found;
}

/** A weight in row-major order. */
export interface Constant {
  dims: number[];
  data: Float32Array | Int32Array | Uint8Array;
  dataType: DataType;
}

/** Weights by name, from the joined shards of their group. */
export function readWeights(weights: TfjsWeight[], bytes: Uint8Array | undefined): [string, Constant][] {
  let offset = 0;
  return weights.map((weight) => {
    const count = weight.shape.reduce((product, dim) => product * dim, 1);
    const stored = weight.quantization?.dtype ?? weight.dtype;
    const size = { float32: 4, int32: 4, uint16: 2, float16: 2, uint8: 1, bool: 1 }[stored];
    if (!size) {
      throw new Error(`can't read the weight ${weight.name}: its type ${stored} isn't known`);
    }
    // A copy, since typed arrays must begin at a multiple of their element size.
    const raw = Uint8Array.from(bytes?.subarray(offset, offset + count * size) ?? []).buffer;
    offset += count * size;
    if (raw.byteLength < count * size) {
      throw new Error(
        `the weight files end within ${weight.name}: ${offset} bytes expected, got ${bytes?.length ?? 0}`,
      );
    }
    return [weight.name, { dims: weight.shape, ...restoreNumbers(weight, stored, raw) }];
  });
}

/** Undoes the quantization: float16 is a narrower float, uint8 and uint16 are steps of `scale` from `min`. */
function restoreNumbers(
  { dtype, quantization }: TfjsWeight,
  stored: string,
  raw: ArrayBuffer,
): Omit<Constant, "dims"> {
  if (dtype === "bool") return { data: new Uint8Array(raw), dataType: "bool" };
  const dataType = dtype === "int32" ? "int32" : "float32";
  if (stored === "int32") return { data: new Int32Array(raw), dataType };
  if (stored === "float32") return { data: new Float32Array(raw), dataType };
  if (stored === "float16") {
    return { data: Float32Array.from(new Uint16Array(raw), halfToFloat), dataType };
  }
  const { scale = 1, min = 0 } = quantization ?? {};
  const steps = stored === "uint16" ? new Uint16Array(raw) : new Uint8Array(raw);
  if (dataType === "int32") {
    return { data: Int32Array.from(steps, (step) => Math.round(step * scale + min)), dataType };
  }
  return { data: Float32Array.from(steps, (step) => step * scale + min), dataType };
}

function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** Reorders axes: dimension `i` of the answer is dimension `order[i]` of the constant. */
export function transpose({ dims, data, dataType }: Constant, order: number[]): Constant {
  const strides = dims.map((_, axis) => dims.slice(axis + 1).reduce((product, dim) => product * dim, 1));
  const newDims = order.map((axis) => dims[axis]!);
  const moved = data.slice();
  const position = order.map(() => 0);
  for (let to = 0; to < data.length; to++) {
    moved[to] = data[order.reduce((from, axis, i) => from + position[i]! * strides[axis]!, 0)]!;
    for (let i = order.length - 1; i >= 0 && ++position[i]! === newDims[i]; i--) position[i] = 0;
  }
  return { dims: newDims, data: moved, dataType };
}

/** A TensorFlow node whose attributes are read by type. */
export class NodeReader {
  readonly name: string;
  readonly op: string;
  readonly inputs: string[];
  readonly #attributes: Record<string, TfjsAttribute>;

  constructor({ name, op, input = [], attr = {} }: TfjsNode) {
    this.name = name;
    this.op = op;
    // "^node" asks for an order of execution and carries no data.
    this.inputs = input.filter((value) => !value.startsWith("^")).map(valueName);
    this.#attributes = attr;
  }

  input(index: number): string {
    const value = this.inputs[index];
    if (value === undefined) {
      throw new Error(`can't convert ${this.op} ${this.name}: it has no input ${index}`);
    }
    return value;
  }

  text(key: string): string {
    return Buffer.from(this.#attributes[key]?.s ?? "", "base64").toString();
  }

  texts(key: string): string[] {
    return (this.#attributes[key]?.list?.s ?? []).map((text) => Buffer.from(text, "base64").toString());
  }

  /** Height and width of a list such as [1, height, width, 1]. */
  spatial(key: string): number[] {
    return (this.#attributes[key]?.list?.i ?? [1, 1, 1, 1]).slice(1, 3).map(Number);
  }

  int(key: string): number {
    return Number(this.#attributes[key]?.i ?? 0);
  }

  bool(key: string): boolean {
    return this.#attributes[key]?.b ?? false;
  }

  type(key: string): string | undefined {
    return this.#attributes[key]?.type;
  }

  /** Refuses what this converter doesn't do, rather than convert it wrongly. */
  expect(
    what: string,
    got: string | number | boolean | undefined,
    ...allowed: (string | number | boolean | undefined)[]
  ): void {
    if (!allowed.includes(got)) {
      throw new Error(
        `can't convert ${this.op} ${this.name}: ${what} must be ${allowed.map((each) => String(each ?? "none")).join(" or ")}, got ${String(got)}`,
      );
    }
  }
}
