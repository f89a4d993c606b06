/**
 * What the converter knows of TensorFlow: a table of its ops, each with the
 * ONNX nodes that compute the same. Axes are TensorFlow's (NHWC) until a node is written.
 */
import { type AttributeValue, DATA_TYPE } from "./onnxProto.ts";
import { type NodeReader, onnxType, transpose } from "./tfjsFormat.ts";
import { type Convert, type GraphWriter, TO_NCHW } from "./tfjsGraph.ts";

/** Beyond the end of any axis. */
const INT32_MAX = 2 ** 31 - 1;

/** How each TensorFlow op becomes ONNX nodes. */
export const OPS: Record<string, Convert> = {
  _FusedConv2D: convolution("HWIO"),
  Conv2D: convolution("HWIO"),
  DepthwiseConv2dNative: convolution("HWCM"),
  FusedDepthwiseConv2dNative: convolution("HWCM"),
  MaxPool: (node, graph) => {
    const attributes = { kernel_shape: node.spatial("ksize"), ...window(node) };
    graph.add("MaxPool", [graph.named(node.input(0), "nchw")], graph.output(node.name, "nchw"), attributes);
  },
  ResizeBilinear: resizeBilinear,
  Mean: mean,
  Pad: pad,

  Add: elementwise("Add"),
  AddV2: elementwise("Add"),
  Sub: elementwise("Sub"),
  Mul: elementwise("Mul"),
  FloorDiv: floorDivide,
  FloorMod: (node, graph) => {
    node.expect("T", node.type("T"), "DT_INT32");
    elementwise("Mod")(node, graph);
  },
  Equal: elementwise("Equal"),
  Identity: elementwise("Identity"),
  Relu: elementwise("Relu"),
  Relu6: (node, graph) => {
    const { layout, inputs } = graph.aligned(node.inputs);
    clip6(inputs[0]!, graph.output(node.name, layout), graph);
  },
  Sigmoid: elementwise("Sigmoid"),
  Cast: (node, graph) => {
    const { layout, inputs } = graph.aligned(node.inputs);
    graph.add("Cast", inputs, graph.output(node.name, layout), {
      to: DATA_TYPE[onnxType(node.type("DstT"))],
    });
  },

  Softmax: (node, graph) => {
    graph.add("Softmax", [graph.named(node.input(0))], graph.output(node.name, "tf"), { axis: -1 });
  },
  ConcatV2: (node, graph) => {
    const { layout, inputs } = graph.aligned(node.inputs.slice(0, -1));
    const axis = graph.numbers(node.inputs.at(-1)!)[0]!;
    graph.add("Concat", inputs, graph.output(node.name, layout), {
      axis: layout === "nchw" ? TO_NCHW.indexOf(axis < 0 ? axis + 4 : axis) : axis,
    });
  },
  Reshape: (node, graph) => {
    const shape = graph.int64s(`${node.name}/shape_int64`, graph.numbers(node.input(1)));
    graph.add("Reshape", [graph.named(node.input(0)), shape], graph.output(node.name, "tf"));
  },
  ExpandDims: (node, graph) => {
    const axes = graph.int64s(`${node.name}/axes`, graph.numbers(node.input(1)));
    graph.add("Unsqueeze", [graph.named(node.input(0)), axes], graph.output(node.name, "tf"));
  },
  StridedSlice: stridedSlice,
  GatherV2: (node, graph) => {
    node.expect("batch_dims", node.int("batch_dims"), 0);
    const inputs = [graph.named(node.input(0)), graph.named(node.input(1))];
    graph.add("Gather", inputs, graph.output(node.name, "tf"), {
      axis: graph.numbers(node.input(2))[0]!,
    });
  },
  TopKV2: (node, graph) => {
    const k = graph.int64s(`${node.name}/k_int64`, graph.numbers(node.input(1)));
    const [values, indices] = [graph.output(node.name, "tf"), graph.output(`${node.name}:1`, "tf")];
    graph.add("TopK", [graph.named(node.input(0)), k], [values, `${indices}/int64`]);
    graph.add("Cast", [`${indices}/int64`], indices, { to: DATA_TYPE.int32 });
  },
};

/** An operator that is the same in both worlds and doesn't care where the channels are. */
function elementwise(op: string): Convert {
  return (node, graph) => {
    const { layout, inputs } = graph.aligned(node.inputs);
    graph.add(op, inputs, graph.output(node.name, layout));
  };
}

function clip6(input: string, output: string, graph: GraphWriter): void {
  graph.add("Clip", [input, graph.scalar(0), graph.scalar(6)], output);
}

/** Strides and padding of a convolution or pool. SAME_UPPER is TensorFlow's SAME: an odd pixel goes to the end. */
function window(node: NodeReader): Record<string, AttributeValue> {
  node.expect("data_format", node.text("data_format"), "NHWC", "");
  node.expect("padding", node.text("padding"), "SAME", "VALID");
  return {
    strides: node.spatial("strides"),
    auto_pad: node.text("padding") === "SAME" ? "SAME_UPPER" : "VALID",
  };
}

