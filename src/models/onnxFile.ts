/**
 * Reads what an .onnx file says of itself without its weights: metadata,
 * inputs, outputs and operators. It jumps over tensors, so a file of several
 * gigabytes takes milliseconds.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

/** A graph's input or output; a free dimension is its name, or "" where it has none. */
export interface GraphTensor {
  name: string;
  /** As onnxruntime names it: `float32`, `int64` …; `unknown` for a type that is none of a tensor's. */
  type: string;
  /** Undefined where the file doesn't say even the rank. */
  shape: readonly (number | string)[] | undefined;
}

export interface GraphNode {
  opType: string;
  domain: string;
  input: readonly string[];
  output: readonly string[];
}

export interface OnnxFile {
  /** `metadata_props`: what the exporter wrote beside the graph. */
  metadata: Readonly<Record<string, string>>;
  producer: string;
  inputs: readonly GraphTensor[];
  outputs: readonly GraphTensor[];
  nodes: readonly GraphNode[];
  /** The numbers of small constants (up to 4 KB), such as the scales of quantised tensors, by name. */
  constants: ReadonlyMap<string, readonly number[]>;
}

const MAX_CONSTANT_BYTES = 4096;

const ELEMENT_TYPES: Readonly<Record<number, string>> = {
  1: "float32",
  2: "uint8",
  3: "int8",
  4: "uint16",
  5: "int16",
  6: "int32",
  7: "int64",
  8: "string",
  9: "bool",
  10: "float16",
  11: "float64",
  12: "uint32",
  13: "uint64",
  16: "bfloat16",
};

/**
 * @returns undefined where the file is no ONNX file (`.ort`, for one) or is cut short.
 * @throws Error of the file system where it can't be opened
 */
export function readOnnxFile(file: string): OnnxFile | undefined {
  const descriptor = openSync(file, "r");
  try {
    return readModel(new FileCursor(descriptor));
  } catch (error) {
    if (error instanceof MalformedFile) return undefined;
    throw error;
  } finally {
    closeSync(descriptor);
  }
}

// Field numbers are those of onnx.proto.

function readModel(cursor: FileCursor): OnnxFile | undefined {
  const metadata: Record<string, string> = {};
  let producer = "";
  let graph: ReturnType<typeof readGraph> | undefined;
  eachField(cursor, cursor.size, {
    2: (end) => (producer = cursor.text(end)),
    7: (end) => (graph = readGraph(cursor, end)),
    14: (end) => {
      let [key, value] = ["", ""];
      eachField(cursor, end, {
        1: (to) => (key = cursor.text(to)),
        2: (to) => (value = cursor.text(to)),
      });
      metadata[key] = value;
    },
  });
  return graph && { metadata, producer, ...graph };
}

function readGraph(
  cursor: FileCursor,
  end: number,
): Pick<OnnxFile, "inputs" | "outputs" | "nodes" | "constants"> {
  const nodes: GraphNode[] = [];
  const inputs: GraphTensor[] = [];
  const outputs: GraphTensor[] = [];
  const constants = new Map<string, readonly number[]>();
  const weights = new Set<string>();
  eachField(cursor, end, {
    1: (to) => nodes.push(readNode(cursor, to, constants)),
    5: (to) => {
      const { name, numbers } = readTensor(cursor, to);
      weights.add(name);
      if (numbers) constants.set(name, numbers);
    },
    11: (to) => inputs.push(readValueInfo(cursor, to)),
    12: (to) => outputs.push(readValueInfo(cursor, to)),
  });
  // Old exporters list the weights among the inputs.
  return { nodes, inputs: inputs.filter(({ name }) => !weights.has(name)), outputs, constants };
}

function readNode(cursor: FileCursor, end: number, constants: Map<string, readonly number[]>): GraphNode {
  const node = { opType: "", domain: "", input: [] as string[], output: [] as string[] };
  let value: readonly number[] | undefined;
  eachField(cursor, end, {
    1: (to) => node.input.push(cursor.text(to)),
    2: (to) => node.output.push(cursor.text(to)),
    4: (to) => (node.opType = cursor.text(to)),
    5: (to) => eachField(cursor, to, { 5: (at) => (value = readTensor(cursor, at).numbers) }),
    7: (to) => (node.domain = cursor.text(to)),
  });
  if (node.opType === "Constant" && value) constants.set(node.output[0]!, value);
  return node;
}

/** The name of a tensor, and its numbers where it is small. */
function readTensor(
  cursor: FileCursor,
  end: number,
): { name: string; numbers: readonly number[] | undefined } {
  let name = "";
  let type = 0;
  let raw: Buffer | undefined;
  const numbers: number[] = [];
  const isSmall = (to: number) => to - cursor.at <= MAX_CONSTANT_BYTES;
  eachField(cursor, end, {
    2: (_end, value) => (type = value),
    4: (to) => {
      if (!isSmall(to)) return;
      const floats = cursor.bytes(to);
      for (let at = 0; at + 4 <= floats.length; at += 4) numbers.push(floats.readFloatLE(at));
    },
    5: (to, value) => {
      if (cursor.at === to && value !== 0) numbers.push(value);
      else if (isSmall(to)) while (cursor.at < to) numbers.push(cursor.varint());
    },
    8: (to) => (name = cursor.text(to)),
    9: (to) => {
      if (isSmall(to)) raw = cursor.bytes(to);
    },
  });
  const read = raw && RAW_READERS[type];
  return { name, numbers: read ? read(raw!) : numbers.length > 0 ? numbers : undefined };
}

