/** Where a graph has its batch: which axis of which input counts rows, and how many of them one run takes. */
import type { TensorDescription } from "../../core/description.ts";
import { BadInputError } from "../../errors.ts";
import type { InputTensors } from "./rows.ts";
import { listTensors } from "./session.ts";

/** `auto`: read from the shapes. `none`: each request runs alone. `axis`: the batch axis of every input that has one. */
export type BatchOption = "auto" | "none" | { axis: number };

export interface BatchPlan {
  /** Rows that one run takes: a number where the file fixes it, `any`, or `none` where requests can't share a run. */
  rows: number | "any" | "none";
  /** The batch axis of each input that has one. Requests share a run only where all of their other inputs are equal. */
  axes: ReadonlyMap<string, number>;
  /** Inputs that are padded with zeros along this axis, where an attention mask says which elements count. */
  padded: ReadonlyMap<string, number>;
  /** What the file calls the batch dimension; undefined where it has no name. */
  rowsName?: string | undefined;
  /** Whether it was read from the shapes, and not told. */
  isRead?: boolean;
}

const NO_BATCH: BatchPlan = { rows: "none", axes: new Map(), padded: new Map() };

const BATCH_NAME = /^(n|b|bs)$|batch/i;
const MASK_NAME = /^(attention|input)_mask$/;

/**
 * Where the batch seems to be, from declared shapes alone: what it says is tried with real rows before it is trusted.
 * @throws Error where `option` names an axis that no input has
 */
export function readBatchPlan(
  inputs: readonly TensorDescription[],
  outputs: readonly TensorDescription[],
  option: BatchOption = "auto",
): BatchPlan {
  if (option === "none" || inputs.length === 0) return NO_BATCH;
  const axes = option === "auto" ? guessAxes(inputs, outputs) : givenAxes(inputs, option.axis);
  const sizes = [...axes].map(([name, axis]) => inputs.find((input) => input.name === name)!.shape[axis]!);
  const fixed = sizes.find((size) => typeof size === "number");
  const isClear = sizes.length > 0 && (fixed === undefined || sizes.every((size) => size === fixed));
  if (!isClear) return NO_BATCH;
  const rowsName = sizes.find((size) => typeof size === "string" && size !== "") as string | undefined;
  return {
    rows: fixed ?? "any",
    axes,
    rowsName,
    padded: findPadding(inputs, axes),
    isRead: option === "auto",
  };
}

function givenAxes(inputs: readonly TensorDescription[], axis: number): Map<string, number> {
  const having = inputs.filter(({ shape }) => shape.length > axis);
  if (having.length === 0)
    throw new Error(
      `must name an axis that an input has, got ${axis}; the inputs are ${listTensors(inputs)}`,
    );
  const free = having.filter(({ shape }) => typeof shape[axis] === "string");
  const largest = Math.max(...having.map(({ shape }) => Number(shape[axis])));
  const batched = free.length > 0 ? free : having.filter(({ shape }) => shape[axis] === largest);
  return new Map(batched.map(({ name }) => [name, axis]));
}

function guessAxes(
  inputs: readonly TensorDescription[],
  outputs: readonly TensorDescription[],
): Map<string, number> {
  const dims = inputs.flatMap(({ shape }) => shape);
  const named = dims.find((dim) => typeof dim === "string" && BATCH_NAME.test(dim));
  if (named !== undefined) {
    const found = inputs.flatMap(({ name, shape }): [string, number][] => {
      if (shape.includes(named)) return [[name, shape.indexOf(named)]];
      return typeof shape[0] === "string" ? [[name, 0]] : [];
    });
    return new Map(found);
  }
  if (inputs.some(({ shape }) => typeof shape[0] === "string")) {
    const axes = new Map<string, number>();
    for (const { name, shape } of inputs) {
      const free = shape.flatMap((dim, axis) => (typeof dim === "string" ? [axis] : []));
      if (free[0] === 0 || free.length === 1) axes.set(name, free[0]!);
      else if (free.length > 1) return new Map();
    }
    return axes;
  }
  // The batch of a recurrent network stands behind the steps in time.
  const onlyFree = inputs.map(({ shape }) => shape.flatMap((dim, axis) => (dim === "" ? [axis] : [])));
  if (onlyFree.every((free, index) => free.length === 1 && inputs[index]!.shape[0] !== 1))
    return new Map(inputs.map(({ name }, index) => [name, onlyFree[index]![0]!]));
  // A fixed batch shows in everything that goes in and comes out.
  const all = [...inputs, ...outputs];
  const size = all[0]!.shape[0];
  const isBatch =
    dims.every((dim) => typeof dim === "number") &&
    inputs.every(({ shape }) => shape.length > 1) &&
    all.every(({ shape }) => shape[0] === size);
  return new Map(isBatch ? inputs.map(({ name }) => [name, 0]) : []);
}

/** Of transformers: their texts may differ in length, and a mask tells filler from text. */
function findPadding(
  inputs: readonly TensorDescription[],
  axes: ReadonlyMap<string, number>,
): Map<string, number> {
  const mask = inputs.find(({ name, shape }) => MASK_NAME.test(name) && shape.length === 2);
  const length = mask?.shape[1];
  if (!mask || axes.get(mask.name) !== 0 || typeof length !== "string") return new Map();
  const padded = inputs.filter(
    ({ name, shape }) => axes.get(name) === 0 && shape.length === 2 && shape[1] === length,
  );
  return new Map(padded.map(({ name }) => [name, 1]));
}

/** Rows of a request. @throws BadInputError where its inputs don't agree */
export function countRows(tensors: InputTensors, { axes }: BatchPlan): number {
  const counts = [...axes].map(([name, axis]) => [name, tensors[name]!.dims[axis]!] as const);
  const [first] = counts;
  if (!first) return 1;
  if (counts.every(([, rows]) => rows === first[1])) return first[1];
  throw new BadInputError(
    `the inputs must have the same number of rows, got ${counts.map(([name, rows]) => `${rows} in ${name}`).join(", ")}`,
  );
}

/** What requests must have in common to share a run. */
export function keyOf(tensors: InputTensors, plan: BatchPlan, { ignoresLength = true } = {}): string {
  return Object.entries(tensors)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, tensor]) => {
      const axis = plan.axes.get(name);
      if (axis === undefined) return `${name}=${contentOf(tensor)}`;
      const lengthAxis = ignoresLength ? plan.padded.get(name) : undefined;
      return `${name}:${tensor.dims.map((dim, at) => (at === axis || at === lengthAxis ? "" : dim)).join()}`;
    })
    .join(";");
}

/** An input without a batch axis, such as a sample rate, belongs to the run as a whole. */
function contentOf(tensor: InputTensors[string]): string {
  if ("write" in tensor) return JSON.stringify(tensor.dims);
  const { dims, data, type } = tensor;
  const content =
    type === "string"
      ? JSON.stringify(data)
      : Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength).toString("base64");
  return `${dims.join()}|${content}`;
}
