/**
 * Base of the loaders that run an ONNX model on pictures. It opens the model on
 * its device, stacks pictures into batches, runs them and splits the output; a
 * subclass says how one picture becomes one tensor and one row of output findings.
 */
import { deviceAdvice, executionProvider } from "../../core/devices.ts";
import { access } from "node:fs/promises";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { BadInputError } from "../../errors.ts";
import { BaseModelLoader, type BatchTrace } from "../BaseModelLoader.ts";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import type { Finding, PredictionRequest, PredictionResponse } from "../../imil/dictionaries.ts";
import { keepClasses } from "../labels.ts";
import {
  createTensorWriter,
  decodePicture,
  fromHalf,
  TENSOR_ARRAYS,
  writeTensor,
  type DecodedPicture,
  type DecodeOptions,
  type PictureElementType,
  type PictureSize,
  type TensorData,
  type TensorFormat,
  type TensorWriter,
} from "./picture.ts";
import { attachPictures, picturesOf } from "../../imil/requestPictures.ts";
import { buildResponse } from "../../imil/response.ts";

/** The picture input of a model, as its metadata describes it. */
export interface PictureInput {
  name: string;
  type: PictureElementType;
  layout: "nchw" | "nhwc";
  channels: 1 | 3;
  /** Rows that one run must take: a number, `any`, or `none` where the tensor has no batch axis at all. */
  batch: number | "any" | "none";
  /** Undefined where the side is free. */
  width: number | undefined;
  height: number | undefined;
}

/** The part of a tensor's format that the model's metadata can't say. A model of one channel gets grey whatever `channels` is. */
export type NormalisationFormat = Omit<TensorFormat, "layout" | "channels"> & { channels?: "rgb" | "bgr" };

/** One output of the model for one picture. */
export interface RowOutput {
  /** float16 as float32, 64-bit integers as float64 (exact up to 2⁵³), everything else as it is. */
  data:
    | Float32Array
    | Float64Array
    | Int8Array
    | Uint8Array
    | Int16Array
    | Uint16Array
    | Int32Array
    | Uint32Array;
  /** Shape without the batch axis. */
  dims: readonly number[];
}

/** The outputs of the model for one picture, by name. */
export type OutputRow = Readonly<Record<string, RowOutput>>;

/** A picture on its way through the model, and what became of it. */
interface Row {
  request: PredictionRequest;
  picture: DecodedPicture;
  findings?: Finding[];
  error?: Error;
}

const PICTURE_TYPES: readonly string[] = ["float32", "float16", "uint8"] satisfies PictureElementType[];

/** What became of one request: its response dictionary, or the error that it failed with. */
export type PictureOutcome = PredictionResponse | Error;

export abstract class OnnxPictureModelLoader extends BaseModelLoader {
  /** Whether the findings of this class index are wanted (`classes`); ready after `load()`. */
  protected keepsClass: (classIndex: number) => boolean = () => true;
  #sessions: InferenceSession[] = [];
  #ort!: typeof import("onnxruntime-node");
  #input!: PictureInput;
  #inputSize!: PictureSize;
  #outputs!: readonly TensorDescription[];
  #wantedOutputs!: readonly string[];
  #writer!: TensorWriter;
  /** Reused by every run. Runs take turns, so that no run overwrites what another still reads. */
  #batchBuffer: TensorData | undefined;
  #lastTurn: Promise<unknown> = Promise.resolve();

  /**
   * How one picture becomes one tensor; usually `return this.decode(picture, "letterbox")`.
   * @throws BadInputError for a picture that can't be used; it fails its own request only.
   */
  abstract override preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture>;

