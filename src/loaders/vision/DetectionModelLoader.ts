/**
 * Object detectors of every family: boxes, masks, poses and boxes at an angle.
 * The head is chosen at load from what the model says of itself and from the
 * shapes of its outputs, or named by `format`; see `heads/choose.ts`. The
 * loaders that are named after a family read fewer formats and have its defaults.
 */
import { z } from "zod";
import type { TensorDescription } from "../../core/description.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import type { ModelTask } from "../../models/modelFacts.ts";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import { didYouMean } from "../../closest.ts";
import { keepClasses } from "../labels.ts";
import { BACKGROUND, coco91Labels, cocoLabels } from "../labels/coco.ts";
import type { Interpretation, OutputRow, PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture, PictureSize } from "../pictures/picture.ts";
import { toNumbers } from "../../tensors/numbers.ts";
import type { TensorValue, Tensors } from "../../tensors/tensor.ts";
import { MAX_BOXES, round4, suppressNonMaxima, toFinding, toFractions } from "./boxes.ts";
import { chooseHead, UnclearHeadError } from "./heads/choose.ts";
import {
  DETECTOR_FORMATS,
  type Detection,
  type DetectionTask,
  type DetectorFormat,
  type Evidence,
  type Head,
  type OutputShape,
} from "./heads/head.ts";
import { beginsWithFocus, PREPARED_FOR, toShapes } from "./heads/shapes.ts";
import { readMask } from "./masks.ts";
import type { PreprocessingDefaults } from "./pictureOptions.ts";
import { rotatedOverlap, toRotated } from "./rotated.ts";
import { suggestLoader } from "./suggestLoader.ts";
import { cutTile, mergeTiles, tilesOf } from "./tiles.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const TASKS = ["detect", "segment", "pose", "obb"] as const satisfies readonly DetectionTask[];

/** The options of a detector, with its own defaults. */
export function detectorOptions(defaults: { conf_thres?: number; iou_thres: number }) {
  const { conf_thres } = defaults;
  const threshold = z.number().min(0).max(1).optional();
  return z.object({
    ...visionOptions,
    conf_thres: (conf_thres === undefined ? threshold : threshold.default(conf_thres)).meta({
      description: `Lowest confidence (0..1) of a finding where the request has no C_threshold.${
        conf_thres === undefined
          ? " Default: 0.25 for raw heads, 0.5 where the graph or a DETR picks the boxes."
          : ""
      }`,
    }),
    iou_thres: z.number().min(0).max(1).default(defaults.iou_thres).meta({
      description:
        "Of two boxes of one class that overlap by more (intersection over union, 0..1), the better one stays.",
    }),
    format: z
      .enum(["auto", ...DETECTOR_FORMATS])
      .default("auto")
      .meta({
        description:
          "Layout of the outputs. auto: what the model's metadata and the shapes of its outputs say, where only one fits.",
      }),
    task: z.enum(TASKS).optional().meta({
      description: "What the model finds, where its metadata doesn't say it.",
    }),
    kpt_shape: z
      .tuple([z.int().min(1), z.union([z.literal(2), z.literal(3)])])
      .optional()
      .meta({ description: "For poses: the number of key points, and the numbers of each (2 or 3)." }),
    activation: z.enum(["none", "sigmoid", "softmax"]).optional().meta({
      description: "What turns the outputs into scores, where the format's own way doesn't fit.",
    }),
    box_format: z.enum(["xyxy", "cxcywh", "xywh", "yxyx"]).optional().meta({
      description:
        "What the four numbers of a box are, where the format's own way doesn't fit: corners, centre and size, top left corner and size, or corners with y first.",
    }),
    box_units: z.enum(["pixels", "fractions"]).optional().meta({
      description: "Whether boxes count pixels of the model's input or parts of it.",
    }),
    max_det: z.int().min(1).max(100_000).default(MAX_BOXES).meta({
      description:
        "Most findings of a picture, the best ones; a response that was cut says so in `Warnings`.",
    }),
    max_size: z.int().min(1).default(1333).meta({
      description:
        "Longest side in pixels of what torchvision's and TensorFlow's detectors get, where they take any size and input_image_size is left out: larger pictures are scaled down.",
    }),
    agnostic_nms: z.boolean().default(false).meta({
      description: "Whether overlapping boxes of different classes count as duplicates, too.",
    }),
    tile: z
      .strictObject({
        size: z.int().min(32).meta({ description: "Side of a tile in pixels of the picture." }),
        overlap: z
          .number()
          .min(0)
          .max(0.9)
          .default(0.2)
          .meta({ description: "Part of a tile (0..0.9) that its neighbours share." }),
      })
      .optional()
      .meta({ description: "Looks at large pictures in tiles, and once at the whole." }),
    class_thresholds: z.record(z.string(), z.number().min(0).max(1)).default({}).meta({
      description: "Lowest confidence (0..1) of a label's findings, whatever conf_thres and C_threshold are.",
    }),
  });
}