/** A convolution with the bias and activation that were fused into it. HWCM: `M` filters for each channel `C`. */
function convolution(filterLayout: "HWIO" | "HWCM"): Convert {
  return (node, graph) => {
    const [filter, fused] = [node.input(1), node.texts("fused_ops")];
    const [bias, activation] = fused[0] === "BiasAdd" ? fused : [undefined, ...fused];
    node.expect("fused activation", activation, undefined, "Relu", "Relu6");
    const channels = graph.constant(filter).dims[2]!;
    const weights = graph.initializer(`${filter}/${filterLayout}_to_onnx`, () => {
      if (filterLayout === "HWIO") return transpose(graph.constant(filter), [3, 2, 0, 1]);
      const moved = transpose(graph.constant(filter), [2, 3, 0, 1]);
      const [c = 0, m = 0, ...size] = moved.dims;
      return { ...moved, dims: [c * m, 1, ...size] };
    });
    const inputs = [
      graph.named(node.input(0), "nchw"),
      weights,
      ...(bias ? [graph.named(node.input(2))] : []),
    ];
    const output = graph.output(node.name, "nchw");
    const convolved = graph.add("Conv", inputs, activation ? `${node.name}/linear` : output, {
      ...window(node),
      dilations: node.spatial("dilations"),
      group: filterLayout === "HWCM" ? channels : 1,
    });
    if (activation === "Relu") graph.add("Relu", [convolved], output);
    if (activation === "Relu6") clip6(convolved, output, graph);
  };
}

function resizeBilinear(node: NodeReader, graph: GraphWriter): void {
  node.expect("align_corners", node.bool("align_corners"), false);
  const x = graph.named(node.input(0), "nchw");
  const size = graph.int64s(`${node.name}/size`, graph.numbers(node.input(1)));
  const start = graph.add("Shape", [x], `${node.name}/batch_and_channels`, { start: 0, end: 2 });
  const sizes = graph.add("Concat", [start, size], `${node.name}/sizes`, { axis: 0 });
  graph.add("Resize", [x, "", "", sizes], graph.output(node.name, "nchw"), {
    mode: "linear",
    coordinate_transformation_mode: node.bool("half_pixel_centers") ? "half_pixel" : "asymmetric",
  });
}

function mean(node: NodeReader, graph: GraphWriter): void {
  const axes = graph.numbers(node.input(1));
  const keepsDims = node.bool("keep_dims");
  const { layout, inputs } = graph.aligned([node.input(0)]);
  if (layout === "nchw" && axes.toSorted((a, b) => a - b).join() === "1,2") {
    const output = graph.output(node.name, keepsDims ? "nchw" : "tf");
    graph.add("ReduceMean", inputs, output, { axes: [2, 3], keepdims: Number(keepsDims) });
  } else {
    const output = graph.output(node.name, "tf");
    const attributes = { axes, keepdims: Number(keepsDims) };
    graph.add("ReduceMean", [graph.named(node.input(0))], output, attributes);
  }
}

function pad(node: NodeReader, graph: GraphWriter): void {
  const { layout, inputs } = graph.aligned([node.input(0)]);
  const flat = graph.numbers(node.input(1));
  const pairs = Array.from({ length: flat.length / 2 }, (_, axis) => flat.slice(2 * axis, 2 * axis + 2));
  const ordered = layout === "nchw" ? TO_NCHW.map((axis) => pairs[axis]!) : pairs;
  const pads = [...ordered.map(([before]) => before!), ...ordered.map(([, after]) => after!)];
  graph.add("Pad", [...inputs, graph.int64s(`${node.name}/pads`, pads)], graph.output(node.name, layout));
}

/** ONNX divides integers toward zero; a − (a mod b), with the sign of b, divides evenly and so rounds down. */
function floorDivide(node: NodeReader, graph: GraphWriter): void {
  node.expect("T", node.type("T"), "DT_INT32");
  const { layout, inputs } = graph.aligned(node.inputs);
  const [a = "", b = ""] = inputs;
  const rest = graph.add("Mod", [a, b], `${node.name}/rest`);
  const even = graph.add("Sub", [a, rest], `${node.name}/even`);
  graph.add("Div", [even, b], graph.output(node.name, layout));
}

function stridedSlice(node: NodeReader, graph: GraphWriter): void {
  for (const mask of ["ellipsis_mask", "new_axis_mask", "shrink_axis_mask"]) {
    node.expect(mask, node.int(mask), 0);
  }
  const steps = graph.numbers(node.input(3));
  /** A masked bound lies beyond its end of the axis; ONNX moves it back to the axis. */
  const bounds = (input: number, mask: string, beyond: number) =>
    graph.numbers(node.input(input)).map((bound, axis) => {
      const isMasked = (node.int(mask) >> axis) & 1;
      return isMasked ? Math.sign(steps[axis]!) * beyond : bound;
    });
  const inputs = [
    graph.named(node.input(0)),
    graph.int64s(`${node.name}/starts`, bounds(1, "begin_mask", -INT32_MAX)),
    graph.int64s(`${node.name}/ends`, bounds(2, "end_mask", INT32_MAX)),
    graph.int64s(
      `${node.name}/axes`,
      steps.map((_, axis) => axis),
    ),
    graph.int64s(`${node.name}/steps`, steps),
  ];
  graph.add("Slice", inputs, graph.output(node.name, "tf"));
}
