/**
 * Facial expressions with two models: UltraFace finds the faces of a picture, a classifier of the FER2013 kind names
 * the expression of each. All faces of a batch of pictures go through the classifier together.
 */
import { z } from "zod";
import type { BatchTrace, LoaderConfig } from "../BaseModelLoader.ts";
import type { TensorDescription } from "../../core/description.ts";
import { suppressNonMaxima, toFinding, type Candidate } from "./boxes.ts";
import type { Box, Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import { isDistribution, softmax } from "./ImageClassificationModelLoader.ts";
import { ferLabels } from "../labels/fer.ts";
import type { OnnxGraph } from "../onnx/OnnxGraph.ts";
import {
  OnnxPictureModelLoader,
  pictureBatch,
  readPictureInput,
  toTensor,
  type NormalisationFormat,
  type OutputRow,
  type PictureInput,
  type PictureOutcome,
} from "../pictures/OnnxPictureModelLoader.ts";
import {
  createTensorWriter,
  cropPicture,
  decodePicture,
  type DecodedPicture,
  type PictureSize,
  type TensorWriter,
} from "../pictures/picture.ts";
import { picturesOf } from "../../imil/requestPictures.ts";
import { toNumbers } from "../../tensors/numbers.ts";
import type { TensorValue } from "../../tensors/tensor.ts";
import { buildResponse } from "../../imil/response.ts";

const fraction = () => z.number().min(0).max(1);
const options = z.object({
  conf_thres: fraction().default(0).meta({
    description:
      "Lowest score (0..1) of an expression where the request has no C_threshold. 0: every face gets its strongest one.",
  }),
  face_thres: fraction().default(0.7).meta({
    description:
      "Lowest score (0..1) of a face. UltraFace takes a cat from the front for a face of 0.96, and people on good photos have 0.98 to 1: a value in between helps where animals are in view, and loses faces that are small or turned away.",
  }),
  face_iou_thres: fraction().default(0.3).meta({
    description: "Of two faces that overlap by more (intersection over union, 0..1), the better one stays.",
  }),
  min_face_size: z.number().min(0).default(50).meta({
    description: "Faces whose longer side is shorter are left out, in pixels of the picture.",
  }),
  face_padding: z.number().min(0).default(0).meta({
    description:
      "What the classifier sees is a square around the face, as long as its longer side. This is added on all four sides, in pixels of the picture. IMIL adds 10, to a detector with tighter boxes.",
  }),
});

/** The classifier beside the detector. */
interface ExpressionModel {
  graph: OnnxGraph;
  input: PictureInput;
  size: PictureSize;
  writer: TensorWriter;
}

/** A face on its way through the classifier. */
interface Face {
  picture: DecodedPicture;
  finding: Finding;
}

export class FacialExpressionRecognitionModelLoader extends OnnxPictureModelLoader {
  static readonly options = options;

  readonly #options: z.output<typeof options>;
  #expressions!: ExpressionModel;

  /** Expressions by class index. Default: the seven of FER2013. */
  static labelsFrom(given: readonly string[]): readonly string[] {
    return given.length > 0 ? given : ferLabels;
  }

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#options = options.parse(this.settings);
  }

  /** Opens `model_path`: the face detector, then the expression classifier. */
  override async load(): Promise<void> {
    const { model_path: files } = this.settings;
    if (files.length !== 2) {
      throw new Error(
        `models.${this.modelName}.model_path must name two files, the face detector (UltraFace) and the expression ` +
          `classifier, got ${files.length}`,
      );
    }
    await super.load();
    const graph = await this.openGraph(files[1], {
      batch: (inputs) => pictureBatch(readPictureInput(inputs)),
      maxBatchSize: MAX_FACES_PER_RUN,
      wantedOutputs: ([first]) => [first!.name],
    });
    this.#expressions = describeExpressionModel(graph);
  }

  protected override get defaultInputSize(): PictureSize {
    return { width: 640, height: 480 };
  }

  /** UltraFace's: (v - 127) ÷ 128. */
  protected override tensorFormat({ channels }: PictureInput): NormalisationFormat {
    return { scale: 1, mean: forEach(channels, 127), std: forEach(channels, 128) };
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    const found = [2, 4].map((last) => outputs.find(({ shape }) => shape.length === 3 && shape[2] === last));
    if (found[0] && found[1]) return [found[0].name, found[1].name];
    const shapes = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
    throw new Error(
      `the face detector must put out scores [N, boxes, 2] and boxes [N, boxes, 4], as UltraFace does, this one has ${shapes}`,
    );
  }

  override async preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture> {
    this.confidenceThreshold(request);
    return this.decode(picture, "stretch");
  }

  /** The faces of a picture, best first, each with the detector's score and no expression yet. */
  override async postprocessing(row: OutputRow, picture: DecodedPicture): Promise<Finding[]> {
    const { face_thres: threshold, face_iou_thres: overlap, min_face_size: least } = this.#options;
    const faces = readFaces(row, picture.canvas, threshold);
    return suppressNonMaxima(faces, overlap).flatMap((face) => {
      const finding = toFinding(face, picture, "face");
      if (!finding) return [];
      const { W, H } = finding.Dm as Box;
      const side = Math.max(W * picture.original.width, H * picture.original.height);
      return side >= least ? finding : [];
    });
  }

  /** A finding for each face, best face first: its box and its strongest expression with that one's score. */
  override async predictRequests(
    requests: readonly PredictionRequest[],
    trace: BatchTrace,
  ): Promise<PictureOutcome[]> {
    const startedAt = new Date();
    const detected = await super.predictRequests(requests, trace);
    const faces = await this.#cutOutFaces(requests, detected, trace);
    const scores = await this.#scoreExpressions(faces, trace);
    return detected.map((outcome, index) => {
      if (outcome instanceof Error) return outcome;
      const threshold = this.confidenceThreshold(requests[index]!, this.#options.conf_thres);
      const findings = outcome.Fs.flatMap((face) => this.#name(face, scores.get(face)!, threshold));
      return buildResponse(requests[index]!, findings, { model: this.modelName, startedAt });
    });
  }

  /** One picture after the other: in full size, a batch of large ones could exceed the memory. */
  async #cutOutFaces(
    requests: readonly PredictionRequest[],
    detected: readonly PictureOutcome[],
    trace: BatchTrace,
  ): Promise<Face[]> {
    const startedAt = performance.now();
    const faces: Face[] = [];
    for (const [index, outcome] of detected.entries()) {
      if (outcome instanceof Error || outcome.Fs.length === 0) continue;
      const pictures = picturesOf(requests[index]!);
      for (const [at, bytes] of pictures.entries()) {
        const own = outcome.Fs.filter(({ Info }) => Number(Info ?? 0) === at);
        if (own.length === 0) continue;
        const whole = await decodePicture(bytes, {
          fit: "inside",
          size: { width: Infinity, height: Infinity },
          maxPixels: this.settings.max_picture_pixels,
          maxBytes: this.settings.max_decoded_bytes ?? Infinity,
        });
        for (const finding of own)
          faces.push({ finding, picture: await this.#cutOut(finding.Dm as Box, whole) });
      }
    }
    trace.preprocess_ms += performance.now() - startedAt;
    return faces;
  }

  #cutOut({ X, Y, W, H }: Box, whole: DecodedPicture): Promise<DecodedPicture> {
    const side = Math.max(W * whole.width, H * whole.height) + 2 * this.#options.face_padding;
    const square = {
      left: (X + W / 2) * whole.width - side / 2,
      top: (Y + H / 2) * whole.height - side / 2,
      width: side,
      height: side,
    };
    return cropPicture(whole, square, this.#expressions.size);
  }

  /** The scores (0..1, by class index) of each face. */
  async #scoreExpressions(
    faces: readonly Face[],
    trace: BatchTrace,
  ): Promise<Map<Finding, ArrayLike<number>>> {
    const startedAt = performance.now();
    const scores = await this.#classify(faces.map(({ picture }) => picture));
    trace.infer_ms += performance.now() - startedAt;
    return new Map(faces.map(({ finding }, index) => [finding, scores[index]!]));
  }

  async #classify(faces: readonly DecodedPicture[]): Promise<ArrayLike<number>[]> {
    const { graph, input, writer } = this.#expressions;
    const answers = await graph.run(faces.map((face) => ({ [input.name]: toTensor(face, input, writer) })));
    const classes = this.settings.class_names.length;
    return answers.map((answer) => {
      if (answer instanceof Error) throw answer;
      const [output] = Object.values(answer) as [TensorValue];
      const scores = toNumbers(output);
      if (scores.length !== classes) {
        throw new Error(
          `models.${this.modelName}.class_names has ${classes} labels, the expression classifier's output is ` +
            `[${output.dims.join(", ")}]`,
        );
      }
      return isDistribution(scores) ? scores : softmax(scores);
    });
  }

  /** The face with its strongest expression, if that one is wanted and strong enough. */
  #name(face: Finding, scores: ArrayLike<number>, threshold: number): Finding | [] {
    let strongest = 0;
    for (let index = 1; index < scores.length; index++)
      if (scores[index]! > scores[strongest]!) strongest = index;
    const score = scores[strongest]!;
    if (score < threshold || !this.keepsClass(strongest)) return [];
    return { ...face, Cs: Math.round(score * 1e4) / 1e4, Lb: this.labelOf(strongest) };
  }

  override async warmUp(): Promise<void> {
    await super.warmUp();
    const { graph, input, size, writer } = this.#expressions;
    const plain = (shade: number): DecodedPicture => {
      const pixels = new Uint8Array(3 * size.width * size.height).fill(shade);
      return { pixels, ...size, canvas: size, placement: { left: 0, top: 0, ...size }, original: size };
    };
    const faces = [40, 128, 230].map(plain);
    await this.#classify(faces.slice(0, 1));
    await graph.check(faces.map((face) => ({ [input.name]: toTensor(face, input, writer) })));
  }
}

