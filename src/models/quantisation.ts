/** Finds out what the whole numbers of a quantised output mean: value = (number − zero point) × scale. */
import type { GraphNode, OnnxFile } from "./onnxFile.ts";

export interface Quantisation {
  scale: number;
  zeroPoint: number;
}

/** Places of scale and zero point among the inputs of the operators whose result is quantised. */
const SCALE_AT: Readonly<Record<string, readonly [scale: number, zeroPoint: number]>> = {
  QuantizeLinear: [1, 2],
  QLinearConv: [6, 7],
  QLinearMatMul: [6, 7],
  QLinearAdd: [6, 7],
  QLinearMul: [6, 7],
  QGemm: [7, 8],
  QLinearSigmoid: [3, 4],
  QLinearSoftmax: [3, 4],
  QLinearLeakyRelu: [3, 4],
  QLinearGlobalAveragePool: [3, 4],
  QLinearAveragePool: [3, 4],
  QLinearReduceMean: [3, 4],
  QLinearConcat: [0, 1],
};

/** Operators that change the form of a tensor, not its numbers. */
export const FORM_ONLY: ReadonlySet<string> = new Set([
  "Reshape",
  "Flatten",
  "Squeeze",
  "Unsqueeze",
  "Identity",
  "Transpose",
  "Slice",
  "Gather",
]);

/** @returns undefined where the graph doesn't quantise this output, or with a scale for each channel */
export function readQuantisation(file: OnnxFile, output: string): Quantisation | undefined {
  const node = producerOf(file, output, FORM_ONLY);
  const places = node && SCALE_AT[node.opType];
  if (!places) return undefined;
  const [scale, zeroPoint] = places.map((place) => file.constants.get(node.input[place] ?? ""));
  if (scale?.length !== 1 || (zeroPoint && zeroPoint.length !== 1)) return undefined;
  return { scale: scale[0]!, zeroPoint: zeroPoint?.[0] ?? 0 };
}

/** The operator that makes an output, behind those that are skipped. */
export function producerOf(
  { nodes }: Pick<OnnxFile, "nodes">,
  output: string,
  skipped: ReadonlySet<string>,
): GraphNode | undefined {
  const find = (name: string | undefined) =>
    name ? nodes.find((candidate) => candidate.output.includes(name)) : undefined;
  let node = find(output);
  for (let steps = 0; node && skipped.has(node.opType) && steps < nodes.length; steps++)
    node = find(node.input[0]);
  return node;
}
