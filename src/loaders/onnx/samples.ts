/** Made-up inputs for a graph of which only names, types and shapes are known: to try and to measure it with. */
import type { TensorDescription } from "../../core/description.ts";
import { toHalf } from "../../tensors/half.ts";
import {
  countElements,
  isElementType,
  TENSOR_ARRAYS,
  type ElementType,
  type TensorValue,
  type Tensors,
} from "../../tensors/tensor.ts";
import type { BatchPlan } from "./batchPlan.ts";

/** Sizes that free dimensions get, and the number below which whole numbers stay, one attempt after the other. */
const ATTEMPTS = [8, 32, 224, 1].flatMap((size) => [10, 2].map((below) => ({ size, below })));
/** How wide the numbers of the rows spread. They differ, as the rows of a batch do in which quantisation goes wrong. */
const SPREADS = [1, 0.2, 10];

/** Sets of three requests of one row, alike in shape; a graph that can't run one set may run the next. */
export function* sampleSets(inputs: readonly TensorDescription[], plan: BatchPlan): Generator<Tensors[]> {
  if (!inputs.every(({ type }) => isElementType(type))) return;
  const isFixed = inputs.every(({ name, shape }) =>
    shape.every((dim, axis) => typeof dim === "number" || plan.axes.get(name) === axis),
  );
  for (const { size, below } of ATTEMPTS) {
    if (isFixed && size !== ATTEMPTS[0]!.size) return;
    const shared = new Map<string, TensorValue>();
    yield SPREADS.map((spread, row) => {
      const random = seeded(row + 1);
      return Object.fromEntries(
        inputs.map((input) => {
          const axis = plan.axes.get(input.name);
          const dims = input.shape.map((dim, at) => (at === axis ? 1 : typeof dim === "number" ? dim : size));
          const value =
            shared.get(input.name) ??
            madeUp(input.name, input.type as ElementType, dims, { random, spread, below });
          if (axis === undefined) shared.set(input.name, value);
          return [input.name, value];
        }),
      );
    });
  }
}

interface Recipe {
  random: () => number;
  spread: number;
  below: number;
}

function madeUp(
  name: string,
  type: ElementType,
  dims: readonly number[],
  { random, spread, below }: Recipe,
): TensorValue {
  const count = countElements(dims);
  const each = <T>(make: () => T) => Array.from({ length: count }, make);
  if (type === "string") return { type, dims, data: each(() => "abc"[Math.floor(3 * random())]!) };
  if (type === "float16")
    return { type, dims, data: Uint16Array.from(each(() => toHalf(spread * random()))) };
  if (type === "float32" || type === "float64")
    return { type, dims, data: TENSOR_ARRAYS[type].from(each(() => spread * random())) };
  if (type === "bool") return { type, dims, data: Uint8Array.from(each(() => Math.round(random()))) };
  // Masks say that everything counts, and a text's second segment is something that few models know.
  const whole = /mask/i.test(name)
    ? () => 1
    : /type|segment/i.test(name)
      ? () => 0
      : () => Math.floor(below * random());
  if (type === "int64" || type === "uint64")
    return { type, dims, data: TENSOR_ARRAYS[type].from(each(() => BigInt(whole()))) };
  return { type, dims, data: TENSOR_ARRAYS[type].from(each(whole)) };
}

/** The same numbers from 0 to 1 in every run. */
export function seeded(seed: number): () => number {
  let state = seed * 7919;
  return () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
}