  /** What one row of the model's output means; `picture` is what `preprocessing` returned for it. */
  abstract override postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]>;

  /** How pixels become numbers, where the default (÷ 255, no mean, in RGB order or grey as the input has it) doesn't fit. */
  protected tensorFormat(_input: PictureInput): NormalisationFormat {
    return {};
  }

  /** Width and height of the tensor where neither the model nor `input_image_size` says it. */
  protected get defaultInputSize(): PictureSize {
    return { width: 224, height: 224 };
  }

  /** Names of the outputs that `postprocessing` reads; the others are not even copied out of the model. Default: all. */
  protected wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    return outputs.map(({ name }) => name);
  }

  /** Width and height of the tensor: `input_image_size`, else the model's own, else `defaultInputSize`. Ready after `load()`. */
  protected get inputSize(): PictureSize {
    return this.#inputSize;
  }

  /** What a request needs beside its picture, for the warm-up. */
  protected get warmUpRequest(): PredictionRequest {
    return {};
  }

  /** Decodes a picture to the model's input size, within `max_picture_pixels`. */
  protected decode(
    picture: Buffer,
    fit: DecodeOptions["fit"],
    options: Partial<DecodeOptions> = {},
  ): Promise<DecodedPicture> {
    return decodePicture(picture, {
      size: this.inputSize,
      maxPixels: this.settings.max_picture_pixels,
      fit,
      ...options,
    });
  }

  /** The label of a class index, or the index itself where `class_names` is empty. */
  protected labelOf(classIndex: number): string {
    return this.settings.class_names[classIndex] ?? String(classIndex);
  }

  /**
   * Opens `model_path[0]` on the device.
   * @throws Error where the file, the device or the model's input can't be used.
   */
  override async load(): Promise<void> {
    this.keepsClass = this.#naming("classes", () =>
      keepClasses(this.settings.classes, this.settings.class_names),
    );
    const session = await this.openSession(this.settings.model_path[0]);
    this.#input = this.#naming("model_path[0]", () =>
      readPictureInput(describeTensors(session.inputMetadata)),
    );
    this.#inputSize = this.#naming("input_image_size", () => this.#resolveInputSize());
    const given = this.tensorFormat(this.#input);
    const channels = this.#input.channels === 1 ? "grey" : (given.channels ?? "rgb");
    const format: TensorFormat = { ...given, channels, layout: this.#input.layout };
    this.#writer = this.#naming("", () => createTensorWriter(format, this.#input.type));
    this.#outputs = describeTensors(session.outputMetadata);
    this.#wantedOutputs = this.#naming("model_path[0]", () => this.wantedOutputs(this.#outputs));
  }

  /**
   * Opens a further model on the device of this engine; `close()` releases it.
   * @throws Error where there is no such file, or where the device was asked for and can't be used: a model never
   * falls back to the CPU without a word.
   */
  protected async openSession(file: string | undefined): Promise<InferenceSession> {
    if (file === undefined)
      throw new Error(`models.${this.modelName}.model_path must name an .onnx file, got an empty list`);
    await access(file).catch((error: unknown) => {
      throw new Error(`models.${this.modelName}.model_path names ${file}, which can't be read`, {
        cause: error,
      });
    });
    // Imported only here: a process that only lists or checks loaders must not load 46 MB of native code.
    this.#ort = await import("onnxruntime-node");
    const { device } = this.settings;
    try {
      const session = await this.#ort.InferenceSession.create(file, {
        executionProviders: [executionProvider(device)],
        intraOpNumThreads: this.settings.intra_op_threads,
        interOpNumThreads: 1,
        logSeverityLevel: 3,
      });
      this.#sessions.push(session);
      return session;
    } catch (error) {
      const reason = (error as Error).message.trim().split("\n")[0];
      if (device === "cpu") {
        throw new Error(`models.${this.modelName}.model_path: onnxruntime can't open ${file}: ${reason}`, {
          cause: error,
        });
      }
      const offered = this.#ort
        .listSupportedBackends()
        .map(({ name, bundled }) => (bundled ? name : `${name} (extra libraries)`));
      throw new Error(
        `models.${this.modelName}.device is "${device}", but onnxruntime can't open ${file} on it: ${reason}. ` +
          `This onnxruntime-node is built for ${offered.join(", ")}. ${deviceAdvice(device)}`,
        { cause: error },
      );
    }
  }

  override async predictRequest(request: PredictionRequest): Promise<PredictionResponse> {
    const [outcome] = await this.predictRequests([request], {
      preprocess_ms: 0,
      infer_ms: 0,
      postprocess_ms: 0,
    });
    if (outcome instanceof Error) throw outcome;
    return outcome!;
  }

  /** The findings of one picture; `confidenceThreshold` (0..1) takes the place of the request's `C_threshold`. */
  override async predict(
    picture: Buffer,
    confidenceThreshold?: number,
    request: PredictionRequest = {},
  ): Promise<Finding[]> {
    const threshold = confidenceThreshold === undefined ? {} : { C_threshold: confidenceThreshold };
    return (await this.predictRequest(attachPictures({ ...request, ...threshold }, [picture]))).Fs;
  }

  /**
   * Decodes the pictures of all requests at once, runs them in as few runs as the model and the shapes of the tensors
   * allow, and turns each row into findings. The findings of a request with several pictures come in the order of the
   * pictures, marked with the picture's index in `Info`. A picture or row that fails, fails its own request only.
   */
  override async predictRequests(
    requests: readonly PredictionRequest[],
    trace: BatchTrace,
  ): Promise<PictureOutcome[]> {
    const startedAt = new Date();
    const decodingStartedAt = performance.now();
    const decoded = await Promise.all(requests.map((request) => this.#decodePictures(request)));
    trace.preprocess_ms += performance.now() - decodingStartedAt;

    const rows = decoded.map((pictures, index): Row[] | Error =>
      pictures instanceof Error
        ? pictures
        : pictures.map((picture) => ({ request: requests[index]!, picture })),
    );
    await this.#inTurn(() =>
      this.#runRows(
        rows.flatMap((own) => (own instanceof Error ? [] : own)),
        trace,
      ),
    );

    return rows.map((own, index) => {
      if (own instanceof Error) return own;
      const failed = own.find((row) => row.error)?.error;
      if (failed) return failed;
      const findings = own.flatMap((row, picture) =>
        own.length === 1
          ? row.findings!
          : row.findings!.map((finding) => ({ ...finding, Info: String(picture) })),
      );
      return buildResponse(requests[index]!, findings, { model: this.modelName, startedAt });
    });
  }

  async #decodePictures(request: PredictionRequest): Promise<DecodedPicture[] | Error> {
    try {
      const pictures = picturesOf(request);
      if (pictures.length === 0)
        throw new BadInputError(`the model "${this.modelName}" needs a picture, the request has none`);
      return await Promise.all(pictures.map((picture) => this.preprocessing(picture, request)));
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  async #runRows(rows: readonly Row[], trace: BatchTrace): Promise<void> {
    const byShape = new Map<string, Row[]>();
    for (const row of rows) {
      const { width, height } = row.picture.canvas;
      const group = byShape.get(`${width}×${height}`);
      if (group) group.push(row);
      else byShape.set(`${width}×${height}`, [row]);
    }
    for (const group of byShape.values()) {
      for (let start = 0; start < group.length; start += this.#rowsPerRun) {
        await this.#runBatch(group.slice(start, start + this.#rowsPerRun), trace);
      }
    }
  }

  /** Runs rows of one shape and gives each its findings or its error. */
  async #runBatch(rows: readonly Row[], trace: BatchTrace): Promise<void> {
    const stackingStartedAt = performance.now();
    const input = this.#stack(rows);
    const runStartedAt = performance.now();
    const outputs = await this.#sessions[0]!.run({ [this.#input.name]: input }, [...this.#wantedOutputs]);
    const runEndedAt = performance.now();
    const splitRow = this.#splitOutputs(outputs, input.dims[0]!);
    for (const [index, row] of rows.entries()) {
      try {
        row.findings = await this.postprocessing(splitRow(index), row.picture, row.request);
      } catch (error) {
        row.error = error instanceof Error ? error : new Error(String(error));
      }
    }
    trace.preprocess_ms += runStartedAt - stackingStartedAt;
    trace.infer_ms += runEndedAt - runStartedAt;
    trace.postprocess_ms += performance.now() - runEndedAt;
  }

  /** Writes the rows into the batch buffer. A model of a fixed batch gets the last row again until it is full. */
  #stack(rows: readonly Row[]): Tensor {
    const { batch, channels, layout, type } = this.#input;
    const { width, height } = rows[0]!.picture.canvas;
    const elements = channels * width * height;
    const count = typeof batch === "number" ? batch : rows.length;
    if (this.#batchBuffer === undefined || this.#batchBuffer.length < count * elements) {
      this.#batchBuffer = new TENSOR_ARRAYS[type](count * elements);
    }
    const buffer = this.#batchBuffer;
    for (let row = 0; row < count; row++) {
      if (row < rows.length) writeTensor(rows[row]!.picture, this.#writer, buffer, row * elements);
      else buffer.copyWithin(row * elements, (row - 1) * elements, row * elements);
    }
    const shape = layout === "nchw" ? [channels, height, width] : [height, width, channels];
    const dims = batch === "none" ? shape : [count, ...shape];
    return new this.#ort.Tensor(type, buffer.subarray(0, count * elements), dims);
  }

  /** Divides the outputs of a run along the batch axis; an output that has none goes whole to the only row. */
  #splitOutputs(outputs: InferenceSession.OnnxValueMapType, batch: number): (row: number) => OutputRow {
    const whole = Object.entries(outputs).map(([name, tensor]) => {
      const declared = this.#outputs.find((output) => output.name === name)!.shape[0];
      // In a model of a fixed batch, a free first dimension counts something else, such as the boxes that were found.
      const hasBatchAxis =
        typeof this.#input.batch === "number" ? typeof declared === "number" : this.#input.batch === "any";
      const isBatched = hasBatchAxis && tensor.dims[0] === batch;
      if (!isBatched && this.#rowsPerRun > 1 && batch > 1) {
        throw new Error(
          `the output "${name}" of shape [${tensor.dims.join(", ")}] can't be divided among a batch of ${batch}; set max_batch_size to 1`,
        );
      }
      const rows = isBatched ? batch : 1;
      const data = toNumbers(name, tensor);
      return {
        name,
        data,
        dims: isBatched ? tensor.dims.slice(1) : tensor.dims,
        rows,
        length: data.length / rows,
      };
    });
    return (row) =>
      Object.fromEntries(
        whole.map(({ name, data, dims, rows, length }) => {
          const start = rows === 1 ? 0 : row * length;
          return [name, { data: data.subarray(start, start + length), dims }];
        }),
      );
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lastTurn.then(work);
    this.#lastTurn = turn.catch(() => {});
    return turn;
  }

  get #rowsPerRun(): number {
    const { batch } = this.#input;
    if (batch === "none") return 1;
    return batch === "any" ? this.settings.max_batch_size : batch;
  }

  /** True: the pictures of the next batch are decoded while one runs; the runs themselves take turns. */
  override get overlaps(): boolean {
    return true;
  }

  override get batchLimit(): number {
    return Math.min(this.#rowsPerRun, this.settings.max_batch_size);
  }

  /**
   * Sends a plain picture through the whole way, alone and as a full batch, so that lazy initialisation is paid for
   * and a model that doesn't fit its configuration is found out at start.
   */
  override async warmUp(): Promise<void> {
    const { default: sharp } = await import("sharp");
    const grey = { ...this.inputSize, channels: 3, background: "#808080" } as const;
    const picture = await sharp({ create: grey }).png().toBuffer();
    for (const count of new Set([1, this.batchLimit])) {
      const requests = Array.from({ length: count }, () =>
        attachPictures({ ...this.warmUpRequest }, [picture]),
      );
      const outcomes = await this.predictRequests(requests, {
        preprocess_ms: 0,
        infer_ms: 0,
        postprocess_ms: 0,
      });
      // A BadInputError only says that this loader wants more of a request than a picture.
      const failed = outcomes.find(
        (outcome) => outcome instanceof Error && !(outcome instanceof BadInputError),
      );
      if (failed) throw failed;
    }
  }

  override async close(): Promise<void> {
    await this.#lastTurn;
    await Promise.all(this.#sessions.splice(0).map((session) => session.release()));
    this.#batchBuffer = undefined;
  }

  override describe(): LoaderDescription {
    return {
      labels: this.settings.class_names.filter((_label, index) => this.keepsClass(index)),
      picture: "required",
      tensors: { inputs: describeTensors(this.#sessions[0]!.inputMetadata), outputs: this.#outputs },
    };
  }

  #resolveInputSize(): PictureSize {
    const { width, height } = this.#input;
    const wanted = this.settings.input_image_size;
    if (!wanted)
      return { width: width ?? this.defaultInputSize.width, height: height ?? this.defaultInputSize.height };
    if ((width ?? wanted[0]) !== wanted[0] || (height ?? wanted[1]) !== wanted[1]) {
      throw new Error(
        `must be [${width ?? "any"}, ${height ?? "any"}] (width, height), which is what the model takes, got [${wanted.join(", ")}]`,
      );
    }
    return { width: wanted[0], height: wanted[1] };
  }

  /** Runs `work` and says in front of its error which setting it speaks of. */
  #naming<T>(key: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      const setting = ["models", this.modelName, key].filter(Boolean).join(".");
      throw new Error(`${setting}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/** Names, element types and shapes of a model's inputs or outputs. */
export function describeTensors(metadata: readonly InferenceSession.ValueMetadata[]): TensorDescription[] {
  return metadata.map((value) =>
    value.isTensor
      ? { name: value.name, type: value.type, shape: value.shape }
      : { name: value.name, type: "not a tensor", shape: [] },
  );
}

/**
 * Reads how a model takes pictures: [N, C, H, W], [N, H, W, C], or one of them without N; C is 1 or 3, and where it is
 * free, 3 and first as PyTorch exports it.
 * @throws Error where the model takes something else.
 */
export function readPictureInput(inputs: readonly TensorDescription[]): PictureInput {
  const [input] = inputs;
  const shape = input?.shape ?? [];
  const text = inputs.map((each) => `${each.name}: ${each.type} [${each.shape.join(", ")}]`).join("; ");
  const fault = new Error(
    `OnnxPictureModelLoader runs models with one picture input, float32, float16 or uint8, of shape [N, 3, height, width] or ` +
      `[N, height, width, 3] (or 1 channel for grey, or without N), this one takes ${text || "nothing"}`,
  );
  if (!input || inputs.length !== 1 || !PICTURE_TYPES.includes(input.type)) throw fault;
  if (shape.length !== 3 && shape.length !== 4) throw fault;

  const [first, second, third] = shape.slice(-3) as [number | string, number | string, number | string];
  const isChannels = (dim: number | string) => dim === 1 || dim === 3;
  const layout = isChannels(first) || (typeof first === "string" && !isChannels(third)) ? "nchw" : "nhwc";
  const [channels, height, width] = layout === "nchw" ? [first, second, third] : [third, first, second];
  if (!isChannels(channels) && typeof channels !== "string") throw fault;
  const side = (dim: number | string) => (typeof dim === "number" ? dim : undefined);
  const batch = shape.length === 3 ? "none" : typeof shape[0] === "number" ? shape[0] : "any";
  return {
    name: input.name,
    type: input.type as PictureElementType,
    layout,
    channels: channels === 1 ? 1 : 3,
    batch,
    width: side(width),
    height: side(height),
  };
}

/** The numbers of a tensor: float16 as float32, 64-bit integers as float64. */
export function toNumbers(name: string, { type, data }: Tensor): RowOutput["data"] {
  if (Array.isArray(data))
    throw new Error(`the output "${name}" holds text, which OnnxPictureModelLoader doesn't read`);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return Float64Array.from(data, Number);
  if (type !== "float16") return data;
  // Node 20 and 22 have no Float16Array, so onnxruntime gives them the bits.
  return data instanceof Uint16Array
    ? Float32Array.from(data, fromHalf)
    : Float32Array.from(data as ArrayLike<number>);
}
