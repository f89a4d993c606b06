/** Rows of tensors: stacked along a batch axis, padded, cut apart again, compared. */
import { fromHalves } from "../../tensors/half.ts";
import {
  countElements,
  TENSOR_ARRAYS,
  type NumberArray,
  type NumberTensor,
  type NumberType,
  type TensorValue,
} from "../../tensors/tensor.ts";

/** A tensor that has no array of its own yet: it is written where it is needed, into a batch for one. */
export interface UnwrittenTensor {
  type: NumberType;
  dims: readonly number[];
  /** Writes every element, from `offset` on. */
  write(into: NumberArray, offset: number): void;
}

export type InputTensor = TensorValue | UnwrittenTensor;
/** The input tensors of one request by name. */
export type InputTensors = Readonly<Record<string, InputTensor>>;

/** Elements of the tensor before, and in one row behind, its axis. */
function strides(dims: readonly number[], axis: number): { outer: number; inner: number } {
  return { outer: countElements(dims.slice(0, axis)), inner: countElements(dims.slice(axis + 1)) };
}

function withDim(dims: readonly number[], axis: number, size: number): number[] {
  return dims.map((dim, index) => (index === axis ? size : dim));
}

/**
 * One tensor of all rows, in order, in as much of `buffer` as it takes; repeats the last row until there are `count`.
 * The parts must agree in type and in every dimension but the axis.
 * @param buffer gives an array of at least this length
 */
export function stackRows(
  parts: readonly InputTensor[],
  axis: number,
  count: number,
  buffer: (length: number) => NumberArray,
): TensorValue {
  const [first] = parts as [InputTensor];
  const dims = withDim(first.dims, axis, count);
  const { outer, inner } = strides(dims, axis);
  const given = parts.reduce((sum, part) => sum + part.dims[axis]!, 0);
  if (first.type === "string") {
    const texts: string[] = [];
    for (let block = 0; block < outer; block++) {
      for (const part of parts as readonly TensorValue[]) {
        const size = part.dims[axis]! * inner;
        for (let at = block * size; at < (block + 1) * size; at++) texts.push(part.data[at] as string);
      }
      const last = texts.slice(texts.length - inner);
      for (let row = given; row < count; row++) texts.push(...last);
    }
    return { type: "string", dims, data: texts };
  }
  const length = outer * count * inner;
  const into = buffer(length).subarray(0, length);
  let row = 0;
  for (const part of parts) {
    const rows = part.dims[axis]!;
    if ("write" in part && outer === 1) part.write(into, row * inner);
    else
      copyBlocks(written(part), into, { outer, size: rows * inner, step: count * inner, start: row * inner });
    row += rows;
  }
  for (let block = 0; block < outer; block++) {
    const start = (block * count + given) * inner;
    for (let at = start; at < start + (count - given) * inner; at += inner)
      into.copyWithin(at, start - inner, start);
  }
  return { type: first.type, dims, data: into };
}

interface Blocks {
  outer: number;
  /** Elements of one block. */
  size: number;
  /** From one block to the next in the target, and where its first begins. */
  step: number;
  start: number;
}

function copyBlocks(from: NumberTensor, into: NumberArray, { outer, size, step, start }: Blocks): void {
  const source = from.data as Float32Array;
  const target = into as Float32Array;
  if (outer === 1) return target.set(source, start);
  for (let block = 0; block < outer; block++)
    target.set(source.subarray(block * size, (block + 1) * size), block * step + start);
}

function written(tensor: InputTensor): NumberTensor {
  return ("write" in tensor ? write(tensor) : tensor) as NumberTensor;
}

/** The tensor with an array of its own. */
export function write(tensor: InputTensor, buffer = newArray(tensor.type as NumberType)): TensorValue {
  if (!("write" in tensor)) return tensor;
  const length = countElements(tensor.dims);
  const data = buffer(length).subarray(0, length);
  tensor.write(data, 0);
  return { type: tensor.type, dims: tensor.dims, data };
}

const newArray =
  (type: NumberType) =>
  (length: number): NumberArray =>
    new TENSOR_ARRAYS[type](length);

/** Rows `start` to `end` of a tensor. Along its first axis they share its memory. */
export function sliceRows(tensor: TensorValue, axis: number, start: number, end: number): TensorValue {
  const { dims } = tensor;
  if (start === 0 && end === dims[axis]) return tensor;
  const { outer, inner } = strides(dims, axis);
  const cut = withDim(dims, axis, end - start);
  const from = (block: number) => (block * dims[axis]! + start) * inner;
  const size = (end - start) * inner;
  if (tensor.type === "string") {
    const texts = Array.from({ length: outer }, (_, block) =>
      tensor.data.slice(from(block), from(block) + size),
    );
    return { type: "string", dims: cut, data: texts.flat() };
  }
  if (outer === 1)
    return { type: tensor.type, dims: cut, data: tensor.data.subarray(from(0), from(0) + size) };
  const data = newArray(tensor.type)(outer * size);
  for (let block = 0; block < outer; block++) {
    const part = tensor.data.subarray(from(block), from(block) + size);
    (data as Float32Array).set(part as Float32Array, block * size);
  }
  return { type: tensor.type, dims: cut, data };
}

/** The tensor with zeros (or empty texts) behind its elements along an axis, up to `size` of them. */
export function padTo(tensor: TensorValue, axis: number, size: number): TensorValue {
  const { dims } = tensor;
  if (dims[axis] === size) return tensor;
  const { outer, inner } = strides(dims, axis);
  const padded = withDim(dims, axis, size);
  const own = dims[axis]! * inner;
  if (tensor.type === "string") {
    const fill = Array<string>(size * inner - own).fill("");
    const texts = Array.from({ length: outer }, (_, block) => [
      ...tensor.data.slice(block * own, (block + 1) * own),
      ...fill,
    ]);
    return { type: "string", dims: padded, data: texts.flat() };
  }
  const data = newArray(tensor.type)(countElements(padded));
  copyBlocks(tensor, data, { outer, size: own, step: size * inner, start: 0 });
  return { type: tensor.type, dims: padded, data };
}

/** What answers may differ by between runs, of the largest number in them: rounding depends on how work is divided. */
const ROUNDING: Readonly<Partial<Record<TensorValue["type"], number>>> = {
  float16: 4e-3,
  float32: 1e-4,
  float64: 1e-6,
};

/** Whether two tensors are the same but for rounding. Whole numbers and texts must be equal; NaN equals NaN. */
export function areAlike(a: TensorValue, b: TensorValue): boolean {
  if (a.type !== b.type || a.dims.join() !== b.dims.join()) return false;
  const rounding = ROUNDING[a.type];
  if (rounding === undefined) {
    for (let index = 0; index < a.data.length; index++) if (a.data[index] !== b.data[index]) return false;
    return true;
  }
  const [one, other] = [numbersOf(a), numbersOf(b)];
  let largest = 0;
  for (let index = 0; index < one.length; index++) {
    const magnitude = Math.abs(one[index]!);
    if (magnitude < Infinity && magnitude > largest) largest = magnitude;
  }
  const limit = rounding * Math.max(largest, 1e-3);
  for (let index = 0; index < one.length; index++) {
    const [x, y] = [one[index]!, other[index]!];
    if (x !== y && !(Math.abs(x - y) <= limit) && !(Number.isNaN(x) && Number.isNaN(y))) return false;
  }
  return true;
}

function numbersOf({ type, data }: TensorValue): ArrayLike<number> {
  return type === "float16" ? fromHalves(data as Uint16Array) : (data as Float32Array);
}
