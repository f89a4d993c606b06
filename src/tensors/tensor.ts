/** Tensors as the house carries them: an element type by onnxruntime's name, dimensions, numbers in row-major order. */

/** The array that holds each element type: float16 as its 16 bits, bool as 0 and 1. */
export const TENSOR_ARRAYS = {
  bool: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  float16: Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
} as const;

export type NumberType = keyof typeof TENSOR_ARRAYS;
export type ElementType = NumberType | "string";
export type NumberArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** A tensor of numbers. */
export interface NumberTensor {
  type: NumberType;
  dims: readonly number[];
  data: NumberArray;
}

/** A tensor of texts. */
export interface TextTensor {
  type: "string";
  dims: readonly number[];
  data: readonly string[];
}

export type TensorValue = NumberTensor | TextTensor;

/** Tensors by name. */
export type Tensors = Readonly<Record<string, TensorValue>>;

/** Elements of a tensor with these dimensions; 1 for a scalar, `[]`. */
export function countElements(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

export function isElementType(type: string): type is ElementType {
  return type === "string" || Object.hasOwn(TENSOR_ARRAYS, type);
}
