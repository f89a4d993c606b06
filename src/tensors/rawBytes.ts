/**
 * Tensors as raw bytes: numbers little-endian in row-major order, float16 as its two bytes, bool as one, and texts
 * (BYTES) each behind its length in four bytes. Every platform that Node runs on in practice is little-endian itself.
 */
import {
  countElements,
  TENSOR_ARRAYS,
  type ElementType,
  type NumberArray,
  type NumberType,
  type TensorValue,
} from "./tensor.ts";

/** Bytes that a tensor takes. */
export function byteSizeOf(tensor: TensorValue): number {
  return tensor.type === "string"
    ? tensor.data.reduce((sum, text) => sum + 4 + Buffer.byteLength(text), 0)
    : tensor.data.byteLength;
}

/** The bytes of a tensor; those of numbers share its memory. */
export function toRawBytes(tensor: TensorValue): Uint8Array {
  if (tensor.type === "string") return joinBytes(tensor.data.map((text) => Buffer.from(text)));
  const { buffer, byteOffset, byteLength } = tensor.data;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/**
 * The tensor of these bytes; numbers share their memory where it is aligned.
 * @throws Error that says what doesn't fit: the count of bytes, a text that is no UTF-8, a bool that is neither 0 nor 1
 */
export function fromRawBytes(bytes: Uint8Array, type: ElementType, dims: readonly number[]): TensorValue {
  if (type === "string") return { type, dims, data: textsOf(splitBytes(bytes, countElements(dims))) };
  const data = numbersOf(bytes, type, countElements(dims));
  if (type === "bool" && data.some((value) => value > 1)) throw new Error("must hold only the bytes 0 and 1");
  return { type, dims, data };
}

function numbersOf(bytes: Uint8Array, type: NumberType, count: number): NumberArray {
  const NumbersArray = TENSOR_ARRAYS[type];
  const size = NumbersArray.BYTES_PER_ELEMENT;
  if (bytes.byteLength !== count * size) {
    throw new Error(
      `must have ${count * size} bytes (${count} elements of ${size}), got ${bytes.byteLength}`,
    );
  }
  const isAligned = bytes.byteOffset % size === 0;
  const { buffer, byteOffset } = isAligned ? bytes : Uint8Array.from(bytes);
  return new NumbersArray(buffer as ArrayBuffer, byteOffset, count);
}

/**
 * The elements of a BYTES tensor; they share the memory of `bytes`.
 * @throws Error where they are cut short, or not as many as `count`
 */
export function splitBytes(bytes: Uint8Array, count: number): Buffer[] {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const elements: Buffer[] = [];
  let at = 0;
  while (at < whole.length) {
    const start = at + 4;
    const end = start <= whole.length ? start + whole.readUInt32LE(at) : Infinity;
    if (end > whole.length) throw new Error(`is cut short in its element ${elements.length}`);
    elements.push(whole.subarray(start, end));
    at = end;
  }
  if (elements.length !== count)
    throw new Error(`must have ${count} elements, each behind its length in 4 bytes, got ${elements.length}`);
  return elements;
}

/** The raw form of a BYTES tensor with these elements. */
export function joinBytes(elements: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    elements.flatMap((element) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(element.byteLength);
      return [length, element];
    }),
  );
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @throws Error where an element is no text */
export function textsOf(elements: readonly Uint8Array[]): string[] {
  return elements.map((element, index) => {
    let text: string;
    try {
      text = utf8.decode(element);
    } catch (error) {
      throw new Error(`must hold texts in UTF-8, element ${index} is none`, { cause: error });
    }
    return text;
  });
}
