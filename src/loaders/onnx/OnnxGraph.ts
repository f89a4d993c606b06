/**
 * An ONNX model that is open on its device: named tensors of any number of requests in, those of each out. It stacks
 * requests along the batch axis as far as that is right, which it finds out by trying: rows must come out of a batch as
 * they come out alone.
 */
import type { InferenceSession } from "onnxruntime-node";
import type { TensorDescription } from "../../core/description.ts";
import { BadInputError, InfermillError, isOutOfMemory, LoaderError } from "../../errors.ts";
import { loadModelFile, type ModelFile } from "../../models/onnxGraph.ts";
import {
  TENSOR_ARRAYS,
  type NumberArray,
  type NumberType,
  type TensorValue,
  type Tensors,
} from "../../tensors/tensor.ts";
import type { BatchTrace } from "../BaseModelLoader.ts";
import { countRows, keyOf, readBatchPlan, type BatchOption, type BatchPlan } from "./batchPlan.ts";
import { areAlike, padTo, sliceRows, stackRows, write, type InputTensors } from "./rows.ts";
import {
  describeTensors,
  reasonOf,
  fromOrtTensor,
  loadRuntime,
  openSession,
  toOrtTensor,
  type SessionOptions,
} from "./session.ts";

export interface GraphOptions extends SessionOptions {
  /** Most rows that share a run, where the model takes any number. */
  maxBatchSize: number;
  /** Where the batch is. Default: read from the shapes. */
  batch?: BatchOption | ((inputs: readonly TensorDescription[]) => BatchOption);
  /** Names of the outputs that are wanted; others are not even copied out of the model. Default: all. */
  wantedOutputs?: (outputs: readonly TensorDescription[]) => readonly string[];
  /**
   * Divides the outputs of a run among its rows, where they have no row for each, such as a list of the detections of
   * all pictures. It is given the outputs of a row that ran alone, too.
   * @returns undefined where they are divided along their batch axes
   */
  divide?: (outputs: Tensors, rows: number) => Tensors[] | undefined;
}

/** What is known of the rows of a batch: nothing yet, that they don't depend on each other, or that they do. */
type Rows = "untried" | "independent" | "dependent";

/** One request on its way: its tensors, how many rows they have, how long they are. */
interface Item {
  index: number;
  inputs: InputTensors;
  rows: number;
  length: number;
}

/** Batches whose rows are all alike prove nothing; after so many of them the batch axis is trusted. */
const MAX_UNCLEAR_TRIALS = 3;

export class OnnxGraph {
  /** Tensors that the graph takes and puts out; an output that is no tensor is left out. */
  readonly inputs: readonly TensorDescription[];
  readonly outputs: readonly TensorDescription[];
  readonly plan: BatchPlan;
  /** What the file says of itself. */
  readonly file: ModelFile;
  /** What was found out of this graph that limits it, and the setting that has no effect then. */
  readonly notes: string[] = [];
  /** What was measured. */
  readonly facts: Record<string, string> = {};
  readonly wantedOutputs: readonly string[];
  #session: InferenceSession;
  readonly #openAgain: () => Promise<InferenceSession>;
  /** Most rows that one run had so far. */
  #largestRun = 1;
  readonly #divide: NonNullable<GraphOptions["divide"]>;
  readonly #runtime: Runtime;
  #limit: number;
  #rows: Rows = "untried";
  /** Why rows can't share a run. */
  #dependence = "";
  #unclearTrials = 0;
  /** Of texts of different lengths that share a run. */
  #padding: "untried" | "right" | "off";
  /** The batch axis of each output, as it was seen. */
  #outputAxes = new Map<string, number>();
  /** The axis of each output that grows with the length of padded texts. */
  #lengthAxes = new Map<string, number>();
  /** Reused by every run. Runs take turns, so that no run overwrites what another still reads. */
  readonly #buffers = new Map<string, NumberArray>();
  #lastTurn: Promise<unknown> = Promise.resolve();

