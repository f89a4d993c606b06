/**
 * Base of the loaders that run an ONNX model: any graph, named tensors in, named tensors out. It opens the model on
 * its device, runs the requests of a batch together as far as that is right, and gives each its outputs. A subclass
 * says how a request becomes tensors, and what the outputs mean.
 */
import { basename } from "node:path";
import { z } from "zod";
import { usesCores } from "../../core/devices.ts";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import type { RequestDictionary, ResponseDictionary } from "../../core/request.ts";
import { BaseModelLoader, type BatchTrace, type Outcome } from "../BaseModelLoader.ts";
import type { BatchOption } from "./batchPlan.ts";
import { predictAlone } from "../outcomes.ts";
import { OnnxGraph, type GraphOptions } from "./OnnxGraph.ts";
import type { InputTensors } from "./rows.ts";
import { sampleSets } from "./samples.ts";

/** Options of loaders whose users know more of the graph than its file says. */
export const onnxOptions = z.object({
  batch: z
    .union([z.enum(["auto", "none"]), z.strictObject({ axis: z.int().min(0) })], {
      error: 'must be "auto", "none" or {"axis": <number>}',
    })
    .default("auto")
    .meta({
      description:
        'Where the inputs have their batch axis. auto: read from their shapes. none: every request runs alone. {"axis": 1}: the second dimension, of every input that has it free. Whatever it says, requests share a run only after a trial has shown that their answers are the same.',
    }),
});

/** Time for the measurement of batch sizes, in milliseconds; a model has it once, before the first request. */
const MEASURING_MS = 1500;

export abstract class OnnxModelLoader extends BaseModelLoader {
  /** The model of `model_path[0]`; ready after `load()`. */
  protected graph!: OnnxGraph;
  /** What was found at load and decided, for `describe()`; those of the graphs are added to them. */
  protected readonly notes: string[] = [];
  readonly #graphs: OnnxGraph[] = [];

  /**
   * The named tensors of a request, one for each input of the graph, batch axis included: usually one row.
   * `override async preprocessing(request: RequestDictionary): Promise<InputTensors>`
   * @throws BadInputError for a request that can't be used; it fails alone
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- pictures have parameters of their own
  override async preprocessing(..._input: any[]): Promise<any> {
    throw new Error(`${this.constructor.name} must override preprocessing()`);
  }

  /**
   * The response to a request, of the graph's outputs for its rows.
   * `override async postprocessing(outputs: Tensors, request: RequestDictionary): Promise<ResponseDictionary>`
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- pictures have parameters of their own
  override async postprocessing(..._output: any[]): Promise<any> {
    throw new Error(`${this.constructor.name} must override postprocessing()`);
  }

  /** Names of the outputs that `postprocessing` reads; the others are not even copied out of the model. Default: all. */
  protected wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    return outputs.map(({ name }) => name);
  }

  /** How the model of `model_path[0]` is run. */
  protected describeGraph(): Parameters<OnnxModelLoader["openGraph"]>[1] {
    return {
      batch: (this.settings["batch"] as BatchOption | undefined) ?? "auto",
      wantedOutputs: (outputs) => this.wantedOutputs(outputs),
    };
  }

  /** @throws Error where the file or the device can't be used */
  override async load(): Promise<void> {
    this.graph = await this.openGraph(this.settings.model_path[0], this.describeGraph());
  }

  /**
   * Opens a further model on the device of this engine; `close()` releases it.
   * @throws Error where there is no such file, or where the device was asked for and can't be used
   */
  protected async openGraph(
    file: string | undefined,
    options: Partial<Pick<GraphOptions, "batch" | "maxBatchSize" | "wantedOutputs" | "divide">> = {},
  ): Promise<OnnxGraph> {
    const { device, intra_op_threads: intraOpThreads, max_batch_size: maxBatchSize } = this.settings;
    const graph = await OnnxGraph.open(file, {
      modelName: this.modelName,
      device,
      intraOpThreads,
      maxBatchSize,
      ...options,
    });
    this.#graphs.push(graph);
    return graph;
  }

  override predictRequest(request: RequestDictionary): Promise<ResponseDictionary> {
    return predictAlone(this, request);
  }

  override async predictRequests(
    requests: readonly RequestDictionary[],
    trace: BatchTrace,
  ): Promise<Outcome[]> {
    const startedAt = performance.now();
    const prepared = await Promise.all(
      requests.map((request) => orError<InputTensors>(() => this.preprocessing(request))),
    );
    trace.preprocess_ms += performance.now() - startedAt;
    const answers = await this.graph.run(
      prepared.filter((tensors): tensors is InputTensors => !(tensors instanceof Error)),
      trace,
    );
    const finishingStartedAt = performance.now();
    const outcomes = await Promise.all(
      prepared.map(async (tensors, index) => {
        const answer = tensors instanceof Error ? tensors : answers.shift()!;
        if (answer instanceof Error) return answer;
        return orError<ResponseDictionary>(() => this.postprocessing(answer, requests[index]!));
      }),
    );
    trace.postprocess_ms += performance.now() - finishingStartedAt;
    return outcomes;
  }

  /** True: the requests of the next batch are prepared while one runs; the runs themselves take turns. */
  override get overlaps(): boolean {
    return true;
  }

  override get batchLimit(): number {
    return this.graph.limit;
  }

  /** Sets of three requests of one row to try the model with, until it runs one of them. Default: made up from the shapes. */
  protected warmUpSamples(): Iterable<readonly InputTensors[]> {
    return sampleSets(this.graph.inputs, this.graph.plan);
  }

  /**
   * Runs the model on made-up inputs, so that lazy initialisation is paid for, and finds out what batches it can run.
   * A model that can't run any of them serves nevertheless: they may be at fault.
   */
  override async warmUp(): Promise<void> {
    let reason = "";
    for (const samples of this.warmUpSamples()) {
      const failed = await this.graph.try(samples[0]!);
      if (!failed) return this.tuneBatches(samples);
      reason ||= failed.message;
    }
    if (this.graph.limit > 1)
      this.notes.push(
        `batches are tried with the first requests: it didn't run on made-up inputs (${reason})`,
      );
  }

  /**
   * Finds out with these requests, which the model can run, whether rows come out of a batch as they come out alone, and
   * on the CPU which batch size is the fastest, unless max_batch_size sets it.
   */
  protected async tuneBatches(samples: readonly InputTensors[]): Promise<void> {
    await this.graph.check(samples);
    if (usesCores(this.settings.device) && this.settings.measures_batch_size)
      await this.graph.measure(samples, MEASURING_MS);
    else await this.graph.checkFullBatch(samples);
    await this.graph.shrink();
    if (samples[0]) await this.graph.try(samples[0]);
  }

  override async close(): Promise<void> {
    await Promise.all(this.#graphs.splice(0).map((graph) => graph.close()));
  }

  override describe(): LoaderDescription {
    const { inputs, outputs, facts } = this.graph;
    const notes = [
      ...this.notes,
      ...this.#graphs.flatMap((graph, index) =>
        graph.notes.map((note) =>
          index === 0 ? note : `${basename(this.settings.model_path[index] ?? "")}: ${note}`,
        ),
      ),
    ];
    return {
      labels: this.settings.class_names,
      picture: "none",
      tensors: { inputs, outputs },
      ...(notes.length > 0 && { notes }),
      ...(Object.keys(facts).length > 0 && { facts }),
    };
  }
}

async function orError<T>(work: () => Promise<T>): Promise<T | Error> {
  try {
    return await work();
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
