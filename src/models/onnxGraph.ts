/**
 * What the loaders need to know of an .onnx file beyond its inputs and outputs, and the one change that they make to
 * it: a ZipMap at its end (scikit-learn's exports have one), whose list of maps onnxruntime-node can't return, becomes
 * the tensor of scores that it was made from.
 */
import { existsSync, readFileSync } from "node:fs";
import protobuf from "protobufjs";
import { readOnnxFile, type GraphNode } from "./onnxFile.ts";
import { DATA_TYPE, NODE_PROTO, OPSET_PROTO, VALUE_INFO_PROTO, type OnnxNode } from "./onnxProto.ts";

export interface ModelFile {
  /** The file's bytes where they were changed. */
  content?: Uint8Array;
  /** Its metadata, by key. */
  metadata: Readonly<Record<string, string>>;
  /** The program that wrote it; "" where it doesn't say. */
  producer: string;
  /** Names of its classes by class index, where a classifier in the graph knows them. */
  classLabels: readonly string[];
  /** Whether numbers are quantised by what they happen to be in a run, those of a batch together. */
  hasDynamicQuantisation: boolean;
  /** Inputs of which not even the rank is declared. */
  unranked: ReadonlySet<string>;
}

const ML_DOMAIN = "ai.onnx.ml";
const NOTHING: ModelFile = {
  metadata: {},
  producer: "",
  classLabels: [],
  hasDynamicQuantisation: false,
  unranked: new Set(),
};

/** Nothing is known of a file that isn't there or isn't of ONNX's format; whoever opens it says what is wrong. */
export function loadModelFile(path: string): ModelFile {
  const file = existsSync(path) ? readOnnxFile(path) : undefined;
  if (!file) return NOTHING;
  const { metadata, producer, inputs, outputs, nodes } = file;
  const known = {
    metadata,
    producer,
    hasDynamicQuantisation: nodes.some(({ opType }) => opType.startsWith("DynamicQuantize")),
    unranked: new Set(inputs.flatMap(({ name, shape }) => (shape ? [] : [name]))),
  };
  const isOutput = (name: string) => outputs.some((output) => output.name === name);
  const isZipMap = ({ opType, output }: Pick<GraphNode, "opType" | "output">) =>
    opType === "ZipMap" && output.some(isOutput);
  if (!nodes.some(({ domain }) => domain === ML_DOMAIN)) return { ...known, classLabels: [] };

  const content = readFileSync(path);
  const classLabels = readClassLabels(content);
  return nodes.some(isZipMap)
    ? { ...known, classLabels, content: cutZipMaps(content) }
    : { ...known, classLabels };
}

// Field numbers are those of onnx.proto.
const MODEL = { graph: 7, opsetImport: 8 };
const GRAPH = { node: 1, output: 12 };

/** One field of a message: its number, the bytes of its value, and those with its tag. */
interface Field {
  number: number;
  value: Uint8Array;
  whole: Uint8Array;
}

function* fieldsOf(message: Uint8Array): Generator<Field> {
  const reader = protobuf.Reader.create(message);
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const tag = reader.uint32();
    let value = message.subarray(reader.pos, reader.pos);
    if ((tag & 7) === 2) value = reader.bytes();
    else reader.skipType(tag & 7);
    yield { number: tag >>> 3, value, whole: message.subarray(start, reader.pos) };
  }
}

function writeField(number: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([
    protobuf.Writer.create()
      .uint32((number << 3) | 2)
      .uint32(value.length)
      .finish(),
    value,
  ]);
}

const readNode = (bytes: Uint8Array) =>
  NODE_PROTO.toObject(NODE_PROTO.decode(bytes), { longs: Number, arrays: true }) as OnnxNode;

function graphOf(model: Uint8Array): Uint8Array {
  return [...fieldsOf(model)].find(({ number }) => number === MODEL.graph)!.value;
}

const CLASS_LABELS = /^classlabels_(strings|int64s|ints)$/;

/** Labels of the last operator that has some: ZipMap stands behind the classifier, and knows texts where that has numbers. */
function readClassLabels(model: Uint8Array): string[] {
  let labels: string[] = [];
  for (const { number, value } of fieldsOf(graphOf(model))) {
    if (number !== GRAPH.node) continue;
    for (const { name, strings = [], ints = [] } of readNode(value).attribute) {
      const own = [...strings.map((bytes) => Buffer.from(bytes).toString()), ...ints.map(String)];
      if (CLASS_LABELS.test(name) && own.length > 0) labels = own;
    }
  }
  return labels;
}

/** The model with each ZipMap replaced by an Identity, so that the output of its name is the tensor [N, classes]. */
function cutZipMaps(model: Uint8Array): Uint8Array {
  const classes = new Map<string, number>();
  const changeNode = (field: Field): Uint8Array => {
    const node = readNode(field.value);
    if (node.opType !== "ZipMap") return field.whole;
    const labels = node.attribute.find(({ name }) => CLASS_LABELS.test(name));
    classes.set(node.output[0]!, (labels?.strings ?? labels?.ints ?? []).length);
    const { name, input, output } = node;
    return writeField(GRAPH.node, NODE_PROTO.encode({ opType: "Identity", name, input, output }).finish());
  };
  const changeOutput = (field: Field): Uint8Array => {
    const { name } = VALUE_INFO_PROTO.decode(field.value) as unknown as { name: string };
    const count = classes.get(name);
    if (count === undefined) return field.whole;
    const shape = { dim: [{}, count > 0 ? { dimValue: count } : {}] };
    const type = { tensorType: { elemType: DATA_TYPE.float32, shape } };
    return writeField(GRAPH.output, VALUE_INFO_PROTO.encode({ name, type }).finish());
  };
  const changeGraph = (graph: Uint8Array): Uint8Array => {
    const fields = [...fieldsOf(graph)];
    const nodes = fields.map((field) => (field.number === GRAPH.node ? changeNode(field) : field.whole));
    return Buffer.concat(
      fields.map((field, index) => (field.number === GRAPH.output ? changeOutput(field) : nodes[index]!)),
    );
  };

  const fields = [...fieldsOf(model)];
  const hasOwnDomain = fields.some(
    ({ number, value }) =>
      number === MODEL.opsetImport && !(OPSET_PROTO.decode(value) as unknown as { domain?: string }).domain,
  );
  return Buffer.concat([
    ...fields.map(({ number, value, whole }) =>
      number === MODEL.graph ? writeField(MODEL.graph, changeGraph(value)) : whole,
    ),
    ...(hasOwnDomain
      ? []
      : [writeField(MODEL.opsetImport, OPSET_PROTO.encode({ domain: "", version: 13 }).finish())]),
  ]);
}
