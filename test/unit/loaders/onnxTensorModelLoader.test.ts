import { readdirSync, existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import type { RequestDictionary } from "../../../src/core/request.ts";
import { OnnxTensorModelLoader } from "../../../src/loaders/onnx/OnnxTensorModelLoader.ts";
import { inlineTensors, type TensorEntry } from "../../../src/tensors/dialect.ts";
import { DATATYPES } from "../../../src/tensors/datatypes.ts";
import {
  DATA_TYPE,
  node,
  tensor,
  valueInfo,
  type DataType,
  type OnnxModel,
} from "../../../src/models/onnxProto.ts";
import { modelFile, noTime, openLoader, watchRuns } from "../../support/loaders.ts";
import { noSharedModels, sharedModels } from "../../support/sharedModels.ts";

interface Case {
  request: RequestDictionary;
  expected: TensorEntry[];
}

async function answer(
  loader: OnnxTensorModelLoader,
  requests: RequestDictionary[],
): Promise<(TensorEntry[] | Error)[]> {
  const outcomes = await loader.predictRequests(requests, noTime());
  return outcomes.map((outcome) =>
    outcome instanceof Error ? outcome : (inlineTensors(outcome)["outputs"] as TensorEntry[]),
  );
}

function expectOutputs(answered: TensorEntry[] | Error | undefined, expected: readonly TensorEntry[]) {
  if (answered instanceof Error) throw answered;
  for (const output of expected) {
    const own = answered!.find(({ name }) => name === output.name);
    expect(own, output.name).toMatchObject({ datatype: output.datatype, shape: output.shape });
    const [got, wanted] = [own!.data as number[], (output.data as unknown[]).flat(9) as number[]];
    expect(got).toHaveLength(wanted.length);
    const worst = Math.max(...wanted.map((value, index) => Math.abs(value - got[index]!)));
    if (typeof wanted[0] === "number") expect(worst, output.name).toBeLessThan(1e-4);
    else expect(got).toEqual(wanted);
  }
}

/** sequence of maps from text to float, as ONNX files write it. */
const MAPS = { elemType: { mapType: { keyType: 8, valueType: { tensorType: { elemType: 1 } } } } };

const fp32 = (name: string, shape: number[], data: unknown): TensorEntry => ({
  name,
  datatype: "FP32",
  shape,
  data,
});

/** What each of these requests alone answers with, in a fresh loader. */
async function expectSameAsAlone(
  loader: OnnxTensorModelLoader,
  requests: RequestDictionary[],
): Promise<TensorEntry[][]> {
  const batch = await answer(loader, requests);
  const alone: TensorEntry[][] = [];
  for (const [index, request] of requests.entries()) {
    const [own] = await answer(loader, [request]);
    if (own instanceof Error) throw own;
    expectOutputs(batch[index], own!);
    alone.push(own!);
  }
  return alone;
}

describe("a graph", () => {
  const identity = (type: DataType, shape: (number | string)[]): OnnxModel => ({
    opset: 16,
    name: "identity",
    inputs: [valueInfo("x", type, shape)],
    outputs: [valueInfo("y", type, shape)],
    nodes: [node("Identity", ["x"], ["y"])],
    initializers: [],
  });

  it.each([
    ["BOOL", [true, false, true]],
    ["INT8", [-128, 0, 127]],
    ["INT16", [-32768, 0, 32767]],
    ["INT32", [-(2 ** 31), 0, 2 ** 31 - 1]],
    ["INT64", ["-9223372036854775808", 0, "9223372036854775807"]],
    ["UINT8", [0, 1, 255]],
    ["UINT16", [0, 1, 65535]],
    ["UINT32", [0, 1, 2 ** 32 - 1]],
    ["UINT64", [0, 1, "18446744073709551615"]],
    ["FP16", [-2, 0.5, 65504]],
    ["FP32", [-2, 0.5, Math.fround(1e38)]],
    ["FP64", [-2, 0.1, 1e300]],
    ["BYTES", ["", "é", "日本"]],
  ] as const)("takes and puts out %s", async (datatype, data) => {
    const loader = await openLoader(OnnxTensorModelLoader, [
      await modelFile(identity(DATATYPES[datatype], ["batch", 3])),
    ]);
    const request = (own: unknown[]) => ({ inputs: [{ name: "x", datatype, shape: [1, 3], data: own }] });
    const rows = [[...data], data.toReversed(), [data[1], data[1], data[0]]];
    const outcomes = await answer(loader, rows.map(request));
    for (const [index, row] of rows.entries())
      expect(outcomes[index]).toEqual([{ name: "y", datatype, shape: [1, 3], data: row }]);
  });

  it("of scalars runs, also where a client sends a list of one", async () => {
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(identity("float32", []))]);
    expect(loader.batchLimit).toBe(1);
    for (const shape of [[], [1]])
      expect(await answer(loader, [{ inputs: [fp32("x", shape, [7])] }])).toEqual([[fp32("y", [], [7])]]);
  });

  it("without a batch axis runs each request alone", async () => {
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(identity("float32", [3]))]);
    expect(loader.batchLimit).toBe(1);
    const requests = [
      [1, 2, 3],
      [4, 5, 6],
    ].map((data) => ({ inputs: [fp32("x", [3], data)] }));
    await expectSameAsAlone(loader, requests);
  });

  it("gets requests of several rows, and of other shapes, each in a run with its like", async () => {
    const model = identity("float32", ["batch", "width"]);
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 8 });
    const runs = watchRuns("x");
    const requests = [
      [1, 2],
      [3, 2],
      [2, 4],
      [2, 2],
      [1, 4],
      [9, 2],
    ].map(([rows, width], index) => ({
      inputs: [
        fp32(
          "x",
          [rows!, width!],
          Array.from({ length: rows! * width! }, (_, at) => 10 * index + at),
        ),
      ],
    }));
    const outcomes = await answer(loader, requests);
    for (const [index, { inputs }] of requests.entries())
      expect(outcomes[index]).toEqual([{ ...inputs[0], name: "y" }]);
    expect(new Set(runs)).toEqual(new Set([3, 6, 9]));
  });

  it("with its batch axis elsewhere is divided along it", async () => {
    const loader = await openLoader(OnnxTensorModelLoader, [
      await modelFile(identity("float32", [2, "batch", 3])),
    ]);
    expect(loader.batchLimit).toBeGreaterThan(1);
    const runs = watchRuns("x");
    const requests = [1, 2, 1].map((rows, index) => ({
      inputs: [
        fp32(
          "x",
          [2, rows, 3],
          Array.from({ length: 6 * rows }, (_, at) => 100 * index + at),
        ),
      ],
    }));
    const outcomes = await answer(loader, requests);
    for (const [index, { inputs }] of requests.entries())
      expect(outcomes[index]).toEqual([{ ...inputs[0], name: "y" }]);
    expect(runs).toEqual([2]);
  });

  it("with an input that has no batch axis shares a run only among requests that agree in it", async () => {
    const model: OnnxModel = {
      ...identity("float32", ["batch", 2]),
      inputs: [valueInfo("x", "float32", ["batch", 2]), valueInfo("by", "float32", [])],
      nodes: [node("Mul", ["x", "by"], ["y"])],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 8 });
    const runs = watchRuns("x");
    const requests = [2, 3, 2, 3, 2].map((by, index) => ({
      inputs: [fp32("x", [1, 2], [index, 1]), fp32("by", [], [by])],
    }));
    const outcomes = await answer(loader, requests);
    for (const [index, by] of [2, 3, 2, 3, 2].entries())
      expect(outcomes[index]).toEqual([fp32("y", [1, 2], [index * by, by])]);
    expect(runs).toEqual([3, 2]);
  });

  it("of steps in time is divided behind them, and constants that it puts out go to each request whole", async () => {
    const model: OnnxModel = {
      ...identity("float32", [3, "", 2]),
      outputs: [valueInfo("y", "float32", [3, "", 2]), valueInfo("anchors", "float32", [2])],
      nodes: [node("Neg", ["x"], ["y"]), node("Identity", ["table"], ["anchors"])],
      initializers: [tensor("table", [2], Float32Array.of(7, 8))],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 8 });
    const runs = watchRuns("x");
    const requests = [1, 2].map((rows) => ({
      inputs: [fp32("x", [3, rows, 2], Array(6 * rows).fill(-rows))],
    }));
    expect(await answer(loader, requests)).toEqual(
      [1, 2].map((rows) => [
        fp32("y", [3, rows, 2], Array(6 * rows).fill(rows)),
        fp32("anchors", [2], [7, 8]),
      ]),
    );
    expect(runs).toEqual([3]);
  });

  it("that mixes its rows never shares a run, and says so", async () => {
    const model = {
      ...identity("float32", ["batch", 3]),
      nodes: [node("Softmax", ["x"], ["y"], { axis: 0 })],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 8 });
    expect(loader.batchLimit).toBe(1);
    expect(loader.describe().notes).toEqual([
      'max_batch_size is 1 for this model, whatever is configured: the answers in its output "y" depend on what else is in the batch',
    ]);
    const requests = [1, 5, 9].map((value) => ({ inputs: [fp32("x", [1, 3], [value, 2, 3])] }));
    for (const own of await answer(loader, requests)) expect(own).toEqual([fp32("y", [1, 3], [1, 1, 1])]);
    // What a client puts into one request is its own batch.
    const [both] = await answer(loader, [{ inputs: [fp32("x", [2, 1 * 3], [0, 0, 0, 0, 0, 0])] }]);
    expect(both).toEqual([fp32("y", [2, 3], Array(6).fill(0.5))]);
  });

  it("of a fixed batch is filled up, where its rows don't depend on each other", async () => {
    const model = { ...identity("float32", [4, 2]), nodes: [node("Neg", ["x"], ["y"])] };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)]);
    expect(loader.batchLimit).toBe(4);
    const requests = [1, 2, 1, 5, 4].map((rows, index) => ({
      inputs: [
        fp32(
          "x",
          [rows, 2],
          Array.from({ length: 2 * rows }, (_, at) => 10 * index + at + 1),
        ),
      ],
    }));
    const outcomes = await answer(loader, requests);
    for (const [index, { inputs }] of requests.entries())
      expect(outcomes[index]).toEqual([
        { ...inputs[0], name: "y", data: (inputs[0]!.data as number[]).map((value) => -value) },
      ]);
  });

  it("whose first dimension is no batch takes it whole or not at all", async () => {
    const model = { ...identity("float32", [4, 2]), nodes: [node("Softmax", ["x"], ["y"], { axis: 0 })] };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)]);
    const [whole, part] = await answer(loader, [
      { inputs: [fp32("x", [4, 2], Array(8).fill(1))] },
      { inputs: [fp32("x", [1, 2], [1, 1])] },
    ]);
    expect(whole).toEqual([fp32("y", [4, 2], Array(8).fill(0.25))]);
    expect((part as Error).message).toBe(
      'the model takes 4 rows, got 1, and can\'t be filled up: the answers in its output "y" depend on what else is in the batch',
    );
  });

  it("of a batch axis that its shapes don't tell is told by `batch`, and still tried", async () => {
    const model = identity("float32", ["time", "n_sequences", 2]);
    const open = (batch: unknown) => async () =>
      openLoader(OnnxTensorModelLoader, [await modelFile(model)], { batch, max_batch_size: 8 });
    const requests = [1, 2].map((rows) => ({
      inputs: [fp32("x", [3, rows, 2], Array(6 * rows).fill(rows))],
    }));
    const runs = watchRuns("x");
    for (const [batch, expected] of [
      [{ axis: 1 }, [3]],
      ["none", [3, 3]],
    ] as const) {
      const loader = await open(batch)();
      runs.length = 0;
      await answer(loader, requests);
      expect(runs).toEqual(expected);
    }
    await expect(open({ axis: 3 })()).rejects.toThrow(
      "models.Model.batch must name an axis that an input has, got 3",
    );
    await expect(open("rows")()).rejects.toThrow('must be "auto", "none" or {"axis": <number>}, got "rows"');
  });

  it("that fails on one request answers the others of its batch", async () => {
    const model: OnnxModel = {
      ...identity("int64", ["batch", 1]),
      outputs: [valueInfo("y", "float32", ["batch", 1])],
      nodes: [node("Gather", ["table", "x"], ["y"])],
      initializers: [
        tensor(
          "table",
          [12],
          Float32Array.from({ length: 12 }, (_, index) => index / 2),
        ),
      ],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 4 });
    const outcomes = await answer(
      loader,
      [3, 99, 4].map((at) => ({ inputs: [{ name: "x", datatype: "INT64", shape: [1, 1], data: [at] }] })),
    );
    expect(outcomes[0]).toEqual([fp32("y", [1, 1], [1.5])]);
    expect((outcomes[1] as Error).message).toMatch(
      /^the model failed on this request: while running Gather node/,
    );
    expect(outcomes[2]).toEqual([fp32("y", [1, 1], [2])]);
  });

  it("that can't run made-up inputs serves, and tries batches with its first requests", async () => {
    // Reshape fails unless each row has 7 numbers.
    const model: OnnxModel = {
      ...identity("float32", ["batch", "width"]),
      outputs: [valueInfo("y", "float32", ["batch", 7])],
      nodes: [node("Reshape", ["x", "form"], ["formed"]), node("Identity", ["formed"], ["y"])],
      initializers: [tensor("form", [2], BigInt64Array.of(0n, 7n))],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 4 });
    expect(loader.describe().notes).toEqual([
      expect.stringMatching(/^batches are tried with the first requests: it didn't run on made-up inputs/),
    ]);
    const runs = watchRuns("x");
    const requests = [1, 2, 3].map((value) => ({ inputs: [fp32("x", [1, 7], Array(7).fill(value))] }));
    const ask = () => answer(loader, requests);
    for (const outcomes of [await ask(), await ask()])
      expect(outcomes).toEqual([1, 2, 3].map((value) => [fp32("y", [1, 7], Array(7).fill(value))]));
    expect(runs).toEqual([1, 1, 1, 3, 3]);
  });

  it("of texts gets those of different lengths together, padded where an attention mask tells filler apart", async () => {
    const sequence = (name: string, type: DataType) => valueInfo(name, type, ["batch", "sequence"]);
    const model: OnnxModel = {
      opset: 13,
      name: "texts",
      inputs: [sequence("input_ids", "int64"), sequence("attention_mask", "int64")],
      outputs: [sequence("each", "float32"), valueInfo("mean", "float32", ["batch"])],
      nodes: [
        node("Cast", ["input_ids"], ["ids"], { to: DATA_TYPE.float32 }),
        node("Cast", ["attention_mask"], ["mask"], { to: DATA_TYPE.float32 }),
        node("Add", ["ids", "one"], ["each"]),
        node("Mul", ["each", "mask"], ["seen"]),
        node("ReduceSum", ["seen", "last"], ["sum"], { keepdims: 0 }),
        node("ReduceSum", ["mask", "last"], ["count"], { keepdims: 0 }),
        node("Div", ["sum", "count"], ["mean"]),
      ],
      initializers: [tensor("last", [1], BigInt64Array.of(1n)), tensor("one", [], Float32Array.of(1))],
    };
    const int64 = (name: string, data: number[]): TensorEntry => ({
      name,
      datatype: "INT64",
      shape: [1, data.length],
      data,
    });
    const texts = [[5], [1, 2, 3], [7, 9], [1, 2, 3, 4, 5]];
    const requests = texts.map((ids) => ({
      inputs: [
        int64("input_ids", ids),
        int64(
          "attention_mask",
          ids.map(() => 1),
        ),
      ],
    }));
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 8 });
    await answer(loader, requests);
    const runs = watchRuns("input_ids");
    const outcomes = await answer(loader, requests);
    expect(runs).toEqual([4]);
    for (const [index, ids] of texts.entries()) {
      const mean = Math.fround(ids.reduce((sum, id) => sum + id + 1, 0) / ids.length);
      expect(outcomes[index]).toEqual([
        fp32(
          "each",
          [1, ids.length],
          ids.map((id) => id + 1),
        ),
        fp32("mean", [1], [mean]),
      ]);
    }
  });

  it("answers with the outputs that a request names", async () => {
    const model: OnnxModel = {
      ...identity("float32", ["batch", 2]),
      outputs: [valueInfo("y", "float32", ["batch", 2]), valueInfo("z", "float32", ["batch", 2])],
      nodes: [node("Identity", ["x"], ["y"]), node("Neg", ["x"], ["z"])],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)]);
    const inputs = [fp32("x", [1, 2], [1, 2])];
    expect(await answer(loader, [{ inputs, outputs: [{ name: "z" }] }])).toEqual([
      [fp32("z", [1, 2], [-1, -2])],
    ]);
    const [refused] = await answer(loader, [{ inputs, outputs: [{ name: "w" }] }]);
    expect((refused as Error).message).toBe('outputs[0].name must be one of y, z, got "w"');
  });

  it("refuses tensors that it doesn't take, with what it takes and what came", async () => {
    const model: OnnxModel = {
      ...identity("float32", ["batch", 3]),
      inputs: [
        valueInfo("features", "float32", ["batch", 3]),
        valueInfo("ids", "int64", ["batch", "length"]),
        valueInfo("mask", "int64", ["batch", "length"]),
      ],
      nodes: [node("Identity", ["features"], ["y"])],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)]);
    const int64 = (name: string, shape: number[]) => ({
      name,
      datatype: "INT64",
      shape,
      data: Array(shape.reduce((a, b) => a * b, 1)).fill(1),
    });
    const outcomes = await answer(loader, [
      { inputs: [fp32("featurse", [1, 3], [1, 2, 3]), int64("ids", [1, 2]), int64("mask", [1, 2])] },
      { inputs: [int64("features", [1, 3]), int64("ids", [1, 2, 1]), int64("mask", [1, 2])] },
      { inputs: [fp32("features", [1, 4], [1, 2, 3, 4]), int64("ids", [1, 2]), int64("mask", [1, 3])] },
      { inputs: [fp32("features", [1, 3], [1, 2, 3]), int64("ids", [2, 2]), int64("mask", [2, 2])] },
      {},
      { inputs: [fp32("features", [1, 3], [1, 2, 3]), int64("ids", [1, 2]), int64("mask", [1, 2])] },
    ]);
    expect(
      outcomes.map((outcome) => (outcome instanceof Error ? outcome.message.split("; ") : "answered")),
    ).toEqual([
      [
        'inputs must not have "featurse", the model takes features, ids, mask',
        'did you mean "features"?',
        "inputs must have features FP32 [batch, 3], which is missing",
      ],
      [
        "inputs (features) must be features FP32 [batch, 3], got INT64",
        "inputs (ids) must be ids INT64 [batch, length], got the shape [1, 2, 1]",
      ],
      [
        "inputs (features) must be features FP32 [batch, 3], got the shape [1, 4]",
        "inputs (mask) must be mask INT64 [batch, length] with length = 2, got the shape [1, 3]",
      ],
      [
        "inputs (ids) must be ids INT64 [batch, length] with batch = 1, got the shape [2, 2]",
        expect.stringContaining("mask"),
      ],
      ["inputs must be a list of tensors {name, datatype, shape, data}"],
      "answered",
    ]);
  });

  it("puts out the elements of a list at its end, and leaves out a list of unknown length", async () => {
    const list = { elemType: { tensorType: { elemType: 1 } } };
    const model: OnnxModel = {
      ...identity("float32", ["batch", 2]),
      outputs: ["pair", "parts"].map((name) => ({ name, type: { sequenceType: list } }) as never),
      nodes: [
        node("Neg", ["x"], ["negative"]),
        node("SequenceConstruct", ["x", "negative"], ["pair"]),
        node("SplitToSequence", ["x"], ["parts"], { axis: 1 }),
      ],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)]);
    expect(loader.describe().notes).toEqual([
      'the output "parts" is no tensor (a sequence or map) and is left out',
    ]);
    expect(await answer(loader, [{ inputs: [fp32("x", [1, 2], [1, 2])] }])).toEqual([
      [fp32("pair_0", [1, 2], [1, 2]), fp32("pair_1", [1, 2], [-1, -2])],
    ]);
  });

  it("tells what it takes, its labels and what its file says", async () => {
    const model: OnnxModel = {
      opset: 15,
      mlOpset: 1,
      name: "classifier",
      inputs: [valueInfo("X", "float32", ["batch", 2])],
      outputs: [
        valueInfo("output_label", "string", ["batch"]),
        { name: "output_probability", type: { sequenceType: MAPS } } as never,
      ],
      nodes: [
        {
          ...node("LinearClassifier", ["X"], ["output_label", "scores"], {
            classlabels_strings: ["setosa", "virginica"],
            coefficients: { floats: [1, 0, 0, 1] },
            intercepts: { floats: [0, 0] },
            post_transform: "SOFTMAX",
          }),
          domain: "ai.onnx.ml",
        },
        {
          ...node("ZipMap", ["scores"], ["output_probability"], {
            classlabels_strings: ["setosa", "virginica"],
          }),
          domain: "ai.onnx.ml",
        },
      ],
      initializers: [],
    };
    const loader = await openLoader(OnnxTensorModelLoader, [await modelFile(model)], { max_batch_size: 4 });
    expect(loader.describe()).toEqual({
      labels: ["setosa", "virginica"],
      picture: "none",
      takesTensors: true,
      requiredKeys: ["inputs"],
      inputs: [{ name: "X", mediaTypes: ["application/octet-stream"], required: false, multiple: false }],
      tensors: {
        inputs: [{ name: "X", type: "float32", shape: ["batch", 2] }],
        outputs: [
          { name: "output_label", type: "string", shape: ["batch"] },
          { name: "output_probability", type: "float32", shape: ["batch", 2] },
        ],
      },
      facts: { producer: "infermill" },
    });
    const outcomes = await expectSameAsAlone(
      loader,
      [
        [2, 0],
        [0, 3],
        [1, 0],
      ].map((data) => ({ inputs: [fp32("X", [1, 2], data)] })),
    );
    expect(outcomes.map(([label]) => label!.data)).toEqual([["setosa"], ["virginica"], ["setosa"]]);
    const [high] = outcomes[0]![1]!.data as number[];
    expect(high).toBeCloseTo(1 / (1 + Math.exp(-2)), 5);
  });
});

