/**
 * Base of the loaders that run an ONNX model on pictures: it decodes the pictures of a batch, runs the model on all of
 * them and splits the output. A subclass says how one picture becomes one tensor, and what one row of output means.
 */
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import { attachOutputs, type Output, type ResponseDictionary } from "../../core/request.ts";
import { BadInputError, LoaderError } from "../../errors.ts";
import type { Finding, PredictionRequest, PredictionResponse } from "../../imil/dictionaries.ts";
import { attachPictures, picturesOf } from "../../imil/requestPictures.ts";
import { buildResponse } from "../../imil/response.ts";
import { writeTensors } from "../../tensors/dialect.ts";
import { toNumbers, type PlainNumbers } from "../../tensors/numbers.ts";
import { TENSOR_ARRAYS, type NumberType, type TensorValue, type Tensors } from "../../tensors/tensor.ts";
import type { BatchTrace } from "../BaseModelLoader.ts";
import { keepClasses } from "../labels.ts";
import type { BatchOption } from "../onnx/batchPlan.ts";
import type { OnnxGraph } from "../onnx/OnnxGraph.ts";
import { OnnxModelLoader } from "../onnx/OnnxModelLoader.ts";
import { stackRows, type InputTensors, type UnwrittenTensor } from "../onnx/rows.ts";
import { seeded } from "../onnx/samples.ts";
import { listTensors } from "../onnx/session.ts";
import { checkDecodedBytes } from "./decodingCost.ts";
import {
  createTensorWriter,
  decodePicture,
  writeTensor,
  type DecodedPicture,
  type DecodeOptions,
  type PictureElementType,
  type PictureSize,
  type TensorData,
  type TensorFormat,
  type TensorWriter,
} from "./picture.ts";

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
  data: PlainNumbers;
  /** Shape without the batch axis. */
  dims: readonly number[];
}

/** The outputs of the model for one picture, by name. */
export type OutputRow = Readonly<Record<string, RowOutput>>;

/** What a row of outputs means, where it is more than findings. */
export interface Interpretation {
  findings: Finding[];
  /** Pictures, masks, large tensors; attached to the response. */
  outputs?: readonly Output[];
  /** What the client should know, such as a list that was cut; `Warnings` of the response. */
  warnings?: readonly string[];
  /** Further keys of the response. */
  keys?: ResponseDictionary;
}

/** A picture on its way through the model, and what became of it. */
interface Row {
  request: PredictionRequest;
  /** Which of the request's pictures it is, or a part of. */
  index: number;
  picture: DecodedPicture;
  inputs: InputTensors;
  outputs?: Tensors;
  result?: Interpretation;
  error?: Error;
}

const PICTURE_TYPES: readonly string[] = ["float32", "float16", "uint8"] satisfies PictureElementType[];

/** What became of one request: its response dictionary, or the error that it failed with. */
export type PictureOutcome = PredictionResponse | Error;

export abstract class OnnxPictureModelLoader extends OnnxModelLoader {
  /** Whether the findings of this class index are wanted (`classes`); ready after `load()`. */
  protected keepsClass: (classIndex: number) => boolean = () => true;
  #input!: PictureInput;
  #inputSize!: PictureSize;
  #writer!: TensorWriter;

  /**
   * How one picture becomes one tensor; usually `return this.decode(picture, "letterbox")`. Several, such as its tiles,
   * become a row each, and `postprocessing` is called for each of them.
   * @throws BadInputError for a picture that can't be used; it fails its own request only.
   */
  abstract override preprocessing(
    picture: Buffer,
    request: PredictionRequest,
  ): Promise<DecodedPicture | readonly DecodedPicture[]>;

  /** What one row of the model's output means; `picture` is what `preprocessing` returned for it. */
  abstract override postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[] | Interpretation>;

  /** What the rows of one picture come to together, where `preprocessing` made several of it. Default: one after the other. */
  protected joinRows(rows: readonly Interpretation[]): Interpretation {
    return joinInterpretations(rows);
  }

