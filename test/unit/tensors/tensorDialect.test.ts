import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { attachInputs, attachOutputs, outputsOf } from "../../../src/core/request.ts";
import { DATATYPES, datatypeOf, type Datatype } from "../../../src/tensors/datatypes.ts";
import {
  inlineTensors,
  readBytesElements,
  readTensors,
  writeTensors,
  type TensorEntry,
} from "../../../src/tensors/dialect.ts";
import { fromHalf, toHalf } from "../../../src/tensors/half.ts";
import { joinBytes, toRawBytes } from "../../../src/tensors/rawBytes.ts";
import { countElements, TENSOR_ARRAYS, type TensorValue } from "../../../src/tensors/tensor.ts";

const numbers = {
  BOOL: fc.nat(1),
  UINT8: fc.nat(255),
  UINT16: fc.nat(65_535),
  UINT32: fc.nat(2 ** 32 - 1),
  UINT64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  INT8: fc.integer({ min: -128, max: 127 }),
  INT16: fc.integer({ min: -32_768, max: 32_767 }),
  INT32: fc.integer(),
  INT64: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  // Bits of finite halves.
  FP16: fc.nat(0xffff).filter((bits) => (bits & 0x7c00) !== 0x7c00),
  FP32: fc.float({ noNaN: true, noDefaultInfinity: true }),
  FP64: fc.double({ noNaN: true, noDefaultInfinity: true }),
};

/** Any tensor of up to four dimensions, also empty ones and scalars. */
const anyTensor: fc.Arbitrary<TensorValue> = fc
  .tuple(fc.array(fc.nat(3), { maxLength: 4 }), fc.constantFrom(...(Object.keys(DATATYPES) as Datatype[])))
  .chain(([dims, datatype]) => {
    const size = { minLength: countElements(dims), maxLength: countElements(dims) };
    if (datatype === "BYTES") {
      return fc
        .array(fc.string({ unit: "binary" }), size)
        .map((data): TensorValue => ({ type: "string", dims, data }));
    }
    const type = DATATYPES[datatype];
    return fc.array(numbers[datatype] as fc.Arbitrary<number>, size).map((elements): TensorValue => {
      const NumbersArray = TENSOR_ARRAYS[type] as Float64ArrayConstructor;
      return { type, dims, data: NumbersArray.from(elements) };
    });
  });

const throughJson = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

function nest(data: unknown[], shape: readonly number[]): unknown {
  if (shape.length <= 1) return data;
  const length = countElements(shape.slice(1));
  return Array.from({ length: shape[0]! }, (_, index) =>
    nest(data.slice(index * length, (index + 1) * length), shape.slice(1)),
  );
}

/** The one entry of a response with this tensor, all in JSON, as a client reads it. */
function entryOf(tensor: TensorValue): TensorEntry {
  const [entry] = throughJson(inlineTensors(writeTensors({ x: tensor })))["outputs"] as [TensorEntry];
  return entry;
}

describe("a tensor of any datatype", () => {
  it("comes back from JSON as it was, written flat or nested", () => {
    fc.assert(
      fc.property(anyTensor, (tensor) => {
        const entry = entryOf(tensor);
        const flat = readTensors({ inputs: [entry] })["x"]!;
        const nested = readTensors({
          inputs: [{ ...entry, data: nest(entry.data as unknown[], tensor.dims) }],
        });
        expect(withoutNegativeZeros(flat)).toEqual(withoutNegativeZeros(tensor));
        expect(nested["x"]).toEqual(flat);
      }),
    );
  });

  it("comes back from raw bytes as it was, wherever in memory they lie", () => {
    fc.assert(
      fc.property(anyTensor, fc.nat(9), (tensor, offset) => {
        const bytes = Buffer.concat([Buffer.alloc(offset), toRawBytes(tensor)]).subarray(offset);
        const entry = {
          name: "x",
          datatype: datatypeOf(tensor.type),
          shape: tensor.dims,
          parameters: { binary_data_size: bytes.length },
        };
        const request = attachInputs({ inputs: [entry] }, [
          { name: "x", mediaType: "application/octet-stream", bytes },
        ]);
        expect(readTensors(request)["x"]).toEqual(tensor);
      }),
    );
  });

  const withoutNegativeZeros = (tensor: TensorValue): TensorValue => {
    if (tensor.type === "float16")
      return { ...tensor, data: tensor.data.map((bits) => (bits === 0x8000 ? 0 : bits) as never) };
    if (tensor.type !== "float32" && tensor.type !== "float64") return tensor;
    return { ...tensor, data: (tensor.data as Float64Array).map((value) => value + 0) };
  };
});