const anyModels = sharedModels && path.join(sharedModels, "any");
const folders =
  anyModels && existsSync(anyModels)
    ? readdirSync(anyModels).filter((name) => existsSync(path.join(anyModels, name, "requests.json")))
    : [];

const isMissing = folders.length === 0;

describe("a model that somebody brings, with nothing but its path", () => {
  it.skipIf(isMissing)(`is there${isMissing ? `: ${noSharedModels}` : ""}`, () => {
    expect(folders).not.toEqual([]);
  });

  it.each(folders)("answers as onnxruntime does, alone and in full batches: %s", async (folder) => {
    const file = (name: string) => path.join(anyModels!, folder, name);
    const cases = JSON.parse(await readFile(file("requests.json"), "utf8")) as Case[];
    const loader = await openLoader(OnnxTensorModelLoader, [file("model.onnx")], { max_batch_size: 8 });
    const expectAnswers = async (own: readonly Case[]) => {
      const answers = await answer(
        loader,
        own.map(({ request }) => request),
      );
      for (const [index, { expected }] of own.entries()) expectOutputs(answers[index], expected);
    };
    for (const each of cases) await expectAnswers([each]);
    const full = Array.from({ length: 8 }, (_, index) => cases[index % cases.length]!);
    await expectAnswers(full);
    await expectAnswers(full);
  });
});