  private constructor(
    session: InferenceSession,
    openAgain: () => Promise<InferenceSession>,
    runtime: Runtime,
    file: ModelFile,
    options: GraphOptions,
  ) {
    this.#session = session;
    this.#openAgain = openAgain;
    this.#divide = options.divide ?? (() => undefined);
    this.#runtime = runtime;
    this.file = file;
    this.inputs = describeTensors(session.inputMetadata);
    const outputs = describeTensors(session.outputMetadata);
    this.outputs = outputs.filter(({ type }) => type !== "not a tensor");
    for (const { name } of outputs.filter((output) => !this.outputs.includes(output)))
      this.notes.push(`the output "${name}" is no tensor (a sequence or map) and is left out`);
    if (this.outputs.length === 0) throw new Error(`the model puts out no tensor`);
    const batch = typeof options.batch === "function" ? options.batch(this.inputs) : options.batch;
    this.wantedOutputs = options.wantedOutputs?.(this.outputs) ?? this.outputs.map(({ name }) => name);
    try {
      this.plan = readBatchPlan(this.inputs, this.outputs, batch);
    } catch (error) {
      throw new Error(`models.${options.modelName}.batch ${(error as Error).message}`, { cause: error });
    }
    this.#padding = this.plan.padded.size > 0 ? "untried" : "off";
    this.#limit = Math.min(options.maxBatchSize, this.#rowsPerRun);
    if (this.#limit > 1 && file.hasDynamicQuantisation) {
      this.#runSingly("it is quantised dynamically, so the answer to a row depends on the rows beside it");
    }
  }

