/** Tensors as JSON: the `data` of the Open Inference Protocol, flat or nested, and back. */
import { toHalf, fromHalf, fromHalves } from "./half.ts";
import { textsOf } from "./rawBytes.ts";
import {
  countElements,
  TENSOR_ARRAYS,
  type ElementType,
  type NumberType,
  type TensorValue,
} from "./tensor.ts";
import { exactInteger } from "../core/json.ts";

/**
 * The tensor that `data` means: a list of elements in row-major order, or lists in lists as the dimensions nest.
 * Whole numbers beyond 2⁵³ come as strings of digits, since JSON.parse would round them.
 * @param isBase64 whether texts are base64 of their bytes
 * @throws Error that says what was expected and what came
 */
export function fromJson(
  data: unknown,
  type: ElementType,
  dims: readonly number[],
  { isBase64 = false } = {},
): TensorValue {
  const elements = flatten(data, dims);
  if (type === "string")
    return { type, dims, data: elements.map((element, index) => readText(element, index, isBase64)) };
  if (type === "int64" || type === "uint64") {
    const array = new TENSOR_ARRAYS[type](elements.length);
    for (const [index, element] of elements.entries()) array[index] = readBigInt(element, type, index);
    return { type, dims, data: array };
  }
  if (type === "float16" && areBitsOfHalves(elements))
    return { type, dims, data: Uint16Array.from(elements) };
  const read = readerOf(type);
  const array = new TENSOR_ARRAYS[type](elements.length);
  for (let index = 0; index < elements.length; index++) array[index] = read(elements[index], index);
  return { type, dims, data: array };
}

/**
 * The `data` of a tensor, flat. Whole numbers beyond ±2⁵³ become strings of digits: as numbers they would not be exact.
 * @throws Error where it holds NaN or an infinity, which JSON doesn't have
 */
export function toJson(tensor: TensorValue): (number | boolean | string)[] {
  switch (tensor.type) {
    case "string":
      return [...tensor.data];
    case "bool":
      return Array.from(tensor.data as Uint8Array, (value) => value !== 0);
    case "int64":
    case "uint64":
      return Array.from(tensor.data as BigInt64Array, (value) => {
        const number = Number(value);
        return Number.isSafeInteger(number) ? number : String(value);
      });
    default: {
      if (!isFinite(tensor))
        throw new Error("holds NaN or infinite numbers, which JSON can't carry; ask for it as binary data");
      return Array.from(
        tensor.type === "float16" ? fromHalves(tensor.data as Uint16Array) : (tensor.data as Float32Array),
      );
    }
  }
}

/** Whether JSON can carry the numbers of a tensor: none of them is NaN or infinite. */
export function isFinite({ type, data }: TensorValue): boolean {
  if (type === "float16") return (data as Uint16Array).every((bits) => (bits & 0x7c00) !== 0x7c00);
  if (type !== "float32" && type !== "float64") return true;
  const numbers = data as Float32Array;
  for (let index = 0; index < numbers.length; index++) if (!Number.isFinite(numbers[index])) return false;
  return true;
}

/** @throws Error where the count, or the nesting of lists, isn't that of the dimensions */
function flatten(data: unknown, dims: readonly number[]): unknown[] {
  const count = countElements(dims);
  const list = Array.isArray(data) ? (data as unknown[]) : dims.length === 0 ? [data] : undefined;
  if (!list) throw new Error(`must be a list of ${count} elements, got ${shown(data)}`);
  const isNested = dims.length > 1 && list.length > 0 && Array.isArray(list[0]);
  if (isNested) {
    const flat: unknown[] = [];
    collect(list, dims, 0, flat);
    return flat;
  }
  if (list.length !== count) {
    throw new Error(
      `must have ${count} elements, the product of the shape [${dims.join(", ")}], got ${list.length}`,
    );
  }
  return list;
}

function collect(list: unknown, dims: readonly number[], depth: number, into: unknown[]): void {
  if (!Array.isArray(list) || list.length !== dims[depth]) {
    const got = Array.isArray(list) ? `a list of ${list.length}` : shown(list);
    throw new Error(
      `must nest as the shape [${dims.join(", ")}] does: lists of ${dims[depth]} at depth ${depth + 1}, got ${got}`,
    );
  }
  if (depth === dims.length - 1) for (const element of list) into.push(element);
  else for (const inner of list) collect(inner, dims, depth + 1, into);
}

