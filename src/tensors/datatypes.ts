/** The datatypes of the Open Inference Protocol, and the element types of onnxruntime that they are. */
import type { ElementType } from "./tensor.ts";

export const DATATYPES = {
  BOOL: "bool",
  UINT8: "uint8",
  UINT16: "uint16",
  UINT32: "uint32",
  UINT64: "uint64",
  INT8: "int8",
  INT16: "int16",
  INT32: "int32",
  INT64: "int64",
  FP16: "float16",
  FP32: "float32",
  FP64: "float64",
  BYTES: "string",
} as const satisfies Record<string, ElementType>;

export type Datatype = keyof typeof DATATYPES;

const NAMES = new Map(Object.entries(DATATYPES).map(([datatype, type]) => [type, datatype as Datatype]));

export function isDatatype(text: unknown): text is Datatype {
  return typeof text === "string" && Object.hasOwn(DATATYPES, text);
}

/** The protocol's name of an element type. */
export function datatypeOf(type: ElementType): Datatype {
  return NAMES.get(type)!;
}