  /** @throws Error where the file or the device can't be used, or the graph has inputs that are no tensors */
  static async open(path: string | undefined, options: GraphOptions): Promise<OnnxGraph> {
    const file = path === undefined ? undefined : loadModelFile(path);
    const openAgain = () => openSession(path, options, file?.content);
    const session = await openAgain();
    try {
      const notTensor = describeTensors(session.inputMetadata).find(({ type }) => type === "not a tensor");
      if (notTensor) throw new Error(`the input "${notTensor.name}" is no tensor, which can't be filled`);
      return new OnnxGraph(session, openAgain, await loadRuntime(), file!, options);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /** Most rows that run together. */
  get limit(): number {
    return this.#limit;
  }

  /** The axis of an output that counts rows, as far as it is known; undefined where there is none. */
  outputAxis(name: string): number | undefined {
    if (this.plan.rows === "none" || this.file.constantOutputs.has(name)) return undefined;
    const seen = this.#outputAxes.get(name);
    if (seen !== undefined) return seen;
    const { shape } = this.outputs.find((output) => output.name === name)!;
    const named = this.plan.rowsName === undefined ? -1 : shape.indexOf(this.plan.rowsName);
    if (named >= 0) return named;
    // In a model of a fixed batch, a free first dimension counts something else, such as the boxes that were found.
    if (typeof this.plan.rows === "number" && typeof shape[0] !== "number") return undefined;
    return shape.length > 0 ? 0 : undefined;
  }

  /**
   * The outputs of each request, or the error that it alone fails with. Every tensor of the graph's inputs must be
   * there, in its type and rank. Requests of several rows get as many back.
   * @param outputs names of the outputs; others than `wantedOutputs` make every request run alone
   */
  run(
    requests: readonly InputTensors[],
    trace?: BatchTrace,
    outputs: readonly string[] = this.wantedOutputs,
  ): Promise<(Tensors | Error)[]> {
    return this.#inTurn(() => this.#runAll(requests, outputs, trace));
  }

  async #runAll(
    requests: readonly InputTensors[],
    outputs: readonly string[],
    trace?: BatchTrace,
  ): Promise<(Tensors | Error)[]> {
    const results: (Tensors | Error)[] = Array<Tensors | Error>(requests.length);
    const items: Item[] = [];
    for (const [index, inputs] of requests.entries()) {
      try {
        items.push({ index, inputs, rows: countRows(inputs, this.plan), length: this.#lengthOf(inputs) });
      } catch (error) {
        results[index] = error as Error;
      }
    }
    const run = { outputs, trace };
    for (const batch of this.#formBatches(items, outputs === this.wantedOutputs ? this.#limit : 1)) {
      const answers = await this.#runBatch(batch, run);
      for (const [at, { index }] of batch.entries()) results[index] = answers[at]!;
    }
    return results;
  }

  /** Requests that may share a run, longest texts first, so that little is padded. */
  #formBatches(items: readonly Item[], limit: number): Item[][] {
    if (limit === 1) return items.map((item) => [item]);
    const groups = groupBy(items, ({ inputs }) => this.#keyOf(inputs));
    const batches: Item[][] = [];
    for (const group of groups.values()) {
      let batch: Item[] = [];
      let rows = 0;
      for (const item of group.toSorted((a, b) => b.length - a.length)) {
        if (batch.length > 0 && rows + item.rows > limit) {
          batches.push(batch);
          [batch, rows] = [[], 0];
        }
        batch.push(item);
        rows += item.rows;
      }
      if (batch.length > 0) batches.push(batch);
    }
    return batches;
  }

  #keyOf(inputs: InputTensors): string {
    return keyOf(inputs, this.plan, { ignoresLength: this.#padding !== "off" });
  }

  async #runBatch(batch: readonly Item[], run: Run): Promise<(Tensors | Error)[]> {
    if (batch.length === 1) return [await this.#runAlone(batch[0]!, run)];
    if (this.#rows === "dependent") return this.#runEachAlone(batch, run);
    const isUntried = this.#rows === "untried" || (this.#padding === "untried" && areRagged(batch));
    if (isUntried) return this.#tryTogether(batch, run);
    try {
      return await this.#runTogether(batch, run);
    } catch (error) {
      // Whoever formed the batch makes smaller ones then.
      if (isOutOfMemory(error)) throw error;
      // One of them fails for what is in it, and only that one is to fail.
      return this.#runEachAlone(batch, run);
    }
  }

  async #runEachAlone(batch: readonly Item[], run: Run): Promise<(Tensors | Error)[]> {
    const answers: (Tensors | Error)[] = [];
    for (const item of batch) answers.push(await this.#runAlone(item, run));
    return answers;
  }

  /** A request that fails, fails with what onnxruntime says of it. */
  async #runAlone(item: Item, run: Run): Promise<Tensors | Error> {
    try {
      const fixed = this.plan.rows;
      if (typeof fixed !== "number" || item.rows === fixed) {
        const answer = await this.#runSession(item.inputs, run);
        return (item.rows === 1 && this.#divide(answer, 1)?.[0]) || answer;
      }
      return await this.#runInFixedBatches(item, fixed, run);
    } catch (error) {
      if (error instanceof InfermillError) return error;
      return new LoaderError(`the model failed on this request: ${reasonOf(error)}`, { cause: error });
    }
  }

  /** Fills the last run of a fixed batch with its last row. */
  async #runInFixedBatches(item: Item, size: number, run: Run): Promise<Tensors> {
    const mayFill = run.isTrial || !this.plan.isRead || this.#rows === "independent";
    if (item.rows === 0 || !mayFill) {
      const reason = this.#dependence && `, and can't be filled up: ${this.#dependence}`;
      throw new BadInputError(`the model takes ${size} rows, got ${item.rows}${reason}`);
    }
    const parts: Tensors[] = [];
    for (let start = 0; start < item.rows; start += size) {
      const end = Math.min(item.rows, start + size);
      const inputs = Object.fromEntries(
        Object.entries(item.inputs).map(([name, tensor]) => {
          const axis = this.plan.axes.get(name);
          if (axis === undefined) return [name, tensor];
          const part = item.rows <= size ? tensor : sliceRows(write(tensor), axis, start, end);
          return [name, stackRows([part], axis, size, this.#bufferFor(name, part.type))];
        }),
      );
      const answer = await this.#runSession(inputs, run);
      parts.push(mapTensors(answer, (tensor, name) => this.#partOf(name, tensor, 0, end - start, size)));
    }
    return mapTensors(parts[0]!, (tensor, name) => {
      const axis = this.outputAxis(name);
      if (parts.length === 1 || axis === undefined) return tensor;
      const rows = parts.reduce((sum, part) => sum + part[name]!.dims[axis]!, 0);
      return stackRows(
        parts.map((part) => part[name]!),
        axis,
        rows,
        newArray(tensor.type as NumberType),
      );
    });
  }

  /** One run of all rows. @throws Error where it fails, or its outputs can't be divided */
  async #runTogether(batch: readonly Item[], run: Run): Promise<Tensors[]> {
    this.#largestRun = Math.max(this.#largestRun, countAll(batch));
    const answer = await this.#runSession(this.#stack(batch), run);
    const startedAt = performance.now();
    const total = typeof this.plan.rows === "number" ? this.plan.rows : countAll(batch);
    const divided = this.#divide(answer, total);
    if (divided) return batch.map((_item, at) => divided[at]!);
    let start = 0;
    const answers = batch.map(({ rows, length }) => {
      const from = start;
      start += rows;
      return mapTensors(answer, (tensor, name) => {
        const own = this.#partOf(name, tensor, from, from + rows, total);
        const lengthAxis = this.#lengthAxes.get(name);
        return lengthAxis === undefined ? own : sliceRows(own, lengthAxis, 0, length);
      });
    });
    if (run.trace) run.trace.postprocess_ms += performance.now() - startedAt;
    return answers;
  }

  #partOf(name: string, tensor: TensorValue, start: number, end: number, total: number): TensorValue {
    if (this.file.constantOutputs.has(name)) return tensor;
    const axis = this.outputAxis(name);
    if (axis !== undefined && tensor.dims[axis] === total) return sliceRows(tensor, axis, start, end);
    throw new Error(
      `the output "${name}" of shape [${tensor.dims.join(", ")}] can't be divided among a batch of ${total}`,
    );
  }

  #stack(batch: readonly Item[]): Tensors {
    const [first] = batch as [Item];
    const length = Math.max(...batch.map((item) => item.length));
    const count = typeof this.plan.rows === "number" ? this.plan.rows : countAll(batch);
    return Object.fromEntries(
      Object.keys(first.inputs).map((name) => {
        const axis = this.plan.axes.get(name);
        if (axis === undefined) return [name, write(first.inputs[name]!)];
        const lengthAxis = this.plan.padded.get(name);
        const parts = batch.map(({ inputs }) => {
          const tensor = inputs[name]!;
          return lengthAxis === undefined ? tensor : padTo(write(tensor), lengthAxis, length);
        });
        return [name, stackRows(parts, axis, count, this.#bufferFor(name, parts[0]!.type))];
      }),
    );
  }

  async #runSession(inputs: InputTensors, { outputs, trace }: Run): Promise<Tensors> {
    const startedAt = performance.now();
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([name, tensor]) => {
        const own = write(tensor, this.#bufferFor(name, tensor.type));
        return [name, toOrtTensor(this.#runtime, name, own)];
      }),
    );
    const runStartedAt = performance.now();
    if (trace) trace.preprocess_ms += runStartedAt - startedAt;
    const answer = await this.#session.run(feeds, [...outputs]);
    if (trace) trace.infer_ms += performance.now() - runStartedAt;
    return Object.fromEntries(outputs.map((name) => [name, fromOrtTensor(name, answer[name]!)]));
  }

  #bufferFor(name: string, type: TensorValue["type"]): (length: number) => NumberArray {
    return (length) => {
      const known = this.#buffers.get(name);
      if (known && known.length >= length) return known;
      const buffer = new TENSOR_ARRAYS[type as NumberType](length);
      this.#buffers.set(name, buffer);
      return buffer;
    };
  }

  #lengthOf(inputs: InputTensors): number {
    const [padded] = this.plan.padded;
    return padded ? inputs[padded[0]]!.dims[padded[1]]! : 0;
  }

  get #rowsPerRun(): number {
    const { rows } = this.plan;
    return rows === "none" ? 1 : rows === "any" ? Infinity : rows;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lastTurn.then(work);
    this.#lastTurn = turn.catch(() => {});
    return turn;
  }

  /** Gives back the memory of larger batches than will run from now on, which onnxruntime keeps as long as its session. */
  shrink(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#largestRun <= this.#limit) return;
      this.#buffers.clear();
      await this.#session.release();
      this.#session = await this.#openAgain();
      this.#largestRun = 1;
    });
  }

  async close(): Promise<void> {
    await this.#lastTurn;
    await this.#session.release();
    this.#buffers.clear();
  }

  // What it finds out by trying.

  /** Runs made-up inputs. @returns why the model can't */
  try(inputs: InputTensors): Promise<Error | undefined> {
    return this.#inTurn(async () => {
      const item = { index: 0, inputs, rows: countRows(inputs, this.plan), length: 0 };
      const answer = await this.#runAlone(item, { outputs: this.wantedOutputs, isTrial: true });
      return answer instanceof Error ? answer : undefined;
    });
  }

