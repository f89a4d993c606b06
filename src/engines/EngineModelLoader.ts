/** A loader that runs in an engine of its own, used like one of this process: for `executeModel` and the command line. */
import { DEFAULT_MAX_BATCH_SIZE } from "../config/schema.ts";
import type { LoaderDescription } from "../core/description.ts";
import { attachOutputs, inputsOf, type RequestDictionary, type ResponseDictionary } from "../core/request.ts";
import { picturesOf } from "../imil/requestPictures.ts";
import { EngineLostError, LoaderError, PredictionTimeoutError } from "../errors.ts";
import { BaseModelLoader, type BatchTrace, type Outcome } from "../loaders/BaseModelLoader.ts";
import type { LoaderSpec } from "../loaders/loaderSpec.ts";
import { predictAlone } from "../loaders/outcomes.ts";
import { EngineChild } from "./engineChild.ts";
import { fromWire, type FromEngine, type Member, type MemberOutcome } from "./protocol.ts";

const CLOSE_LIMIT_MS = 5000;

interface Waiting {
  resolve(outcome: Outcome): void;
  trace: BatchTrace;
}

export class EngineModelLoader extends BaseModelLoader {
  readonly #spec: LoaderSpec;
  readonly #roots: Readonly<Record<string, string>>;
  readonly #waiting = new Map<number, Waiting>();
  #nextKey = 0;
  #child: EngineChild | undefined;
  #description: LoaderDescription = { labels: [], picture: "optional" };
  #batchLimit = 1;
  #silence: NodeJS.Timeout | undefined;
  #opened: { resolve(): void; reject(error: Error): void } | undefined;
  #closed: (() => void) | undefined;

  constructor(spec: LoaderSpec, roots: Readonly<Record<string, string>>) {
    const section = {
      ...spec.model,
      model_path: spec.modelPaths,
      class_names: [],
      device: spec.device,
      max_batch_size: spec.model.max_batch_size ?? DEFAULT_MAX_BATCH_SIZE,
      intra_op_threads: spec.intraOpThreads,
      max_picture_pixels: spec.maxPicturePixels,
    };
    super({ [spec.modelName]: section }, spec.modelName);
    this.#spec = spec;
    this.#roots = roots;
  }

  /** Starts the engine; resolves once its model is loaded. */
  override async load(): Promise<void> {
    const opened = new Promise<void>((resolve, reject) => (this.#opened = { resolve, reject }));
    this.#child = new EngineChild(
      { ...this.#spec, inputs: { folder: "", roots: this.#roots } },
      {
        message: (message) => this.#receive(message),
        line: (line) => console.error(line),
        exited: (how) => this.#exited(how),
      },
    );
    return opened;
  }

  override get overlaps(): boolean {
    return true;
  }

  override get batchLimit(): number {
    return this.#batchLimit;
  }

  override describe(): LoaderDescription {
    return this.#description;
  }

  override predictRequest(request: RequestDictionary): Promise<ResponseDictionary> {
    return predictAlone(this, request);
  }

  override async predictRequests(
    requests: readonly RequestDictionary[],
    trace: BatchTrace,
  ): Promise<Outcome[]> {
    // An engine that was lost is replaced by the next who asks.
    if (!this.#child) await this.load();
    const members = requests.map((request) => toMember(this.#nextKey++, request));
    const outcomes = members.map(
      ({ key }) => new Promise<Outcome>((resolve) => this.#waiting.set(key, { resolve, trace })),
    );
    this.#watchTime();
    this.#child!.sendChunk(members, false);
    return Promise.all(outcomes);
  }

  override async close(): Promise<void> {
    const child = this.#child;
    if (!child || child.isGone) return;
    const closed = new Promise<void>((resolve) => (this.#closed = resolve));
    child.sendClose();
    const limit = setTimeout(() => child.kill(), CLOSE_LIMIT_MS);
    await closed;
    clearTimeout(limit);
  }

  #receive(message: FromEngine): void {
    if (message.type === "ready") {
      this.#description = message.description;
      this.#batchLimit = message.batchLimit;
      this.#opened?.resolve();
    } else if (message.type === "load_failed") {
      this.#opened?.reject(fromWire(message.error));
      this.#child?.kill();
    } else if (message.type === "batch_limit") {
      this.#batchLimit = message.batchLimit;
      console.error(
        `${this.modelName}: out of memory, batches hold ${message.batchLimit}: ${message.reason}`,
      );
    } else {
      if (message.type === "outcomes") for (const outcome of message.outcomes) this.#settle(outcome);
      this.#watchTime();
    }
  }

  #settle({ key, response, outputs = [], error, timings }: MemberOutcome): void {
    const waiting = this.#waiting.get(key);
    if (!waiting) return;
    this.#waiting.delete(key);
    waiting.trace.preprocess_ms += timings.preprocess_ms;
    waiting.trace.infer_ms += timings.infer_ms;
    waiting.trace.postprocess_ms += timings.postprocess_ms;
    if (error) waiting.resolve(fromWire(error));
    else waiting.resolve(outputs.length > 0 ? attachOutputs(response!, outputs) : response!);
  }

  #watchTime(): void {
    clearTimeout(this.#silence);
    if (this.#waiting.size === 0) return;
    const { timeout_ms: timeoutMs } = this.#spec.model;
    this.#silence = setTimeout(() => {
      this.#failAll(new PredictionTimeoutError(`it ran longer than its timeout_ms of ${timeoutMs}`));
      this.#child?.kill();
    }, timeoutMs);
  }

  #exited(how: string): void {
    this.#child = undefined;
    clearTimeout(this.#silence);
    this.#opened?.reject(new LoaderError(`the engine ${how} while it loaded its model`));
    this.#failAll(new EngineLostError(`the engine ${how} while it ran this prediction`));
    this.#closed?.();
  }

  #failAll(error: Error): void {
    for (const waiting of this.#waiting.values()) waiting.resolve(error);
    this.#waiting.clear();
  }
}

/**
 * Its pictures as bytes, which need no base64 on the way.
 * @throws BadInputError where `Base_64` is no base64
 */
function toMember(key: number, request: RequestDictionary): Member {
  const attached = inputsOf(request);
  const inputs =
    attached.length > 0
      ? attached.map(({ name, mediaType, bytes }) => ({ name, media_type: mediaType, bytes }))
      : picturesOf(request).map((bytes) => ({ bytes }));
  const { Base_64: _, ...others } = Object.getOwnPropertyDescriptors(request);
  return { key, inputs, request: Object.defineProperties({}, others) };
}
