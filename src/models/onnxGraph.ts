/**
 * What the loaders need to know of an .onnx file beyond its inputs and outputs, and the one change that they make to
 * it: lists at its end (scikit-learn's exports have some), which onnxruntime-node can't return, become the tensors that
 * they were made from.
 */
import { existsSync, readFileSync } from "node:fs";
import protobuf from "protobufjs";
import { readOnnxFile, type GraphNode, type OnnxFile } from "./onnxFile.ts";
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
  /** Outputs that are the same whatever goes in. */
  constantOutputs: ReadonlySet<string>;
}

const ML_DOMAIN = "ai.onnx.ml";
const NOTHING: ModelFile = {
  metadata: {},
  producer: "",
  classLabels: [],
  hasDynamicQuantisation: false,
  unranked: new Set(),
  constantOutputs: new Set(),
};

/** Nothing is known of a file that isn't there or isn't of ONNX's format; whoever opens it says what is wrong. */
export function loadModelFile(path: string): ModelFile {
  const file = existsSync(path) ? readOnnxFile(path) : undefined;
  if (!file) return NOTHING;
  const { metadata, producer, inputs, outputs, nodes } = file;
  const known: ModelFile = {
    metadata,
    producer,
    classLabels: [],
    hasDynamicQuantisation: nodes.some(({ opType }) => opType.startsWith("DynamicQuantize")),
    unranked: new Set(inputs.flatMap(({ name, shape }) => (shape ? [] : [name]))),
    constantOutputs: findConstantOutputs(file),
  };
  const makesList = ({ opType, output }: GraphNode) =>
    LISTS.has(opType) && output.some((name) => outputs.some((candidate) => candidate.name === name));
  const hasList = nodes.some(makesList);
  if (!hasList && !nodes.some(({ domain }) => domain === ML_DOMAIN)) return known;
  const content = readFileSync(path);
  return {
    ...known,
    classLabels: readClassLabels(content),
    ...(hasList && { content: replaceLists(content) }),
  };
}

/** Operators that make a list, where onnxruntime-node can return tensors only. */
const LISTS = new Set(["ZipMap", "SequenceConstruct"]);

/** Outputs that no input has a part in, such as a detector's anchors. An operator with a subgraph may see any tensor. */
function findConstantOutputs({ inputs, outputs, nodes }: OnnxFile): Set<string> {
  const varying = new Set(inputs.map(({ name }) => name));
  const hasSubgraph = (opType: string) =>
    ["If", "Loop", "Scan", "SequenceMap"].includes(opType) || /^Random|^Bernoulli|^Multinomial/.test(opType);
  for (const { opType, input, output } of nodes) {
    if (hasSubgraph(opType) || input.some((name) => varying.has(name)))
      for (const name of output) varying.add(name);
  }
  return new Set(outputs.flatMap(({ name }) => (varying.has(name) ? [] : [name])));
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

const readValueInfo = (bytes: Uint8Array) =>
  VALUE_INFO_PROTO.toObject(VALUE_INFO_PROTO.decode(bytes)) as ListInfo;

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

/** A ValueInfoProto as far as it says of what its list is made. */
interface ListInfo {
  name: string;
  type?: { sequenceType?: { elemType?: { tensorType?: object } } };
}

/**
 * The model with the lists at its end replaced by tensors: a ZipMap by the tensor [N, classes] under its name, a
 * SequenceConstruct by its elements, numbered.
 */
function replaceLists(model: Uint8Array): Uint8Array {
  const identity = (input: string, output: string) =>
    writeField(
      GRAPH.node,
      NODE_PROTO.encode({ opType: "Identity", name: output, input: [input], output: [output] }).finish(),
    );
  /** What takes the place of each list that is put out. */
  const tensors = new Map<string, { name: string; type?: object }[]>();

  const changeNode = (field: Field, listed: ReadonlyMap<string, ListInfo>): Uint8Array => {
    const { opType, input, output, attribute } = readNode(field.value);
    const list = listed.get(output[0]!);
    if (!list || !LISTS.has(opType)) return field.whole;
    if (opType === "ZipMap") {
      const labels = attribute.find(({ name }) => CLASS_LABELS.test(name));
      const count = (labels?.strings ?? labels?.ints ?? []).length;
      const shape = { dim: [{}, count > 0 ? { dimValue: count } : {}] };
      tensors.set(list.name, [
        { name: list.name, type: { tensorType: { elemType: DATA_TYPE.float32, shape } } },
      ]);
      return identity(input[0]!, list.name);
    }
    const type = list.type?.sequenceType?.elemType;
    const elements = input.map((_, index) => ({ name: `${list.name}_${index}`, ...(type && { type }) }));
    tensors.set(list.name, elements);
    return Buffer.concat(input.map((name, index) => identity(name, elements[index]!.name)));
  };
  const changeOutput = (field: Field): Uint8Array => {
    const { name } = readValueInfo(field.value);
    const infos = tensors
      .get(name)
      ?.map((info) => writeField(GRAPH.output, VALUE_INFO_PROTO.encode(info).finish()));
    return infos ? Buffer.concat(infos) : field.whole;
  };
  const changeGraph = (graph: Uint8Array): Uint8Array => {
    const fields = [...fieldsOf(graph)];
    const outputs = fields
      .filter(({ number }) => number === GRAPH.output)
      .map(({ value }) => readValueInfo(value));
    const listed = new Map(outputs.map((info) => [info.name, info]));
    const nodes = fields.map((field) =>
      field.number === GRAPH.node ? changeNode(field, listed) : field.whole,
    );
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