/** Faces of a crowd go through the classifier in several runs, so that its memory stays bounded. */
const MAX_FACES_PER_RUN = 64;

function describeExpressionModel(graph: OnnxGraph): ExpressionModel {
  const input = readPictureInput(graph.inputs);
  const channels = input.channels === 1 ? "grey" : "rgb";
  const mean = forEach(input.channels, 1);
  return {
    graph,
    input,
    size: { width: input.width ?? 64, height: input.height ?? 64 },
    // 0..255 → -1..1
    writer: createTensorWriter({ layout: input.layout, channels, scale: 1 / 127.5, mean }, input.type),
  };
}

function forEach(channels: number, value: number): number[] {
  return Array<number>(channels).fill(value);
}

/** The faces of one picture at or above the threshold, in pixels of the detector's input. */
function readFaces(row: OutputRow, canvas: PictureSize, threshold: number): Candidate[] {
  const outputs = Object.values(row);
  const scores = outputs.find(({ dims }) => dims.at(-1) === 2)!.data;
  const boxes = outputs.find(({ dims }) => dims.at(-1) === 4)!.data;
  const faces: Candidate[] = [];
  for (let index = 0; index < scores.length / 2; index++) {
    const score = scores[2 * index + 1]!;
    if (!(score >= threshold)) continue;
    const [left, top, right, bottom] = boxes.subarray(4 * index, 4 * index + 4) as unknown as Sides;
    faces.push({
      left: left * canvas.width,
      top: top * canvas.height,
      right: right * canvas.width,
      bottom: bottom * canvas.height,
      score,
      classIndex: 0,
    });
  }
  return faces;
}

type Sides = [number, number, number, number];