function readText(element: unknown, index: number, isBase64: boolean): string {
  if (typeof element !== "string")
    throw new Error(`must hold strings, element ${index} is ${shown(element)}`);
  return isBase64 ? textsOf([fromBase64(element, index)])[0]! : element;
}

/** @throws Error where the text is no base64 */
export function fromBase64(text: string, index: number): Buffer {
  if (!/^[\w+/-]*={0,2}$/.test(text)) throw new Error(`must hold base64, element ${index} is ${shown(text)}`);
  return Buffer.from(text, "base64");
}

const RANGES: Readonly<Partial<Record<NumberType, readonly [number, number]>>> = {
  int8: [-128, 127],
  int16: [-32_768, 32_767],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint8: [0, 255],
  uint16: [0, 65_535],
  uint32: [0, 2 ** 32 - 1],
};

/** Of the types that JavaScript's numbers hold. */
function readerOf(type: NumberType): (element: unknown, index: number) => number {
  if (type === "bool") {
    return (element, index) => {
      if (element === true || element === 1) return 1;
      if (element === false || element === 0) return 0;
      throw new Error(`must hold true and false, element ${index} is ${shown(element)}`);
    };
  }
  const range = RANGES[type];
  if (range) {
    const [lowest, highest] = range;
    return (element, index) => {
      if (Number.isInteger(element) && (element as number) >= lowest && (element as number) <= highest)
        return element as number;
      throw new Error(
        `must hold whole numbers from ${lowest} to ${highest}, element ${index} is ${shown(element)}`,
      );
    };
  }
  const round = { float16: toHalf, float32: Math.fround, float64: (value: number) => value }[
    type as "float16"
  ];
  const isInfinite =
    type === "float16"
      ? (bits: number) => (bits & 0x7c00) === 0x7c00
      : (value: number) => !Number.isFinite(value);
  return (element, index) => {
    if (typeof element !== "number")
      throw new Error(`must hold numbers, element ${index} is ${shown(element)}`);
    const rounded = round(element);
    if (isInfinite(rounded))
      throw new Error(`must hold numbers that ${type} can hold, element ${index} is ${element}`);
    return rounded;
  };
}

const LIMITS = { int64: [-(2n ** 63n), 2n ** 63n - 1n], uint64: [0n, 2n ** 64n - 1n] } as const;

function readBigInt(given: unknown, type: keyof typeof LIMITS, index: number): bigint {
  const element = exactInteger(given) ?? given;
  const [lowest, highest] = LIMITS[type];
  const isExact =
    typeof element === "bigint" ||
    (typeof element === "number" && Number.isSafeInteger(element)) ||
    (typeof element === "string" && /^-?\d{1,20}$/.test(element));
  const value = isExact ? BigInt(element) : undefined;
  if (value !== undefined && value >= lowest && value <= highest) return value;
  const advice =
    typeof element === "number" && Number.isInteger(element)
      ? "; beyond 2⁵³ JSON's numbers are not exact, send a string of digits or raw bytes"
      : "";
  throw new Error(
    `must hold whole numbers from ${lowest} to ${highest}, element ${index} is ${shown(element)}${advice}`,
  );
}

/**
 * Whether a list for a float16 tensor holds the halves' bits (as numpy's `view(uint16)` writes them) instead of their
 * values: whole numbers of 16 bits that include one which is no half. No float16 array can hold such a value.
 */
function areBitsOfHalves(elements: readonly unknown[]): elements is number[] {
  const areWords = elements.every(
    (element) => Number.isInteger(element) && (element as number) >= 0 && (element as number) <= 0xffff,
  );
  return areWords && (elements as number[]).some((word) => fromHalf(toHalf(word)) !== word);
}

function shown(value: unknown): string {
  if (typeof value === "bigint") return String(value);
  const json = JSON.stringify(value) ?? typeof value;
  return json.length > 40 ? `${json.slice(0, 40)}…` : json;
}
