/**
 * The ONNX graph while it is written. TensorFlow's pictures are NHWC, ONNX convolutions want NCHW:
 * each value is kept in the layout that it was computed in and transposed only where it must be.
 */
import {
  type AttributeValue,
  type DataType,
  node as onnxNode,
  type OnnxNode,
  type OnnxTensor,
  tensor,
  type TensorData,
} from "./onnxProto.ts";
import { type Constant, NodeReader, type TfjsNode, transpose } from "./tfjsFormat.ts";

/** Writes the ONNX nodes of one TensorFlow node, and declares its outputs with `graph.output`. */
export type Convert = (node: NodeReader, graph: GraphWriter) => void;

/** `tf`: as TensorFlow has it. `nchw`: a 4-dimensional value with its channels moved to axis 1. */
export type Layout = "tf" | "nchw";

export const TO_NCHW = [0, 3, 1, 2];
const TO_NHWC = [0, 2, 3, 1];

/** Writes nodes in the order in which they are needed, from the outputs back; what nothing needs is left out. */
export class GraphWriter {
  readonly nodes: OnnxNode[] = [];
  readonly initializers = new Map<string, OnnxTensor>();
  readonly #tfNodes: Map<string, TfjsNode>;
  readonly #constants: Map<string, Constant>;
  readonly #ops: Record<string, Convert>;
  /** Layout that a value was computed in, by its TensorFlow name. */
  readonly #homes = new Map<string, Layout>();
  readonly #transposed = new Set<string>();

  constructor(nodes: TfjsNode[], constants: Map<string, Constant>, ops: Record<string, Convert>) {
    this.#tfNodes = new Map(nodes.map((node) => [node.name, node]));
    this.#constants = constants;
    this.#ops = ops;
  }

  /** Adds an operator and answers its first output. */
  add(
    op: string,
    inputs: string[],
    outputs: string | string[],
    attributes?: Record<string, AttributeValue>,
  ): string {
    const names = [outputs].flat();
    this.nodes.push(onnxNode(op, inputs, names, attributes));
    return names[0]!;
  }

  /** Declares that `value` is computed in `layout`, and answers the name to compute it under. */
  output(value: string, layout: Layout): string {
    this.#homes.set(value, layout);
    return inLayout(value, layout);
  }

  /** A weight, known while converting. */
  constant(value: string): Constant {
    const found = this.#constants.get(value);
    if (!found) throw new Error(`can't convert: ${value} must be a constant`);
    return found;
  }

  numbers(value: string): number[] {
    return Array.from(this.constant(value).data);
  }

  /** Adds a constant tensor once, whoever asks for it by the same name. */
  initializer(
    name: string,
    make: () => Constant | { dims: number[]; data: TensorData; dataType?: DataType },
  ): string {
    if (!this.initializers.has(name)) {
      const { dims, data, dataType } = make();
      this.initializers.set(name, tensor(name, dims, data, dataType));
    }
    return name;
  }

  /** Shapes, axes and indices, which ONNX wants as a list of int64. */
  int64s(name: string, values: number[]): string {
    return this.initializer(name, () => ({
      dims: [values.length],
      data: BigInt64Array.from(values, BigInt),
    }));
  }

  scalar(value: number): string {
    return this.initializer(`scalar/${value}`, () => ({ dims: [], data: Float32Array.of(value) }));
  }

  /** ONNX name of a value in a layout; computes it, and transposes it, if nobody did yet. */
  named(value: string, layout: Layout = "tf"): string {
    const name = inLayout(value, layout);
    const constant = this.#constants.get(value);
    if (constant) {
      return this.initializer(name, () => (layout === "nchw" ? alignedNchw(constant) : constant));
    }
    const home = this.#home(value);
    if (home !== layout && !this.#transposed.has(value)) {
      this.#transposed.add(value);
      this.add("Transpose", [inLayout(value, home)], name, {
        perm: layout === "nchw" ? TO_NCHW : TO_NHWC,
      });
    }
    return name;
  }

  /** Inputs of an operator that works element by element: all in the one layout that needs no transpose, if there is. */
  aligned(values: string[]): { layout: Layout; inputs: string[] } {
    const homes = values.filter((value) => !this.#constants.has(value)).map((value) => this.#home(value));
    const layout = homes.length > 0 && homes.every((home) => home === "nchw") ? "nchw" : "tf";
    return { layout, inputs: values.map((value) => this.named(value, layout)) };
  }

  #home(value: string): Layout {
    if (!this.#homes.has(value)) {
      const tfNode = this.#tfNodes.get(value.replace(/:\d+$/, ""));
      if (!tfNode) throw new Error(`can't convert: no node of the graph is called ${value}`);
      if (tfNode.op === "Const") {
        throw new Error(`can't convert: the constant ${value} is missing from the weights`);
      }
      if (tfNode.op === "Placeholder") this.output(value, "tf");
      else this.#ops[tfNode.op]!(new NodeReader(tfNode), this);
    }
    const home = this.#homes.get(value);
    if (!home) throw new Error(`can't convert: no node of the graph has the output ${value}`);
    return home;
  }
}

function inLayout(value: string, layout: Layout): string {
  return layout === "nchw" ? `${value}/nchw` : value;
}

/** A constant next to NCHW values: its axes, counted from the last one as in broadcasting, moved like theirs. */
function alignedNchw(constant: Constant): Constant {
  if (constant.dims.length === 0) return constant;
  const dims = [...Array<number>(Math.max(0, 4 - constant.dims.length)).fill(1), ...constant.dims];
  return transpose({ ...constant, dims }, TO_NCHW);
}
