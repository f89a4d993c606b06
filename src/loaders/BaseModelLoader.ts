/**
 * The contract of a loader: one class for one kind of model. An engine builds
 * one instance, awaits `load()` and `warmUp()`, then calls `predictRequests`
 * with each batch. A loader knows nothing of HTTP, Redis or jobs.
 */
import type { ZodObject } from "zod";
import { BadInputError } from "../errors.ts";
import type { LoaderDescription } from "../core/description.ts";
import type { ResponseDictionary } from "../core/request.ts";
import type { Finding, PredictionRequest } from "../imil/dictionaries.ts";
import { buildResponse } from "../imil/response.ts";
import { picturesOf } from "../imil/requestPictures.ts";

/** One model's section of the configuration: the common keys, resolved, and the loader's own. */
export interface ModelSection {
  /** Files of the model, as absolute paths; sources such as `hf://` are fetched before a loader sees them. */
  readonly model_path: readonly string[];
  /** Labels by class index, read from the list or file that the configuration names. */
  readonly class_names: readonly string[];
  /** Labels or class indices to keep; empty keeps all. */
  readonly classes: readonly (string | number)[];
  /** Width and height in pixels that pictures are resized to; the loader decides where it is left out. */
  readonly input_image_size?: readonly [number, number] | undefined;
  /** `cpu`, `cuda:0` …: the one device of this engine. */
  readonly device: string;
  /** Threads that one run of the model uses (onnxruntime's intraOpNumThreads). */
  readonly intra_op_threads: number;
  readonly max_batch_size: number;
  /** Whether the configuration leaves `max_batch_size` to the loader, which may take less than it. */
  readonly measures_batch_size?: boolean;
  /** Most pixels (width × height) that a picture may decode to. */
  readonly max_picture_pixels: number;
  /** Most bytes that the pictures of one request may decode to. */
  readonly max_decoded_bytes?: number;
  readonly [key: string]: unknown;
}

/** The configuration as a loader sees it: the model sections by model name. */
export type LoaderConfig = Readonly<Record<string, ModelSection>>;

/** Where the time of one batch went, in milliseconds; a loader adds to it what it knows. */
export interface BatchTrace {
  preprocess_ms: number;
  infer_ms: number;
  postprocess_ms: number;
  /** Tells the worker that a long run continues: `timeout_ms` counts from there again. Cheap. */
  progress?(): void;
}

/** What became of one request of a batch: its response, or the error that it failed with. */
export type Outcome = ResponseDictionary | Error;

export interface LoaderClass {
  new (config: LoaderConfig, modelName: string): BaseModelLoader;
  readonly prototype: BaseModelLoader;
  /** The keys that this loader adds to its model's section, with defaults; checked at start. */
  readonly options?: ZodObject;
  /**
   * The labels by class index that this loader works with, from those that `class_names` gives (`[]` where it is left
   * out). Default: as they are.
   */
  labelsFrom?(given: readonly string[]): readonly string[];
  /** Whether it takes labels from the model's file where `class_names` is left out, so that `classes` is checked at load. */
  readonly readsLabels?: boolean;
}

export abstract class BaseModelLoader {
  /** This model's section of the configuration. */
  protected settings: ModelSection;
  protected readonly modelName: string;

  /**
   * Reads parameters from `config[modelName]`. Open files and models in `load()`,
   * since a constructor can't wait.
   */
  constructor(config: LoaderConfig, modelName: string) {
    const settings = config[modelName];
    if (!settings) throw new Error(`the configuration has no section for the model "${modelName}"`);
    this.settings = settings;
    this.modelName = modelName;
  }

  /** Opens the model; awaited once before the first request. */
  async load(): Promise<void> {}

  /** Author's hook: turns a picture into what `predict` runs. Not called by the base class. */
  // oxlint-disable-next-line typescript/no-explicit-any -- its parameters are the author's choice
  async preprocessing(..._input: any[]): Promise<any> {}

  /** Author's hook: turns what the model put out into findings. Not called by the base class. */
  // oxlint-disable-next-line typescript/no-explicit-any -- its parameters are the author's choice
  async postprocessing(..._output: any[]): Promise<any> {}

  /**
   * Preprocesses, runs and postprocesses one picture. The parameters are the author's choice; the base class's
   * `predictRequest` calls it once for each picture as `predict(picture, confidenceThreshold, request)` with the
   * picture's encoded bytes (of any of `PICTURE_FORMATS`) and a number from 0 to 1.
   */
  // oxlint-disable-next-line typescript/no-explicit-any -- its parameters are the author's choice
  async predict(..._input: any[]): Promise<Finding[]> {
    throw new Error(`${this.constructor.name} must override predict() or predictRequest()`);
  }

  /** The main driver: request dictionary in, response dictionary out. */
  async predictRequest(request: PredictionRequest): Promise<ResponseDictionary> {
    const startedAt = new Date();
    const pictures = picturesOf(request);
    if (pictures.length === 0)
      throw new BadInputError(`the model "${this.modelName}" needs a picture, the request has none`);
    const findings: Finding[] = [];
    for (const [index, picture] of pictures.entries()) {
      const found: unknown = await this.predict(picture, this.confidenceThreshold(request), request);
      if (!Array.isArray(found)) {
        throw new Error(
          `predict() of ${this.constructor.name} must return a list of findings, got ${JSON.stringify(found)}`,
        );
      }
      for (const finding of found as Finding[]) {
        findings.push(pictures.length === 1 ? finding : { ...finding, Info: String(index) });
      }
    }
    return buildResponse(request, findings, { model: this.modelName, startedAt });
  }

  /**
   * The batched twin of `predictRequest`: one outcome for each request, in the same order. An Error as an outcome
   * fails its own request only; an exception makes infermill try the two halves of the batch, down to the culprit.
   * The base class goes one by one; override it where the model takes a batch. It is called with at most
   * `max_batch_size` requests, and not again before it returned unless `overlaps` is true.
   */
  async predictRequests(requests: readonly PredictionRequest[], _trace: BatchTrace): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const request of requests) {
      try {
        outcomes.push(await this.predictRequest(request));
      } catch (error) {
        outcomes.push(error instanceof Error ? error : new Error(String(error)));
      }
    }
    return outcomes;
  }

  /** Whether `predictRequests` may be called for the next batch while one is still under way, to overlap decoding and running. */
  get overlaps(): boolean {
    return false;
  }

  /** Most requests that one call of `predictRequests` really runs together; 1 where it is not overridden. Read after `load()`. */
  get batchLimit(): number {
    return this.predictRequests === BaseModelLoader.prototype.predictRequests
      ? 1
      : this.settings.max_batch_size;
  }

  /** Runs the model once, so that the first prediction doesn't pay for lazy initialisation. */
  async warmUp(): Promise<void> {}

  /** Releases what `load()` opened. */
  async close(): Promise<void> {}

  /** What the model offers; called after `load()`. */
  describe(): LoaderDescription {
    return { labels: this.settings.class_names, picture: "optional" };
  }

  /**
   * `C_threshold` of the request as a number from 0 to 1, `fallback` where it has none.
   * @throws BadInputError where it is no number from 0 to 1.
   */
  protected confidenceThreshold(request: PredictionRequest, fallback = 0.5): number {
    const given = request.C_threshold;
    if (given === undefined || given === null || String(given).trim() === "") return fallback;
    const threshold = Number(given);
    if (!(threshold >= 0 && threshold <= 1)) {
      throw new BadInputError(
        `C_threshold must be a number from 0 to 1 (or one in a string), got ${JSON.stringify(given)}`,
      );
    }
    return threshold;
  }
}