describe("a request's tensors", () => {
  const read = (entry: object) => readTensors({ inputs: [{ name: "x", ...entry }] })["x"]!;

  it("keep whole numbers beyond 2⁵³ exact, as strings of digits", () => {
    const data = ["9223372036854775807", "-9223372036854775808", 7];
    expect(read({ datatype: "INT64", shape: [3], data }).data).toEqual(
      BigInt64Array.of(2n ** 63n - 1n, -(2n ** 63n), 7n),
    );
    expect(entryOf(read({ datatype: "INT64", shape: [3], data })).data).toEqual(data);
    expect(() => read({ datatype: "INT64", shape: [1], data: [2 ** 53] })).toThrow(
      "beyond 2⁵³ JSON's numbers are not exact, send a string of digits or raw bytes",
    );
  });

  it("take halves as numbers, and as their bits where those can be no numbers", () => {
    const halves = [0.1, 1, -65504, 2 ** -24];
    expect(read({ datatype: "FP16", shape: [4], data: halves }).data).toEqual(
      Uint16Array.from(halves, toHalf),
    );
    expect(read({ datatype: "FP16", shape: [2], data: [2048, 15_360] }).data).toEqual(
      Uint16Array.from([2048, 15_360], toHalf),
    );
    const bits = [15_238, 12_681, 13_927];
    expect(read({ datatype: "FP16", shape: [3], data: bits }).data).toEqual(Uint16Array.from(bits));
    expect(fromHalf(15_238)).toBeCloseTo(0.9404, 4);
  });

  it("may hold any bytes as base64, for whoever reads them as bytes", () => {
    const entry: TensorEntry = {
      name: "x",
      datatype: "BYTES",
      shape: [2],
      data: [Buffer.of(0xff, 0xd8).toString("base64"), ""],
      parameters: { content_type: "base64" },
    };
    expect(readBytesElements(entry, {})).toEqual([Buffer.of(0xff, 0xd8), Buffer.alloc(0)]);
    const { data: _data, ...head } = entry;
    const bytes = joinBytes([Buffer.of(0xff, 0xd8), Buffer.from("é")]);
    const request = attachInputs({}, [{ name: "x", mediaType: "application/octet-stream", bytes }]);
    expect(readBytesElements({ ...head, parameters: {} }, request)).toEqual([
      Buffer.of(0xff, 0xd8),
      Buffer.from("é"),
    ]);
    expect(() => readTensors({ inputs: [entry] })).toThrow("must hold texts in UTF-8, element 0 is none");
  });

  it("are all refused at once, each with what was expected and what came", () => {
    const inputs = [
      { name: "a", datatype: "FP8", shape: [1], data: [1] },
      { name: "b", datatype: "FP32", shape: [2, 2], data: [1, 2, 3] },
      { name: "c", datatype: "INT8", shape: [1], data: [128] },
      { name: "d", datatype: "BYTES", shape: [1], data: [3] },
      { name: "e", datatype: "FP32", shape: [1] },
      { name: "f", datatype: "FP32", shape: [2, 2], data: [[1, 2, 3], [4]] },
      { name: "g", datatype: "FP32", shape: [-1], data: [] },
      { name: "h", datatype: "FP32", shape: [1], data: [null] },
      { name: "i", datatype: "FP32", shape: [1], data: [1e39] },
      { name: "h", datatype: "BOOL", shape: [1], data: ["true"] },
      { datatype: "BOOL", shape: [1], data: [true] },
      { name: "j", datatype: "FP32", shape: [1], parameters: { binary_data_size: 4 } },
    ];
    let message = "";
    try {
      readTensors({ inputs });
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message.split("; ")).toEqual([
      'inputs[0] (a) must have one of the datatypes BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BYTES, got "FP8"',
      "inputs[1] (b) data must have 4 elements, the product of the shape [2, 2], got 3",
      "inputs[2] (c) data must hold whole numbers from -128 to 127, element 0 is 128",
      "inputs[3] (d) data must hold strings, element 0 is 3",
      "inputs[4] (e) must have data, or raw bytes in an input of its name",
      "inputs[5] (f) data must nest as the shape [2, 2] does: lists of 2 at depth 2, got a list of 3",
      "inputs[6] (g) must have a shape, a list of whole numbers from 0, got [-1]",
      "inputs[7] (h) data must hold numbers, element 0 is null",
      "inputs[8] (i) data must hold numbers that float32 can hold, element 0 is 1e+39",
      'inputs[9] (h) data must hold true and false, element 0 is "true"',
      "inputs[10] must have a name",
      'inputs[11] (j) has binary_data_size, but there is no input "j" with its raw bytes',
    ]);
  });

  it("must be as many raw bytes as shape and binary_data_size say", () => {
    const withBytes =
      (size: number, parameters: object, datatype = "FP32") =>
      () =>
        readTensors(
          attachInputs({ inputs: [{ name: "x", datatype, shape: [2], parameters }] }, [
            { name: "x", mediaType: "application/octet-stream", bytes: Buffer.alloc(size, 2) },
          ]),
        );
    expect(withBytes(7, {})).toThrow("must have 8 bytes (2 elements of 4), got 7");
    expect(withBytes(8, { binary_data_size: 9 })).toThrow("has binary_data_size 9, but 8 raw bytes came");
    expect(withBytes(2, {}, "BOOL")).toThrow("must hold only the bytes 0 and 1");
    expect(withBytes(9, {}, "BYTES")).toThrow("is cut short in its element 0");
  });
});