  /**
   * Tries a batch of these requests, each of them runnable alone: whether their rows come out of it as they do alone.
   * Where not, every row runs alone from now on, and a note says so.
   */
  check(samples: readonly InputTensors[]): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#limit === 1 || samples.length < 2) return;
      const run = { outputs: this.wantedOutputs, isTrial: true };
      const items = samples.map((inputs, index) => ({
        index,
        inputs,
        rows: countRows(inputs, this.plan),
        length: this.#lengthOf(inputs),
      }));
      const sameLength = items.filter(({ length }) => length === items[0]!.length);
      await this.#tryTogether(sameLength.slice(0, this.#limit), run);
      if (this.#limit > 1 && areRagged(items) && this.#padding === "untried")
        await this.#tryTogether(items.slice(-this.#limit), run);
    });
  }

  /**
   * Runs a full batch once. Where the model can't, every row runs alone from now on; where the memory doesn't suffice,
   * half as many run together. A note says so.
   */
  async checkFullBatch(samples: readonly InputTensors[]): Promise<void> {
    while (this.#limit > Math.max(1, samples.length) && samples.length > 0) {
      const error = await this.#tryBatch(samples, this.#limit);
      if (!error) return;
      const reason = `it can't run ${this.#limit} rows together (${reasonOf(error)})`;
      if (!isOutOfMemory(error)) return this.#runSingly(reason);
      this.#limit = this.#limit >> 1;
      this.notes.push(`max_batch_size is ${this.#limit} for this model, whatever is configured: ${reason}`);
    }
  }

  /** Runs requests both ways and compares; answers with what came of each alone. */
  async #tryTogether(batch: readonly Item[], run: Run): Promise<(Tensors | Error)[]> {
    const alone = await this.#runEachAlone(batch, run);
    const good = batch.flatMap((item, at) => {
      const answer = alone[at]!;
      return answer instanceof Error ? [] : [{ item, answer }];
    });
    if (good.length < 2) return alone;
    const items = good.map(({ item }) => item);
    const answers = good.map(({ answer }) => answer);
    let problem: string | undefined;
    try {
      this.#largestRun = Math.max(this.#largestRun, countAll(items));
      const together = await this.#runSession(this.#stack(items), { outputs: run.outputs });
      problem = this.#compare(items, answers, together);
    } catch (error) {
      problem = `it can't run ${countAll(items)} rows together (${reasonOf(error)})`;
    }
    if (problem === undefined) {
      if (areRagged(items)) this.#padding = "right";
      if (areDistinct(answers) || ++this.#unclearTrials >= MAX_UNCLEAR_TRIALS) this.#rows = "independent";
    } else if (areRagged(items)) {
      this.#padding = "off";
      this.notes.push(`texts of different lengths run apart: with filler behind them, ${problem}`);
    } else this.#runSingly(problem + this.#adviceOnAxis);
    return alone;
  }

  /** What is wrong with the answers of a batch; undefined where they are those of its requests alone. */
  #compare(items: readonly Item[], alone: readonly Tensors[], together: Tensors): string | undefined {
    const total = typeof this.plan.rows === "number" ? this.plan.rows : countAll(items);
    const longest = Math.max(...items.map(({ length }) => length));
    const isRagged = areRagged(items);
    const divided = this.#divide(together, total);
    if (divided) {
      const differs = alone.some((answer, at) =>
        Object.entries(answer).some(([name, tensor]) => !areAlike(tensor, divided[at]![name]!)),
      );
      return differs ? "the answers depend on what else is in the batch" : undefined;
    }
    for (const [name, tensor] of Object.entries(together)) {
      if (this.file.constantOutputs.has(name)) continue;
      const parts = alone.map((answer) => answer[name]!);
      const isPossible = (axis: number) =>
        tensor.dims[axis] === total && parts.every(({ dims }, at) => dims[axis] === items[at]!.rows);
      const declared = this.outputAxis(name);
      const candidates = [...new Set([declared ?? 0, ...tensor.dims.keys()])].filter(isPossible);
      if (candidates.length === 0)
        return `its output "${name}" of shape [${tensor.dims.join(", ")}] can't be divided among ${total} rows`;
      const found = candidates.find((axis) => {
        const growsWithLength = (size: number, at: number) =>
          at !== axis &&
          size === longest &&
          parts.every(({ dims }, index) => dims[at] === items[index]!.length);
        const lengthAxis = isRagged ? tensor.dims.findIndex(growsWithLength) : -1;
        let start = 0;
        const isAlike = parts.every((part, at) => {
          const { rows, length } = items[at]!;
          const own = sliceRows(tensor, axis, start, (start += rows));
          return areAlike(part, lengthAxis < 0 ? own : sliceRows(own, lengthAxis, 0, length));
        });
        if (isAlike && lengthAxis >= 0) this.#lengthAxes.set(name, lengthAxis);
        return isAlike;
      });
      if (found === undefined)
        return `the answers in its output "${name}" depend on what else is in the batch`;
      this.#outputAxes.set(name, found);
    }
    return undefined;
  }

  /** Where the batch axis was read from shapes that leave another choice. */
  get #adviceOnAxis(): string {
    const isFree = ({ name, shape }: TensorDescription) =>
      shape.some((dim, axis) => typeof dim === "string" && axis !== this.plan.axes.get(name));
    return this.plan.isRead && this.inputs.some(isFree)
      ? "; if its batch axis is another one, batch names it"
      : "";
  }

  #runSingly(reason: string): void {
    this.#rows = "dependent";
    this.#dependence = reason;
    this.#limit = 1;
    this.notes.push(`max_batch_size is 1 for this model, whatever is configured: ${reason}`);
  }

  /**
   * Measures which batch takes the least time for a request, among 1, 2, 4 … and the limit, and makes it the limit.
   * @param budgetMs a size of which a run would take longer than what is left of it is not tried
   */
  async measure(samples: readonly InputTensors[], budgetMs: number): Promise<void> {
    if (this.#limit === 1 || this.plan.rows !== "any" || this.#rows !== "independent") return;
    const endsAt = performance.now() + budgetMs;
    const times: { size: number; ms: number }[] = [];
    for (const size of sizesUpTo(this.#limit)) {
      const expectedMs = (times.at(-1)?.ms ?? 0) * size;
      if (size > 2 && performance.now() + expectedMs > endsAt) break;
      const ms = await this.#timePerRow(samples, size, budgetMs / 10);
      if (ms === undefined) break;
      times.push({ size, ms });
    }
    const best = times.reduce((a, b) => (b.ms < WORTH_IT * a.ms ? b : a));
    this.#limit = best.size;
    const measured = times.map(
      ({ size, ms }) => `${Number(ms.toPrecision(2))} ms for each in batches of ${size}`,
    );
    this.facts["batch size"] =
      `${best.size}, the fastest on this CPU (${measured.join(", ")}); max_batch_size sets another`;
  }

  /** The least of a few rounds; undefined where a batch of that size fails. */
  async #timePerRow(
    samples: readonly InputTensors[],
    size: number,
    enoughMs: number,
  ): Promise<number | undefined> {
    const startedAt = performance.now();
    let least = Infinity;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const roundStartedAt = performance.now();
      if (await this.#tryBatch(samples, size)) return undefined;
      const endedAt = performance.now();
      least = Math.min(least, (endedAt - roundStartedAt) / size);
      if (endedAt - startedAt > (round < 2 ? enoughMs : ENOUGH_MS)) break;
    }
    return least;
  }

  /** Runs as many of the samples as one batch. @returns why the model can't */
  #tryBatch(samples: readonly InputTensors[], size: number): Promise<Error | undefined> {
    const items = Array.from({ length: size }, (_, index): Item => {
      const inputs = samples[index % samples.length]!;
      return { index, inputs, rows: countRows(inputs, this.plan), length: this.#lengthOf(inputs) };
    });
    const run = { outputs: this.wantedOutputs };
    return this.#inTurn(async () => {
      try {
        if (size === 1) await this.#runSession(items[0]!.inputs, run);
        else await this.#runTogether(items, run);
        return undefined;
      } catch (error) {
        return error as Error;
      }
    });
  }
}

