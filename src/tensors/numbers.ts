/** The elements of a tensor as JavaScript's numbers. */
import { fromHalves } from "./half.ts";
import type { NumberArray, TensorValue } from "./tensor.ts";

/** Arrays of plain numbers. */
export type PlainNumbers = Exclude<NumberArray, BigInt64Array | BigUint64Array>;

/**
 * float16 as float32, 64-bit integers as float64 (exact up to 2⁵³); everything else shares the tensor's memory.
 * @throws Error where it holds texts
 */
export function toNumbers({ type, data }: TensorValue): PlainNumbers {
  if (type === "string") throw new Error("holds texts, where numbers are expected");
  if (type === "float16") return fromHalves(data as Uint16Array);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return Float64Array.from(data, Number);
  return data;
}