  /** The pictures of a request that are rows of their own. Default: all. */
  protected picturesFor(request: PredictionRequest): readonly Buffer[] {
    return picturesOf(request);
  }

  /** How pixels become numbers, where the default (÷ 255, no mean, in RGB order or grey as the input has it) doesn't fit. */
  protected tensorFormat(_input: PictureInput): NormalisationFormat {
    return {};
  }

  /** Width and height of the tensor where neither the model nor `input_image_size` says it. */
  protected get defaultInputSize(): PictureSize {
    return { width: 224, height: 224 };
  }

  /**
   * The tensor of a further input of the graph for one picture, such as its original size: one row, batch axis included.
   * @returns undefined where this loader doesn't know such an input; the model is refused then
   */
  protected extraInput(_input: TensorDescription, _picture: DecodedPicture): TensorValue | undefined {
    return undefined;
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
      maxBytes: this.settings.max_decoded_bytes ?? Infinity,
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
    await super.load();
    this.#inputSize = this.#naming("input_image_size", () => this.#resolveInputSize());
    const given = this.tensorFormat(this.#input);
    const channels = this.#input.channels === 1 ? "grey" : (given.channels ?? "rgb");
    const format: TensorFormat = { ...given, channels, layout: this.#input.layout };
    this.#writer = this.#naming("", () => createTensorWriter(format, this.#input.type));
  }

  protected override describeGraph(): Parameters<OnnxModelLoader["openGraph"]>[1] {
    return {
      batch: (inputs) => {
        this.#input = this.#naming("model_path[0]", () => readPictureInput(inputs));
        return pictureBatch(this.#input);
      },
      wantedOutputs: (outputs) => this.#naming("model_path[0]", () => this.wantedOutputs(outputs)),
    };
  }

  override async predictRequest(request: PredictionRequest): Promise<PredictionResponse> {
    return (await super.predictRequest(request)) as PredictionResponse;
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
   * `parameters: {"raw": true}` in a request adds all outputs of the model, as they are, as `outputs`.
   */
  override async predictRequests(
    requests: readonly PredictionRequest[],
    trace: BatchTrace,
  ): Promise<PictureOutcome[]> {
    const startedAt = new Date();
    const decodingStartedAt = performance.now();
    const prepared = await Promise.all(requests.map((request) => this.#prepareRows(request)));
    trace.preprocess_ms += performance.now() - decodingStartedAt;

    const rows = prepared.flatMap((own) => (own instanceof Error ? [] : own));
    await this.#runRows(rows, trace);
    const finishingStartedAt = performance.now();
    for (const row of rows) await this.#finishRow(row);
    const outcomes = prepared.map((own, index) =>
      own instanceof Error ? own : this.#answer(requests[index]!, own, startedAt),
    );
    trace.postprocess_ms += performance.now() - finishingStartedAt;
    return outcomes;
  }

  async #prepareRows(request: PredictionRequest): Promise<Row[] | Error> {
    try {
      const pictures = this.picturesFor(request);
      if (pictures.length === 0)
        throw new BadInputError(`the model "${this.modelName}" needs a picture, the request has none`);
      checkDecodedBytes(pictures, this.settings.max_decoded_bytes ?? Infinity);
      const decoded = await Promise.all(pictures.map((picture) => this.preprocessing(picture, request)));
      return decoded.flatMap((parts, index) =>
        [parts].flat().map((picture) => ({ request, index, picture, inputs: this.#toInputs(picture) })),
      );
    } catch (error) {
      return toError(error);
    }
  }

  /** One row of every input of the graph. */
  #toInputs(picture: DecodedPicture): InputTensors {
    return Object.fromEntries(
      this.graph.inputs.map((input) => {
        if (input.name === this.#input.name)
          return [input.name, toTensor(picture, this.#input, this.#writer)];
        const extra = this.extraInput(input, picture);
        if (extra) return [input.name, extra];
        throw new LoaderError(
          `${this.constructor.name} doesn't know what the model's input "${input.name}" is to hold; it takes ${listTensors(this.graph.inputs)}`,
        );
      }),
    );
  }

  async #runRows(rows: readonly Row[], trace: BatchTrace): Promise<void> {
    const all = this.graph.outputs.map(({ name }) => name);
    const wanted = this.graph.wantedOutputs;
    const needsAll = (row: Row) => wantsRaw(row.request) && all.length > wanted.length;
    for (const [own, outputs] of [
      [rows.filter((row) => !needsAll(row)), wanted],
      [rows.filter(needsAll), all],
    ] as const) {
      if (own.length === 0) continue;
      const answers = await this.graph.run(
        own.map(({ inputs }) => inputs),
        trace,
        outputs,
      );
      for (const [index, row] of own.entries()) {
        const answer = answers[index]!;
        if (answer instanceof Error) row.error = answer;
        else row.outputs = answer;
      }
    }
  }

  async #finishRow(row: Row): Promise<void> {
    if (!row.outputs) return;
    try {
      const outputs = toOutputRow(this.graph, row.outputs);
      const result = await this.postprocessing(outputs, row.picture, row.request);
      row.result = Array.isArray(result) ? (BESIDE.get(result) ?? { findings: result }) : result;
    } catch (error) {
      row.error = toError(error);
    }
  }

  #answer(request: PredictionRequest, rows: readonly Row[], startedAt: Date): PictureOutcome {
    const failed = rows.find(({ error }) => error)?.error;
    if (failed) return failed;
    try {
      const response = this.#respond(request, rows, startedAt);
      return wantsRaw(request)
        ? (writeTensors(this.#joinOutputs(rows), response) as PredictionResponse)
        : response;
    } catch (error) {
      return toError(error);
    }
  }

  #respond(request: PredictionRequest, rows: readonly Row[], startedAt: Date): PredictionResponse {
    const count = rows.at(-1)!.index + 1;
    const results = Array.from({ length: count }, (_, picture) => {
      const own = rows.filter(({ index }) => index === picture).map(({ result }) => result!);
      const result = own.length === 1 ? own[0]! : this.joinRows(own);
      return count === 1 ? result : ofPicture(result, picture);
    });
    const { findings, outputs = [], keys, ...joined } = joinInterpretations(results);
    const warnings = [...rows.flatMap(({ picture }) => picture.warnings ?? []), ...(joined.warnings ?? [])];
    const response = buildResponse(request, findings, { model: this.modelName, startedAt });
    Object.assign(response, keys);
    if (warnings.length > 0) response["Warnings"] = [...new Set(warnings)];
    return outputs.length > 0 ? attachOutputs(response, outputs) : response;
  }

  /** The outputs of all pictures of a request, one row behind the other. */
  #joinOutputs(rows: readonly Row[]): Tensors {
    return Object.fromEntries(
      Object.entries(rows[0]!.outputs!).map(([name, first]) => {
        if (rows.length === 1) return [name, first];
        const axis = this.graph.outputAxis(name);
        const parts = rows.map(({ outputs }) => outputs![name]!);
        const isAlike = parts.every(({ dims }) =>
          dims.every((dim, at) => at === axis || dim === first.dims[at]),
        );
        if (axis === undefined || !isAlike)
          throw new BadInputError(
            `the output "${name}" can't be joined for several pictures; send them in requests of their own for raw outputs`,
          );
        const count = parts.reduce((sum, { dims }) => sum + dims[axis]!, 0);
        const newArray = (length: number) => new TENSOR_ARRAYS[first.type as NumberType](length);
        return [name, stackRows(parts, axis, count, newArray)];
      }),
    );
  }

  /**
   * Sends plain pictures through the whole way, so that lazy initialisation is paid for and a model that doesn't fit its
   * configuration is found out at start; then tries what batches it can run. A graph that fails on what these pictures
   * show serves nevertheless.
   * @throws Error where what comes out of the model can't be read, whatever the picture
   */
  override async warmUp(): Promise<void> {
    const faults: { picture: string; error: Error }[] = [];
    let passed: string | undefined;
    for (const name of ["grey", "noise", "black", "white"] as const) {
      const picture = await madeUpPicture(name, this.inputSize);
      const request = attachPictures({ ...this.warmUpRequest }, [picture]);
      const trace = { preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 };
      const [outcome] = await this.predictRequests([request], trace);
      // A BadInputError only says that this loader wants more of a request than a picture.
      if (!(outcome instanceof Error) || outcome instanceof BadInputError) {
        passed = name;
        break;
      }
      faults.push({ picture: name, error: outcome });
    }
    const [first] = faults;
    if (passed === undefined) {
      const notOfTheData = faults.find(({ error }) => !isFaultOfData(error));
      if (notOfTheData) throw notOfTheData.error;
    }
    if (first) {
      const others = passed ? `, not on ${passed}` : ", and on every other that was made up";
      this.notes.push(`the model fails on a ${first.picture} picture${others}: ${first.error.message}`);
    }
    await this.tuneBatches(await this.#samples());
  }

  /** Rows as different as the rows of a batch can be. */
  async #samples(): Promise<InputTensors[]> {
    const request = { ...this.warmUpRequest };
    try {
      return await Promise.all(
        (["noise", "dark", "light"] as const).map(async (name) => {
          const decoded = await this.preprocessing(await madeUpPicture(name, this.inputSize), request);
          return this.#toInputs([decoded].flat()[0]!);
        }),
      );
    } catch (error) {
      if (error instanceof BadInputError) return [];
      throw error;
    }
  }

  override describe(): LoaderDescription {
    return {
      ...super.describe(),
      labels: this.settings.class_names.filter((_label, index) => this.keepsClass(index)),
      picture: "required",
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

const BESIDE = new WeakMap<readonly Finding[], Interpretation>();

/** The findings alone, as a list that a subclass can work on; as long as it is passed on as it is, the rest goes with it. */
export function asFindings(interpretation: Interpretation): Finding[] {
  BESIDE.set(interpretation.findings, interpretation);
  return interpretation.findings;
}

function joinInterpretations(rows: readonly Interpretation[]): Interpretation {
  return {
    findings: rows.flatMap(({ findings }) => findings),
    outputs: rows.flatMap(({ outputs }) => outputs ?? []),
    warnings: rows.flatMap(({ warnings }) => warnings ?? []),
    keys: Object.assign({}, ...rows.map(({ keys }) => keys)) as ResponseDictionary,
  };
}

/** Findings and outputs of one of several pictures, marked with its index. */
function ofPicture({ findings, outputs = [], ...rest }: Interpretation, picture: number): Interpretation {
  return {
    ...rest,
    findings: findings.map((finding) => ({ ...finding, Info: String(picture) })),
    outputs: outputs.map((output) => ({ ...output, name: `${picture}-${output.name}` })),
  };
}

/** What onnxruntime says where an operator can't work with what it gets, unlike where the inputs don't fit the model. */
function isFaultOfData(error: Error): boolean {
  return / while running \w+ node/.test(error.message);
}

function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

function wantsRaw({ parameters }: PredictionRequest): boolean {
  return (parameters as { raw?: unknown } | null | undefined)?.raw === true;
}

/** How pictures share a run of a model with this input. */
export function pictureBatch({ batch }: PictureInput): BatchOption {
  return batch === "none" ? "none" : { axis: 0 };
}

/** A picture as one row of a model's input. */
export function toTensor(
  picture: DecodedPicture,
  input: PictureInput,
  writer: TensorWriter,
): UnwrittenTensor {
  const { width, height } = picture.canvas;
  const { channels, layout, type, batch } = input;
  const shape = layout === "nchw" ? [channels, height, width] : [height, width, channels];
  return {
    type,
    dims: batch === "none" ? shape : [1, ...shape],
    write: (into, offset) => writeTensor(picture, writer, into as TensorData, offset),
  };
}

/** The wanted outputs of one row as numbers, without the batch axis. */
function toOutputRow(graph: OnnxGraph, outputs: Tensors): OutputRow {
  return Object.fromEntries(
    graph.wantedOutputs.map((name) => {
      const tensor = outputs[name]!;
      const axis = graph.outputAxis(name);
      const dims =
        axis !== undefined && tensor.dims[axis] === 1 ? tensor.dims.toSpliced(axis, 1) : tensor.dims;
      return [name, { data: readNumbers(name, tensor), dims }];
    }),
  );
}

function readNumbers(name: string, tensor: TensorValue): PlainNumbers {
  try {
    return toNumbers(tensor);
  } catch (error) {
    throw new Error(`the output "${name}" ${(error as Error).message}`, { cause: error });
  }
}

/** Range of brightness (0..255) of made-up pictures; noise where it is a range. */
const MADE_UP_PICTURES = {
  grey: [128, 128],
  black: [0, 0],
  white: [255, 255],
  noise: [0, 255],
  dark: [0, 60],
  light: [180, 255],
} as const;

/** A PNG in squares of 8×8 pixels. */
async function madeUpPicture(
  kind: keyof typeof MADE_UP_PICTURES,
  { width, height }: PictureSize,
): Promise<Buffer> {
  const { default: sharp } = await import("sharp");
  const [lowest, highest] = MADE_UP_PICTURES[kind];
  const raw = { width: Math.ceil(width / 8), height: Math.ceil(height / 8), channels: 3 } as const;
  const random = seeded(lowest + 1);
  const pixels = Uint8Array.from(
    { length: raw.width * raw.height * 3 },
    () => lowest + Math.round(random() * (highest - lowest)),
  );
  return sharp(pixels, { raw }).resize(width, height, { fit: "fill", kernel: "nearest" }).png().toBuffer();
}

/**
 * Reads how a model takes pictures: [N, C, H, W], [N, H, W, C], or one of them without N; C is 1 or 3, and where it is
 * free, 3 and first as PyTorch exports it. Of several inputs, the first of such a type and shape is the picture.
 * @throws Error where the model takes something else.
 */
export function readPictureInput(inputs: readonly TensorDescription[]): PictureInput {
  for (const rank of [4, 3]) {
    for (const input of inputs) {
      const found = input.shape.length === rank ? asPictureInput(input) : undefined;
      if (found) return found;
    }
  }
  throw new Error(
    `OnnxPictureModelLoader runs models with a picture input, float32, float16 or uint8, of shape [N, 3, height, width] or ` +
      `[N, height, width, 3] (or 1 channel for grey, or without N), this one takes ${listTensors(inputs) || "nothing"}`,
  );
}

function asPictureInput({ name, type, shape }: TensorDescription): PictureInput | undefined {
  if (!PICTURE_TYPES.includes(type)) return undefined;
  const [first, second, third] = shape.slice(-3) as [number | string, number | string, number | string];
  const isChannels = (dim: number | string) => dim === 1 || dim === 3;
  const layout = isChannels(first) || (typeof first === "string" && !isChannels(third)) ? "nchw" : "nhwc";
  const [channels, height, width] = layout === "nchw" ? [first, second, third] : [third, first, second];
  if (!isChannels(channels) && typeof channels !== "string") return undefined;
  // [N, samples, 1] is a sound or a series: of a picture without a batch axis both sides are free, or none is.
  if (shape.length === 3 && typeof height !== typeof width) return undefined;
  const side = (dim: number | string) => (typeof dim === "number" ? dim : undefined);
  const batch = shape.length === 3 ? "none" : typeof shape[0] === "number" ? shape[0] : "any";
  return {
    name,
    type: type as PictureElementType,
    layout,
    channels: channels === 1 ? 1 : 3,
    batch,
    width: side(width),
    height: side(height),
  };
}