/** Rounds of one batch size that are timed, and the time after which three are enough. */
const MAX_ROUNDS = 10;
const ENOUGH_MS = 10;

function sizesUpTo(limit: number): number[] {
  const sizes: number[] = [];
  for (let size = 1; size < limit; size *= 2) sizes.push(size);
  return [...sizes, limit];
}

/** A larger batch must save at least this share of the time: it also makes requests wait for each other. */
const WORTH_IT = 0.97;

type Runtime = Awaited<ReturnType<typeof loadRuntime>>;

interface Run {
  outputs: readonly string[];
  /** Of made-up inputs, to find out what is right. */
  isTrial?: boolean;
  trace?: BatchTrace | undefined;
}

const newArray =
  (type: NumberType) =>
  (length: number): NumberArray =>
    new TENSOR_ARRAYS[type](length);

function areRagged(items: readonly Item[]): boolean {
  return items.some(({ length }) => length !== items[0]!.length);
}

function countAll(items: readonly Item[]): number {
  return items.reduce((sum, { rows }) => sum + rows, 0);
}

function groupBy<T>(items: readonly T[], keyOfItem: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOfItem(item);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}

function mapTensors(tensors: Tensors, change: (tensor: TensorValue, name: string) => TensorValue): Tensors {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, change(tensor, name)]));
}

/** Whether the answers of any two requests differ in an output: only then does a batch show that they stay apart. */
function areDistinct(answers: readonly Tensors[]): boolean {
  return answers.some((answer) =>
    Object.entries(answer).some(([name, tensor]) => !areAlike(tensor, answers[0]![name]!)),
  );
}