type DetectorOptions = z.output<ReturnType<typeof detectorOptions>>;

export class DetectionModelLoader extends VisionModelLoader {
  static readonly options: ReturnType<typeof detectorOptions> = detectorOptions({ iou_thres: 0.7 });

  protected readonly options: DetectorOptions;
  #head: Head | undefined;
  /** What the head was prepared for, where it is chosen at the first run. */
  #preparedFor: DetectorFormat | undefined;
  #classThresholds = new Map<number, number>();

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    const { options } = this.constructor as typeof DetectionModelLoader;
    this.options = options.parse(this.settings);
  }

  /** The formats that `auto` chooses from; the first is what a model is prepared for whose shapes are all free. */
  protected get formats(): readonly DetectorFormat[] {
    // yolox-legacy differs from yolox in what it is fed only.
    return DETECTOR_FORMATS.filter((format) => format !== "yolox-legacy");
  }

  protected override get defaultInputSize(): PictureSize {
    const { facts } = this;
    if (facts.inputSize || facts.preprocessing?.size) return super.defaultInputSize;
    const [first] = this.#allowed;
    return PREPARED_FOR[this.#head?.format ?? first!].size ?? { width: 640, height: 640 };
  }

  override async load(): Promise<void> {
    await super.load();
    this.#readLabels();
  }

  protected override preprocessingDefaults({ width, height }: PictureInput): PreprocessingDefaults {
    this.#preparedFor = this.#head?.format ?? this.#allowed[0]!;
    const defaults = this.preparation(this.#preparedFor);
    const takesAnySize =
      width === undefined && height === undefined && this.settings.input_image_size === undefined;
    return takesAnySize && defaults.maxSize !== undefined
      ? { ...defaults, fit: "inside", maxSize: this.options.max_size }
      : { ...defaults, maxSize: undefined };
  }

  /** What a format is fed where nothing else says it. */
  protected preparation(format: DetectorFormat): PreprocessingDefaults {
    return PREPARED_FOR[format];
  }

  protected override describeGraph(): ReturnType<VisionModelLoader["describeGraph"]> {
    return { ...super.describeGraph(), divide: (outputs, rows) => this.#divide(outputs, rows) };
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    this.readScales(outputs);
    this.#head = this.#chooseEarly(toShapes(outputs, this.pictureInput.batch !== "none"));
    if (!this.#head) return outputs.map(({ name }) => name);
    const wanted = this.#head.outputs;
    // Whole numbers of a low rank are classes and counts.
    this.needScales(outputs.filter(({ name, shape }) => wanted.includes(name) && shape.length > 2));
    return wanted;
  }

  protected override mayVary(): boolean {
    // Lists are as long as what was found.
    return this.#head === undefined || !this.#head.suppress;
  }

  #divide(outputs: Tensors, rows: number): Tensors[] | undefined {
    const numbers = () => mapValues(outputs, (tensor) => ({ data: toNumbers(tensor), dims: tensor.dims }));
    return this.#head
      ?.splitBatch?.(numbers(), rows)
      .map((row) =>
        mapValues(row, ({ data, dims }) => ({ type: "float32", dims, data: Float32Array.from(data) })),
      );
  }

  get #allowed(): readonly DetectorFormat[] {
    const { format } = this.options;
    return format === "auto" ? this.formats : [format];
  }

  /** The head, where the shapes that the file declares are enough; undefined where sizes are free. */
  #chooseEarly(shapes: readonly OutputShape[]): Head | undefined {
    const [width, height] = this.settings.input_image_size ?? [];
    const canvas = {
      width: this.pictureInput.width ?? width ?? this.defaultInputSize.width,
      height: this.pictureInput.height ?? height ?? this.defaultInputSize.height,
    };
    try {
      return this.#choose(shapes, canvas);
    } catch (error) {
      const isFree = shapes.some(
        ({ dims, batched }) => (batched || dims.length > 2) && dims.length > 1 && dims.includes(undefined),
      );
      if (isFree && error instanceof UnclearHeadError) return undefined;
      throw error;
    }
  }

  #choose(shapes: readonly OutputShape[], canvas: PictureSize): Head {
    const evidence = this.#evidence(canvas);
    try {
      const head = chooseHead(shapes, evidence, this.#allowed, this.options);
      this.decided["head"] = `${head.format}, ${head.task}: ${head.description}`;
      return head;
    } catch (error) {
      if (!(error instanceof UnclearHeadError)) throw error;
      const advice = suggestLoader(this.facts, this.settings.class_names.length, this.constructor.name);
      throw new UnclearHeadError(
        `${this.constructor.name} can't read this model: ${error.message}${advice}`,
        { cause: error },
      );
    }
  }

  #evidence(canvas: PictureSize): Evidence {
    const { facts, options } = this;
    const { graph } = facts;
    return {
      canvas,
      labels: this.settings.class_names.length,
      task: options.task ?? this.defaultTask(facts.task),
      endToEnd: facts.endToEnd,
      keyPointShape: options.kpt_shape ?? facts.keyPointShape,
      architecture: facts.architecture,
      inputs: graph?.inputs.map(({ name }) => name) ?? [],
      operators: graph && new Set(graph.nodes.map(({ opType }) => opType)),
      beginsWithFocus: graph && beginsWithFocus(graph),
      isCenterNet: this.suppressesAlways,
      named: this.#allowed.length === 1,
    };
  }

  /** Whether lists that the graph has picked still have duplicates. */
  protected get suppressesAlways(): boolean {
    return false;
  }

  protected defaultTask(stated: ModelTask | undefined): DetectionTask | undefined {
    return TASKS.find((task) => task === stated);
  }

  /** Labels by the class index that the head has: one more in front where 0 is the background. */
  #readLabels(): void {
    const { class_names: given, classes } = this.settings;
    if (this.#head?.firstClass === 1)
      this.settings = { ...this.settings, class_names: withBackground(given) };
    const labels = this.settings.class_names;
    const naming = (key: string, problem: string) => new Error(`models.${this.modelName}.${key}: ${problem}`);
    try {
      this.keepsClass = keepClasses(classes, labels);
    } catch (error) {
      throw naming("classes", (error as Error).message);
    }
    for (const [label, threshold] of Object.entries(this.options.class_thresholds)) {
      const indices = labels.flatMap((each, index) => (each === label ? [index] : []));
      if (indices.length === 0 && /^\d+$/.test(label) && labels.length === 0) indices.push(Number(label));
      if (indices.length === 0)
        throw naming(
          "class_thresholds",
          `${JSON.stringify(label)} is no label of the model${didYouMean(label, labels)}`,
        );
      for (const index of indices) this.#classThresholds.set(index, threshold);
    }
  }

  /** `C_threshold` of the request, else `conf_thres`; 0..1. */
  protected thresholdOf(request: PredictionRequest): number {
    const { conf_thres = this.#head && LISTED.has(this.#head.format) ? 0.5 : 0.25 } = this.options;
    return this.confidenceThreshold(request, conf_thres);
  }

  /** Refuses a C_threshold that is no number before any picture is decoded. */
  override async preprocessing(
    picture: Buffer,
    request: PredictionRequest,
  ): Promise<DecodedPicture | readonly DecodedPicture[]> {
    this.thresholdOf(request);
    const whole = await super.preprocessing(picture, request);
    const { tile } = this.options;
    if (tile === undefined || Array.isArray(whole)) return whole;
    const { original } = whole as DecodedPicture;
    if (original.width <= tile.size && original.height <= tile.size) return whole;
    const full = await this.decode(picture, "inside", { size: original });
    const tiles = await Promise.all(
      tilesOf(original, tile).map((region) => cutTile(full, region, this.inputSize, this.prepared)),
    );
    return [whole as DecodedPicture, ...tiles];
  }

  /** What several tiles, or a tile and the whole picture, have found is one finding. */
  protected override joinRows(rows: readonly Interpretation[]): Interpretation {
    const { max_det: most, agnostic_nms: agnostic } = this.options;
    const joined = super.joinRows(rows);
    const found = rows.map(({ findings: own }) => own);
    const findings = mergeTiles(found, { agnostic, most: most + 1 });
    const warnings = [...(joined.warnings ?? [])];
    if (findings.length > most) warnings.push(cutWarning(most));
    return { ...joined, findings: findings.slice(0, most), warnings };
  }

  protected override extraInput(
    { name, type, shape }: TensorDescription,
    picture: DecodedPicture,
  ): TensorValue | undefined {
    const { canvas } = picture;
    // The boxes come back in pixels of the size that is given here: the canvas's, which is what the heads read.
    if (SIZES_XY.test(name)) return numbersOf(type, [canvas.width, canvas.height]);
    if (SIZES_YX.test(name)) return numbersOf(type, [canvas.height, canvas.width]);
    if (SCALES.test(name)) return numbersOf(type, [1, 1]);
    if (MASKS.test(name)) return pictureMask(type, shape.length, picture);
    return undefined;
  }

  protected override interpret(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Interpretation {
    const head = (this.#head ??= this.#chooseLate(row, picture));
    const general = this.thresholdOf(request);
    const threshold = Math.min(general, ...this.#classThresholds.values());
    const labels = this.settings.class_names.length;
    const found = head.read({ row, canvas: picture.canvas, threshold, labels });
    const wanted = found.filter(
      ({ classIndex, score }) =>
        this.keepsClass(classIndex) && score >= (this.#classThresholds.get(classIndex) ?? general),
    );
    const { max_det: most, iou_thres, agnostic_nms } = this.options;
    const kept =
      head.suppress || this.suppressesAlways
        ? suppressNonMaxima(wanted, iou_thres, most + 1, {
            agnostic: agnostic_nms,
            ...(head.task === "obb" && { overlapOf: rotatedOverlap }),
          })
        : wanted.toSorted((a, b) => b.score - a.score);
    const findings = kept
      .slice(0, most)
      .flatMap((detection) => this.#toFinding(detection, head, row, picture) ?? []);
    return { findings, ...(kept.length > most && { warnings: [cutWarning(most)] }) };
  }

  #toFinding(detection: Detection, head: Head, row: OutputRow, picture: DecodedPicture): Finding | undefined {
    const finding = toFinding(detection, picture, this.labelOf(detection.classIndex));
    if (!finding) return undefined;
    const { keyPoints, rotated, coefficients } = detection;
    return {
      ...finding,
      ...(keyPoints && { Kp: toKeyPoints(keyPoints, picture) }),
      ...(rotated && { Rb: toRotated(rotated, picture) }),
      ...(coefficients &&
        head.prototypes !== undefined && { Msk: readMask(detection, row[head.prototypes]!, picture) }),
    };
  }

  /** The head of a model whose shapes are free, once a run has shown them. */
  #chooseLate(row: OutputRow, { canvas }: DecodedPicture): Head {
    const shapes = Object.entries(row).map(([name, { dims }]): OutputShape => ({
      name,
      type: "float32",
      dims,
      batched: !(dims.length === 2 && dims[1] === 7),
    }));
    const head = this.#choose(shapes, canvas);
    const [given, needed] = [this.preparation(this.#preparedFor!), this.preparation(head.format)].map(
      (each) => JSON.stringify(each),
    );
    if (given !== needed) {
      throw new UnclearHeadError(
        `models.${this.modelName}.format: the sizes of the outputs are free, and a run showed ${head.format}, which is fed otherwise; set format to "${head.format}"`,
      );
    }
    this.#head = head;
    this.#readLabels();
    return head;
  }
}

const cutWarning = (most: number) => `more than max_det (${most}) findings, the best ${most} are returned`;

/** Formats whose scores are compared with 0.5 where they come from. */
const LISTED: ReadonlySet<DetectorFormat> = new Set([
  "rt-detr",
  "rf-detr",
  "detr",
  "tensorflow",
  "torchvision",
  "ssd",
  "paddle",
]);

const SIZES_XY = /^(orig_target_sizes|orig_size|target_sizes|orig_sizes)$/i;
const SIZES_YX = /^(im_shape|image_shape)$/i;
const SCALES = /^scale_factor$/i;
const MASKS = /^(pixel_mask|mask)$/i;

function numbersOf(type: string, numbers: readonly number[]): TensorValue | undefined {
  return withType(type, [1, numbers.length], numbers);
}

/** 1 where the canvas holds the picture, 0 where it is padded. */
function pictureMask(
  type: string,
  rank: number,
  { canvas, placement, width, height }: DecodedPicture,
): TensorValue | undefined {
  const mask = new Uint8Array(canvas.width * canvas.height);
  const [left, top] = [Math.max(0, placement.left), Math.max(0, placement.top)];
  for (let row = top; row < Math.min(canvas.height, top + height); row++)
    mask.fill(1, row * canvas.width + left, row * canvas.width + Math.min(canvas.width, left + width));
  return withType(type, [...(rank === 4 ? [1, 1] : [1]), canvas.height, canvas.width], mask);
}

function withType(
  type: string,
  dims: readonly number[],
  numbers: ArrayLike<number>,
): TensorValue | undefined {
  if (type === "int64") return { type, dims, data: BigInt64Array.from(numbers as Uint8Array, BigInt) };
  if (type === "int32") return { type, dims, data: Int32Array.from(numbers) };
  if (type === "float32") return { type, dims, data: Float32Array.from(numbers) };
  return type === "bool" ? { type, dims, data: Uint8Array.from(numbers) } : undefined;
}

function mapValues<From, To>(
  record: Readonly<Record<string, From>>,
  change: (value: From) => To,
): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
}

/**
 * Labels by the number that torchvision's and TensorFlow's detectors give them, from 1. COCO's 80 are spread over its 91
 * numbers; a list of one's own needs no entry for the background, which is 0.
 */
export function withBackground(labels: readonly string[]): readonly string[] {
  if (labels.length === 0) return labels;
  if (String(labels) === String(cocoLabels)) return coco91Labels;
  return labels[0] === BACKGROUND ? labels : [BACKGROUND, ...labels];
}

/** `{"1": [x, y, 0, score], …}`, x and y as fractions of the picture, at its edge where a point lies outside. */
function toKeyPoints(
  keyPoints: NonNullable<Detection["keyPoints"]>,
  picture: DecodedPicture,
): Record<string, number[]> {
  const clip = (fraction: number) => round4(Math.min(1, Math.max(0, fraction)));
  return Object.fromEntries(
    keyPoints.map(([x, y, score], index) => {
      const [left, top] = toFractions(picture, x, y);
      return [String(index + 1), [clip(left), clip(top), 0, round4(score)]];
    }),
  );
}