const everyNumber = (bytes: Buffer, size: number, read: (at: number) => number): number[] =>
  Array.from({ length: Math.floor(bytes.length / size) }, (_, index) => read(index * size));

const RAW_READERS: Readonly<Record<number, (bytes: Buffer) => number[]>> = {
  1: (bytes) => everyNumber(bytes, 4, (at) => bytes.readFloatLE(at)),
  2: (bytes) => everyNumber(bytes, 1, (at) => bytes.readUInt8(at)),
  3: (bytes) => everyNumber(bytes, 1, (at) => bytes.readInt8(at)),
  4: (bytes) => everyNumber(bytes, 2, (at) => bytes.readUInt16LE(at)),
  5: (bytes) => everyNumber(bytes, 2, (at) => bytes.readInt16LE(at)),
  6: (bytes) => everyNumber(bytes, 4, (at) => bytes.readInt32LE(at)),
  7: (bytes) => everyNumber(bytes, 8, (at) => Number(bytes.readBigInt64LE(at))),
};

function readValueInfo(cursor: FileCursor, end: number): GraphTensor {
  let name = "";
  let type = "unknown";
  let shape: (number | string)[] | undefined;
  const dimension = (to: number) => {
    let size: number | string = "";
    eachField(cursor, to, {
      // -1, which some exporters write for "free", reads as nearly 2⁶⁴.
      1: (_end, value) => (size = value < 2 ** 53 ? value : ""),
      2: (at) => (size = cursor.text(at)),
    });
    shape!.push(size);
  };
  const tensorType = (to: number) =>
    eachField(cursor, to, {
      1: (_end, value) => (type = ELEMENT_TYPES[value] ?? "unknown"),
      2: (at) => {
        shape = [];
        eachField(cursor, at, { 1: dimension });
      },
    });
  eachField(cursor, end, {
    1: (to) => (name = cursor.text(to)),
    2: (to) => eachField(cursor, to, { 1: tensorType }),
  });
  return { name, type, shape };
}

class MalformedFile extends Error {}

/** Calls what is given for a field's number with the place where its bytes end, or with its number; skips the others. */
function eachField(
  cursor: FileCursor,
  end: number,
  read: Readonly<Record<number, (end: number, value: number) => unknown>>,
): void {
  while (cursor.at < end) {
    const tag = cursor.varint();
    const wire = tag & 7;
    const field = read[Math.floor(tag / 8)];
    if (wire === 0) {
      const value = cursor.varint();
      field?.(cursor.at, value);
    } else if (wire === 2) {
      const length = cursor.varint();
      const to = cursor.at + length;
      if (to > end) throw new MalformedFile();
      field?.(to, 0);
      cursor.at = to;
    } else if (wire === 1 || wire === 5) cursor.at += wire === 1 ? 8 : 4;
    else throw new MalformedFile();
  }
  if (cursor.at !== end) throw new MalformedFile();
}

const WINDOW_BYTES = 64 * 1024;
const MAX_TEXT_BYTES = 64 * 1024 * 1024;

/** Reads varints and text at a place of a file, through a window over it. */
class FileCursor {
  at = 0;
  readonly size: number;
  readonly #descriptor: number;
  #window = Buffer.alloc(0);
  #windowStart = 0;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
    this.size = fstatSync(descriptor).size;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 70; scale *= 128) {
      const byte = this.#bytes(1)[0]!;
      this.at++;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new MalformedFile();
  }

  text(end: number): string {
    const length = end - this.at;
    if (length > MAX_TEXT_BYTES) throw new MalformedFile();
    const text = this.#bytes(length).toString("utf8");
    this.at = end;
    return text;
  }

  /** A copy of what lies between here and `end`. */
  bytes(end: number): Buffer {
    const bytes = Buffer.from(this.#bytes(end - this.at));
    this.at = end;
    return bytes;
  }

  #bytes(count: number): Buffer {
    let from = this.at - this.#windowStart;
    if (from < 0 || from + count > this.#window.length) {
      const window = Buffer.allocUnsafe(Math.max(count, Math.min(WINDOW_BYTES, this.size - this.at)));
      const read = readSync(this.#descriptor, window, 0, window.length, this.at);
      if (read < count) throw new MalformedFile();
      [this.#window, this.#windowStart, from] = [window.subarray(0, read), this.at, 0];
    }
    return this.#window.subarray(from, from + count);
  }
}
