/**
 * Converts a TensorFlow.js graph model (model.json and weight shards) to ONNX:
 * from each output back through the graph, op by op.
 */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { encodeModel, valueInfo } from "./onnxProto.ts";
import { onnxType, readShape, readWeights, type TfjsGraphModel, valueName } from "./tfjsFormat.ts";
import { GraphWriter } from "./tfjsGraph.ts";
import { OPS } from "./tfjsOps.ts";

/** Part of the names of converted files: raise it whenever the same model is converted to other bytes. */
export const CONVERTER_VERSION = 1;

const OPSET = 17;

/** Nodes that compute nothing. */
const GRAPH_ENDS = { Const: true, Placeholder: true };

/** Reads a model.json and the weight files that it names, and converts them to the bytes of an .onnx file. */
export async function convertTfjsFile(file: string): Promise<Uint8Array> {
  const model = JSON.parse(await readFile(file, "utf8")) as TfjsGraphModel;
  const shards = model.weightsManifest.map(({ paths }) =>
    Promise.all(paths.map((shard) => readFile(path.resolve(path.dirname(file), shard)))),
  );
  return convertTfjsModel(
    model,
    (await Promise.all(shards)).map((group) => Buffer.concat(group)),
  );
}

/**
 * Converts a graph model to the bytes of an .onnx file with the same names, shapes and layouts (NHWC) of
 * inputs and outputs. `weights` holds the joined shards of each group of the manifest.
 */
export function convertTfjsModel(model: TfjsGraphModel, weights: Uint8Array[]): Uint8Array {
  if (model.format !== "graph-model") {
    throw new Error(
      `expected a TensorFlow.js model of format "graph-model", got ${JSON.stringify(model.format)}`,
    );
  }
  const { node: nodes } = model.modelTopology;
  const unknown = new Set(
    nodes.map(({ op }) => op).filter((op) => !Object.hasOwn(GRAPH_ENDS, op) && !Object.hasOwn(OPS, op)),
  );
  if (unknown.size > 0) {
    throw new Error(
      `can't convert the TensorFlow op ${[...unknown].join(", ")}: known are ${Object.keys(OPS).join(", ")}`,
    );
  }
  const constants = model.weightsManifest.flatMap((group, index) =>
    readWeights(group.weights, weights[index]),
  );
  const graph = new GraphWriter(nodes, new Map(constants), OPS);
  const inputs = nodes
    .filter(({ op }) => op === "Placeholder")
    .map((placeholder) => {
      const shape = placeholder.attr?.["shape"]?.shape;
      return valueInfo(placeholder.name, onnxType(placeholder.attr?.["dtype"]?.type), readShape(shape));
    });
  const signature = model.signature ?? model.userDefinedMetadata?.signature;
  if (!signature) {
    throw new Error("the TensorFlow.js model has no signature, which names its outputs");
  }
  const outputs = Object.values(signature.outputs).map(({ name, dtype, tensorShape }) =>
    valueInfo(graph.named(valueName(name)), onnxType(dtype), readShape(tensorShape)),
  );
  return encodeModel({
    opset: OPSET,
    name: "tfjs",
    inputs,
    outputs,
    nodes: graph.nodes,
    initializers: [...graph.initializers.values()],
  });
}