describe("a response's tensors", () => {
  const large: TensorValue = { type: "float32", dims: [2000], data: new Float32Array(2000).fill(0.5) };
  const small: TensorValue = { type: "int64", dims: [], data: BigInt64Array.of(3n) };

  it("are JSON where they are small and attached bytes where they are large, and JSON again on demand", () => {
    const response = writeTensors({ large, small }, { Tid: "1" });
    expect(response).toEqual({
      Tid: "1",
      outputs: [
        { name: "large", datatype: "FP32", shape: [2000], parameters: { binary_data_size: 8000 } },
        { name: "small", datatype: "INT64", shape: [], data: [3] },
      ],
    });
    expect(outputsOf(response).map(({ name, bytes }) => [name, bytes.byteLength])).toEqual([["large", 8000]]);

    const picture = { name: "mask", mediaType: "image/png", bytes: Buffer.alloc(3) };
    const inlined = inlineTensors(attachOutputs(response, [...outputsOf(response), picture]));
    expect(inlined).toMatchObject({
      outputs: [
        { name: "large", datatype: "FP32", shape: [2000], data: Array(2000).fill(0.5) },
        { data: [3] },
      ],
    });
    expect(outputsOf(inlined)).toEqual([picture]);
  });

  it("with NaN or infinities are attached however small, and an error by name in JSON", () => {
    for (const data of [Float32Array.of(1, Number.NaN), Float32Array.of(1, -Infinity)]) {
      const response = writeTensors({ scores: { type: "float32", dims: [2], data } });
      expect(outputsOf(response)).toHaveLength(1);
      expect(() => inlineTensors(response)).toThrow(
        'the output "scores" holds NaN or infinite numbers, which JSON can\'t carry',
      );
    }
    const half = writeTensors({ x: { type: "float16", dims: [1], data: Uint16Array.of(0x7c00) } });
    expect(outputsOf(half)).toHaveLength(1);
  });
});
