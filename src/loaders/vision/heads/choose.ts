/**
 * Chooses the head of a detector from what its file says and from the shapes of
 * its outputs. A layout is taken where it fits in one way; where two fit, or
 * none, the model is refused with what would decide.
 */
import { ImplausibleOutputError } from "../../../errors.ts";
import {
  countCells,
  STRIDES,
  type BoxForm,
  type DetectionTask,
  type DetectorFormat,
  type Evidence,
  type Head,
  type HeadInput,
  type OutputShape,
} from "./head.ts";
import {
  readList,
  readParts,
  splitByColumn,
  splitByCounts,
  type ListLayout,
  type PartsLayout,
} from "./lists.ts";
import { readHeatMaps, readPair, type Activation, type PairLayout } from "./pairs.ts";
import { readRaw, type RawLayout } from "./raw.ts";
import { isDecoded, readYolox } from "./yolox.ts";

/** The model's outputs fit none of the formats, or several. */
export class UnclearHeadError extends Error {}

/** What the configuration says of boxes, where it does. */
export interface BoxOptions {
  box_format?: BoxForm["order"] | undefined;
  box_units?: BoxForm["units"] | undefined;
  activation?: Activation | undefined;
}

type Fitting = (outputs: readonly OutputShape[], evidence: Evidence, options: BoxOptions) => Head[];

/**
 * @param formats the formats that the loader reads; one where the configuration names it
 * @throws UnclearHeadError that says what was seen and what would decide
 */
export function chooseHead(
  outputs: readonly OutputShape[],
  evidence: Evidence,
  formats: readonly DetectorFormat[],
  options: BoxOptions = {},
): Head {
  const fitting = formats.flatMap((format) => FITTINGS[format](outputs, evidence, options));
  const [head] = fitting;
  if (fitting.length === 1) return head!;
  const seen = outputs
    .map(
      ({ name, dims, batched }) =>
        `${name} [${[...(batched ? ["N"] : []), ...dims.map((dim) => dim ?? "?")].join(", ")}]`,
    )
    .join(", ");
  const labels = evidence.labels > 0 ? `${evidence.labels} labels` : "no labels";
  const about = `the outputs ${seen} with an input of ${evidence.canvas.width}×${evidence.canvas.height} and ${labels}`;
  if (head) {
    const readings = fitting.map(({ format, description }) => `${format} (${description})`);
    throw new UnclearHeadError(
      `${about} fit in ${fitting.length} ways: ${readings.join("; ")}; set format to the right one` +
        (evidence.labels > 0 ? ", and task where the model does more than boxes" : ", or class_names"),
    );
  }
  throw new UnclearHeadError(
    `${about} fit none of ${formats.join(", ")}${mismatch(outputs, evidence, formats, options)}`,
  );
}

/** Says where only the number of labels keeps a head from fitting. */
function mismatch(
  outputs: readonly OutputShape[],
  evidence: Evidence,
  formats: readonly DetectorFormat[],
  options: BoxOptions,
): string {
  if (evidence.labels === 0) return "; set class_names, and format where they are known";
  const unlabelled = { ...evidence, labels: 0, task: evidence.task ?? "detect" } as const;
  const [near] = formats.flatMap((format) => FITTINGS[format](outputs, unlabelled, options));
  return near?.classes === undefined
    ? ""
    : `: it would be ${near.format} with ${near.classes} classes, class_names has ${evidence.labels} labels`;
}

// One tensor of boxes

/** The only output of rank 2 (without N), and the prototypes of masks beside it. */
function mainOutput(outputs: readonly OutputShape[]) {
  const flat = outputs.filter(({ dims, batched }) => dims.length === 2 && batched);
  // Several maps beside it are heads before they were decoded, and say nothing more.
  const prototypes = outputs.filter(({ dims }) => dims.length === 3);
  const [main] = flat;
  if (flat.length !== 1) return undefined;
  const [first, second] = main!.dims;
  if (second === undefined && first === undefined) return undefined;
  const masks = prototypes.length === 1 ? prototypes[0] : undefined;
  return {
    name: main!.name,
    first,
    second,
    prototypes: masks && masks.dims[0] !== undefined ? { name: masks.name, count: masks.dims[0] } : undefined,
  };
}

interface RawReading {
  features: number;
  boxes: number;
  /** Boxes for each cell. */
  anchors: 1 | 3;
  strides: readonly number[];
  featuresFirst: boolean;
}

/** The ways in which the shape is a box for each cell of the grids, or three. */
function rawReadings(
  first: number | undefined,
  second: number | undefined,
  { canvas }: Evidence,
): RawReading[] {
  const readings: RawReading[] = [];
  for (const featuresFirst of [true, false]) {
    const [features, boxes] = featuresFirst ? [first, second] : [second, first];
    if (features === undefined || boxes === undefined || features < 5) continue;
    for (const strides of STRIDES) {
      const cells = countCells(canvas, strides);
      for (const anchors of [1, 3] as const)
        if (boxes === anchors * cells) readings.push({ features, boxes, anchors, strides, featuresFirst });
    }
  }
  return readings;
}

/** COCO's people: what a pose has where nothing says it. */
const COCO_POINTS = [17, 3] as const;

interface Extras {
  task: DetectionTask;
  classes: number;
  extras: number;
  pointSize?: 2 | 3;
}

/**
 * What the numbers behind box (and objectness, or score and class) can be. `width`: these, with the classes where the
 * head has them. `classes`: their number where it isn't part of the width.
 */
function extrasOf(
  width: number,
  prototypes: number | undefined,
  evidence: Evidence,
  hasClasses: boolean,
): Extras[] {
  const { labels, keyPointShape } = evidence;
  // The graph's own prototypes are surer than a task that was copied from elsewhere.
  const task = prototypes !== undefined ? "segment" : (evidence.task ?? taskOfGraph(evidence));
  const found: Extras[] = [];
  const add = (each: DetectionTask, extras: number, pointSize?: 2 | 3) => {
    const classes = hasClasses ? width - extras : labels;
    if (hasClasses ? classes < 1 || (labels > 0 && classes !== labels) : width !== extras) return;
    found.push({ task: each, classes, extras, ...(pointSize && { pointSize }) });
  };
  if (task === "segment") {
    if (prototypes !== undefined) add("segment", prototypes);
  } else if (task === "obb") add("obb", 1);
  else if (task === "pose") {
    if (keyPointShape) add("pose", keyPointShape[0] * keyPointShape[1], keyPointShape[1] === 2 ? 2 : 3);
    else if (labels > 0 || !hasClasses) {
      const numbers = hasClasses ? width - labels : width;
      const sizes = ([2, 3] as const).filter((size) => numbers > 0 && numbers % size === 0);
      const isCoco = numbers === COCO_POINTS[0] * COCO_POINTS[1];
      for (const size of isCoco ? [3 as const] : sizes) add("pose", numbers, size);
    } else if (width === 1 + COCO_POINTS[0] * COCO_POINTS[1]) add("pose", width - 1, 3);
  } else {
    add("detect", 0);
    if (task === undefined && width === (hasClasses ? 1 : 0) + 51 && labels <= 1) add("pose", 51, 3);
  }
  return found;
}

/** Of YOLO's heads only those for boxes at an angle compute sines and cosines. */
function taskOfGraph({ keyPointShape, operators }: Evidence): DetectionTask | undefined {
  if (keyPointShape) return "pose";
  return operators?.has("Sin") && operators.has("Cos") ? "obb" : undefined;
}

/** The raw layouts, with or without objectness, that the one tensor fits. */
function fitRaw(
  format: DetectorFormat,
  outputs: readonly OutputShape[],
  evidence: Evidence,
  accept: (reading: RawReading) => boolean,
  hasObjectness: boolean,
): { layout: RawLayout & { strides: readonly number[] }; head: Omit<Head, "read"> }[] {
  const main = mainOutput(outputs);
  if (!main) return [];
  return rawReadings(main.first, main.second, evidence)
    .filter(accept)
    .flatMap((reading) => {
      const { features, boxes, featuresFirst, strides } = reading;
      const width = features - (hasObjectness ? 5 : 4);
      return extrasOf(width, main.prototypes?.count, evidence, true).map((extras) => {
        const [boxStep, featureStep] = featuresFirst ? [1, boxes] : [features, 1];
        const layout = { output: main.name, boxes, hasObjectness, boxStep, featureStep, strides, ...extras };
        const prototypes = extras.task === "segment" ? main.prototypes?.name : undefined;
        const head = {
          format,
          task: extras.task,
          description: describeRaw(extras, boxes, hasObjectness),
          outputs: [main.name, ...(prototypes === undefined ? [] : [prototypes])],
          suppress: true,
          classes: extras.classes,
          ...(prototypes !== undefined && { prototypes }),
        };
        return { layout, head };
      });
    });
}

function describeRaw(
  { task, classes, extras, pointSize }: Extras,
  boxes: number,
  hasObjectness: boolean,
): string {
  const parts = [
    `${boxes} boxes`,
    ...(hasObjectness ? ["objectness"] : []),
    `${classes} ${classes === 1 ? "class" : "classes"}`,
  ];
  return [...parts, ...describeExtras(task, extras, pointSize)].join(", ");
}

function describeExtras(task: DetectionTask, extras: number, pointSize: 2 | 3 | undefined): string[] {
  if (task === "segment") return [`masks of ${extras} prototypes`];
  if (task === "obb") return ["angle"];
  return task === "pose" ? [`${extras / pointSize!} key points`] : [];
}

const fitYolov8: Fitting = (outputs, evidence) => {
  const readings = fitRaw(
    "yolov8",
    outputs,
    evidence,
    // The other order of the axes is somebody's own; labels, or the task in the metadata, must vouch for it.
    ({ anchors, featuresFirst }) =>
      anchors === 1 &&
      (featuresFirst || evidence.labels > 0 || evidence.task !== undefined || isNamed(evidence)),
    false,
  );
  const usual = readings.filter(({ layout }) => layout.boxStep === 1);
  // Of as many features as boxes, the order that is exported is meant once the format is named.
  return (isNamed(evidence) && usual.length > 0 ? usual : readings).map(({ layout, head }) => ({
    ...head,
    read: (input) => {
      if (layout.boxStep !== 1 && layout.task === "detect" && !isNamed(evidence))
        checkHasNoObjectness(layout, input);
      return readRaw(layout, input);
    },
  }));
};

const isNamed = ({ named }: Evidence) => named === true;

const fitYolov5: Fitting = (outputs, evidence) =>
  fitRaw("yolov5", outputs, evidence, ({ anchors }) => anchors === 3, true).map(({ layout, head }) => ({
    ...head,
    read: (input) => readRaw(layout, input),
  }));

const fitYolov6: Fitting = (outputs, evidence) => {
  if ((evidence.beginsWithFocus && !evidence.named) || !isOfBoxesOnly(evidence)) return [];
  const accept = ({ anchors, featuresFirst }: RawReading) => anchors === 1 && !featuresFirst;
  return fitRaw("yolov6", outputs, { ...evidence, task: "detect" }, accept, true).map(({ layout, head }) => ({
    ...head,
    read: (input) => {
      const { data } = input.row[layout.output]!;
      checkObjectnessIsOne(data, layout);
      if (!isDecoded(data, layout, input.threshold)) {
        throw new ImplausibleOutputError(
          `the output "${layout.output}" has boxes that are relative to their cells, as YOLOX has them; look at loader (YoloxModelLoader) and format`,
        );
      }
      return readRaw(layout, input);
    },
  }));
};

/** YOLOv6 and YOLOX know boxes only; another task in the metadata or the graph says that the head is none of theirs. */
const isOfBoxesOnly = (evidence: Evidence) =>
  (evidence.task ?? taskOfGraph(evidence) ?? "detect") === "detect";

/** Below it a box has two classes often enough. */
const MIN_SURE_SCORE = 0.25;

/**
 * [boxes, 4 + classes] is [boxes, 5 + classes] to who has a label too many. The objectness is then the first class:
 * 1 in every box (YOLOv6), or beside another class in every box that is found (YOLOX), whose centre and size may be
 * relative to its cell.
 */
function checkHasNoObjectness(layout: RawLayout, { row, threshold }: HeadInput): void {
  const { data } = row[layout.output]!;
  const { boxes, boxStep, classes, output } = layout;
  if (classes < 2) return;
  const sure = Math.max(threshold, MIN_SURE_SCORE);
  let found = 0;
  for (let at = 0; at < boxes * boxStep; at += boxStep) {
    const first = data[at + 4]!;
    let other = 0;
    for (let index = at + 5; index < at + 4 + classes; index++) other = Math.max(other, data[index]!);
    if (Math.max(first, other) < sure) continue;
    if (Math.min(first, other) < sure && Math.abs(first - 1) > 1e-3) return;
    found++;
  }
  if (found === 0) return;
  throw new ImplausibleOutputError(
    `the output "${output}" has a score of its first class in every box that is found (${found}), as an objectness has it: look at class_names (their number says where the classes begin) and at loader; set format to yolov8 where the first class is one`,
  );
}

/** [boxes, 5 + classes] could be [boxes, 4 + classes], or YOLOX; YOLOv6's objectness of 1 everywhere tells them apart. */
function checkObjectnessIsOne(data: ArrayLike<number>, layout: RawLayout): void {
  const { output, boxes, boxStep, featureStep } = layout;
  for (let at = 0; at < boxes * boxStep; at += boxStep) {
    const objectness = data[at + 4 * featureStep]!;
    const isBlank = objectness === 0 && data[at + 2 * featureStep] === 0;
    if (Math.abs(objectness - 1) > 1e-3 && !isBlank) {
      throw new ImplausibleOutputError(
        `the output "${output}" has ${objectness} where YOLOv6 has an objectness of 1: look at class_names (their number says where the classes begin), at format, and for YOLOX at loader`,
      );
    }
  }
}

const fitYolox =
  (format: DetectorFormat): Fitting =>
  (outputs, evidence) => {
    if (!isOfBoxesOnly(evidence)) return [];
    const accept = ({ anchors, featuresFirst }: RawReading) => anchors === 1 && !featuresFirst;
    return fitRaw(format, outputs, { ...evidence, task: "detect" }, accept, true).map(({ layout, head }) => ({
      ...head,
      read: (input) => readYolox({ ...layout, decoded: undefined }, input),
    }));
  };

const PIXELS: BoxForm = { order: "xyxy", units: "pixels" };

function formOf(form: BoxForm, { box_format, box_units }: BoxOptions): BoxForm {
  return { order: box_format ?? form.order, units: box_units ?? form.units };
}

const fitEndToEnd: Fitting = (outputs, evidence, options) => {
  const main = mainOutput(outputs);
  if (!main || main.second === undefined || main.second < 6) return [];
  const { first, second, prototypes } = main;
  // The CenterNet of @vladmandic/human looks like YOLO's lists, and is fed otherwise.
  if (!evidence.isCenterNet && outputs.some(({ name }) => name.startsWith("tower_0/"))) return [];
  // A raw head has as many boxes as there are cells.
  const isRaw = rawReadings(first, second, evidence).length > 0;
  if (isRaw && evidence.endToEnd !== true && !evidence.named) return [];
  return extrasOf(second - 6, prototypes?.count, evidence, false).map(({ task, extras, pointSize }) => {
    const layout: ListLayout = {
      output: main.name,
      columns: second,
      box: 0,
      score: 4,
      classIndex: 5,
      form: formOf(PIXELS, options),
      task,
      extras,
      ...(pointSize && { pointSize }),
    };
    const withMasks = task === "segment" && prototypes ? prototypes.name : undefined;
    return {
      format: "end-to-end",
      task,
      description: [
        `${first ?? "any number of"} rows of box, score, class`,
        ...describeExtras(task, extras, pointSize),
      ].join(", "),
      outputs: [main.name, ...(withMasks === undefined ? [] : [withMasks])],
      ...(withMasks !== undefined && { prototypes: withMasks }),
      suppress: false,
      read: (input) => readList(layout, input),
    };
  });
};

/** Ultralytics' RT-DETR: [300, 4 + classes], centre and size as fractions, scores from 0 to 1. */
function fitDetrTensor(outputs: readonly OutputShape[], evidence: Evidence, options: BoxOptions): Head[] {
  const main = mainOutput(outputs);
  if (!main || main.prototypes || main.first === undefined || main.second === undefined) return [];
  const { first, second } = main;
  const classes = second - 4;
  const saysSo = /rt-?detr/i.test(evidence.architecture ?? "");
  const saysOther = !saysSo && /yolo/i.test(evidence.architecture ?? "");
  if (classes < 1 || (!evidence.named && (saysOther || evidence.endToEnd === true))) return [];
  if (evidence.task !== undefined && evidence.task !== "detect") return [];
  if (evidence.labels > 0 ? classes !== evidence.labels : !saysSo && !evidence.named) return [];
  if (rawReadings(first, second, evidence).some(({ featuresFirst }) => !featuresFirst) && !saysSo) return [];
  const layout = {
    output: main.name,
    boxes: first,
    classes,
    columns: second,
    form: formOf({ order: "cxcywh", units: "fractions" }, options),
  };
  return [
    {
      format: "rt-detr",
      task: "detect",
      description: `${first} boxes, ${classes} classes in one tensor`,
      outputs: [main.name],
      suppress: false,
      classes,
      read: (input) => readDetrTensor(layout, options.activation ?? "none", input),
    },
  ];
}

function readDetrTensor(
  layout: { output: string; boxes: number; classes: number; columns: number; form: BoxForm },
  activation: Activation,
  input: HeadInput,
) {
  const { output, boxes, classes, columns, form } = layout;
  const { data } = input.row[output]!;
  const numbers = new Float32Array(4 * boxes);
  for (let box = 0; box < boxes; box++)
    for (let each = 0; each < 4; each++) numbers[4 * box + each] = data[box * columns + each]!;
  const pair: PairLayout = {
    boxes: output,
    scores: `${output}\0scores`,
    count: boxes,
    classes,
    boxStep: columns,
    classStep: 1,
    activation,
    lastIsNothing: false,
    form,
  };
  return readPair(
    { ...pair, scores: output, boxes: BOXES },
    {
      ...input,
      row: {
        [output]: { data: data.subarray(4), dims: [boxes, classes] },
        [BOXES]: { data: numbers, dims: [boxes, 4] },
      },
    },
  );
}
const BOXES = "boxes";

// Lists whose rows belong to any picture of the batch

const unbatchedList = (outputs: readonly OutputShape[], columns: number) =>
  outputs.find(({ dims, batched }) => !batched && dims.length === 2 && dims[1] === columns);

function fitNumberedList(format: DetectorFormat, score: number, classIndex: number): Fitting {
  return (outputs, _evidence, options) => {
    const list = unbatchedList(outputs, 7);
    // YOLO-NAS has the class last, YOLOv7 the score; only the name of the output tells.
    if (!list || outputs.length > 1) return [];
    if (/flat/i.test(list.name) !== (format === "yolo-nas-flat")) return [];
    const layout: ListLayout = {
      output: list.name,
      columns: 7,
      box: 1,
      score,
      classIndex,
      form: formOf(PIXELS, options),
      task: "detect",
      extras: 0,
    };
    return [
      {
        format,
        task: "detect",
        description: "rows of the picture's number, box, class and score",
        outputs: [list.name],
        suppress: false,
        splitBatch: splitByColumn(list.name, 0),
        read: (input) => readList(layout, input),
      },
    ];
  };
}

const fitPaddleList: Fitting = (outputs, _evidence, options) => {
  const list = unbatchedList(outputs, 6);
  const counts = outputs.find((output) => output !== list && output.dims.length <= 1);
  if (!list || !counts || outputs.length !== 2) return [];
  const layout: ListLayout = {
    output: list.name,
    columns: 6,
    box: 2,
    score: 1,
    classIndex: 0,
    form: formOf(PIXELS, options),
    task: "detect",
    extras: 0,
  };
  return [
    {
      format: "paddle",
      task: "detect",
      description: "rows of class, score and box, and their number for each picture",
      outputs: [list.name, counts.name],
      suppress: false,
      splitBatch: splitByCounts(list.name, counts.name),
      read: (input) => readList(layout, input),
    },
  ];
};

// Boxes beside the scores of every class

interface Pair {
  boxes: OutputShape;
  scores: OutputShape;
  count: number;
  classes: number;
  featuresFirst: boolean;
}

function findPair(outputs: readonly OutputShape[], names?: readonly [RegExp, RegExp]): Pair | undefined {
  const flat = outputs.filter(({ dims, batched }) => batched && dims.length === 2);
  if (flat.length !== 2) return undefined;
  const isBoxes = (output: OutputShape) => output.dims[1] === 4;
  let boxes = flat.find(isBoxes);
  if (flat.every(isBoxes))
    boxes = flat.find(({ name }) => /box|dets/i.test(name) && !/score|logit|label/i.test(name));
  const scores = flat.find((output) => output !== boxes);
  if (!boxes || !scores || !isBoxes(boxes)) return undefined;
  if (names && !(names[0].test(boxes.name) && names[1].test(scores.name))) return undefined;
  const count = boxes.dims[0];
  const [first, second] = scores.dims;
  if (count === undefined || first === undefined || second === undefined) return undefined;
  if (first === count && second !== count)
    return { boxes, scores, count, classes: second, featuresFirst: false };
  if (second === count && first !== count)
    return { boxes, scores, count, classes: first, featuresFirst: true };
  return undefined;
}

function pairHead(
  format: DetectorFormat,
  { boxes, scores, count, classes, featuresFirst }: Pair,
  {
    activation,
    lastIsNothing = false,
    form,
    suppress,
  }: { activation: Activation; lastIsNothing?: boolean; form: BoxForm; suppress: boolean },
  options: BoxOptions,
): Head {
  const [boxStep, classStep] = featuresFirst ? [1, count] : [classes, 1];
  const layout: PairLayout = {
    boxes: boxes.name,
    scores: scores.name,
    count,
    classes,
    boxStep,
    classStep,
    activation: options.activation ?? activation,
    lastIsNothing,
    form: formOf(form, options),
  };
  return {
    format,
    task: "detect",
    description: `${count} boxes beside the scores of ${lastIsNothing ? `${classes - 1} classes and of nothing` : `${classes} classes`}`,
    outputs: [boxes.name, scores.name],
    suppress,
    classes: lastIsNothing ? classes - 1 : classes,
    read: (input) => readPair(layout, input),
  };
}

const CENTRED_FRACTIONS: BoxForm = { order: "cxcywh", units: "fractions" };
const DETR_NAMES = [/^pred_boxes$/, /logits/] as const;

const fitDetr: Fitting = (outputs, evidence, options) => {
  const pair = findPair(outputs, DETR_NAMES);
  if (!pair || pair.featuresFirst) return [];
  const softmax = /^(Detr|ConditionalDetr|Yolos|TableTransformer|DabDetr)/.exec(evidence.architecture ?? "");
  const isSoftmax = softmax !== null && !/^(Conditional|Dab)/.test(softmax[0]);
  const fits =
    evidence.labels > 0 ? pair.classes === evidence.labels + 1 : isSoftmax || evidence.named === true;
  if (!fits) return [];
  return [
    pairHead(
      "detr",
      pair,
      { activation: "softmax", lastIsNothing: true, form: CENTRED_FRACTIONS, suppress: false },
      options,
    ),
  ];
};

const fitRtDetr: Fitting = (outputs, evidence, options) => {
  const pair = findPair(outputs, DETR_NAMES);
  const sigmoid = /^(RTDetr|RtDetr|Deformable|Conditional|DFine|Dab|GroundingDino)|rt-?detr/i.test(
    evidence.architecture ?? "",
  );
  if (
    pair &&
    !pair.featuresFirst &&
    (evidence.labels > 0 ? pair.classes === evidence.labels : sigmoid || evidence.named)
  ) {
    return [
      pairHead("rt-detr", pair, { activation: "sigmoid", form: CENTRED_FRACTIONS, suppress: false }, options),
    ];
  }
  const parts = findParts(outputs);
  // The boxes are in pixels of the size that the second input brings; it brings the canvas's.
  if (parts && evidence.inputs.some((name) => SIZE_INPUTS.test(name)))
    return [partsHead("rt-detr", parts, PIXELS, 0, options)];
  return fitDetrTensor(outputs, evidence, options);
};
const SIZE_INPUTS = /^(orig_target_sizes|orig_size|target_sizes|im_shape)$/;

const fitRfDetr: Fitting = (outputs, evidence, options) => {
  const pair = findPair(outputs, [/^dets$/, /^labels$/]);
  if (!pair || pair.featuresFirst) return [];
  if (evidence.labels > 0 && pair.classes !== evidence.labels) return [];
  return [
    pairHead("rf-detr", pair, { activation: "sigmoid", form: CENTRED_FRACTIONS, suppress: false }, options),
  ];
};

/** YOLO-NAS and others: pixels beside scores from 0 to 1, for each cell. */
const fitYoloNas: Fitting = (outputs, evidence, options) => {
  const pair = findPair(outputs);
  if (!pair || pair.featuresFirst || DETR_NAMES[0].test(pair.boxes.name)) return [];
  if (
    /^dets$/.test(pair.boxes.name) ||
    !STRIDES.some((each) => countCells(evidence.canvas, each) === pair.count)
  )
    return [];
  if (evidence.labels > 0 && pair.classes !== evidence.labels) return [];
  return [pairHead("yolo-nas", pair, { activation: "none", form: PIXELS, suppress: true }, options)];
};

/** PicoDet and PP-YOLOE without their suppression: boxes in pixels beside [classes, boxes]. */
const fitPicoDet: Fitting = (outputs, evidence, options) => {
  const pair = findPair(outputs);
  if (!pair?.featuresFirst || (evidence.labels > 0 && pair.classes !== evidence.labels)) return [];
  return [pairHead("picodet", pair, { activation: "none", form: PIXELS, suppress: true }, options)];
};

// Separate lists of boxes, scores and classes

interface Parts {
  boxes: string;
  scores: string;
  classes: string;
  count?: string;
}

function findParts(outputs: readonly OutputShape[]): Parts | undefined {
  const boxes = outputs.filter(({ dims }) => dims.length === 2 && dims[1] === 4);
  if (boxes.length !== 1) return undefined;
  const lists = outputs.filter(({ dims }) => dims.length === 1);
  const counts = outputs.filter(
    ({ name, dims }) =>
      /num|count/i.test(name) &&
      (dims.length === 0 || (dims.length === 1 && (dims[0] === 1 || dims[0] === undefined))),
  );
  const rest = lists.filter((output) => !counts.includes(output));
  const named = (pattern: RegExp) => rest.filter(({ name }) => pattern.test(name));
  const isWhole = ({ type }: OutputShape) => /^u?int/.test(type);
  const classes = pick(named(/class|label|categor/i)) ?? pick(rest.filter(isWhole));
  const scores =
    pick(named(/score|conf|prob/i)) ?? pick(rest.filter((output) => output !== classes && !isWhole(output)));
  if (!classes || !scores || classes === scores || rest.length !== 2 || counts.length > 1) return undefined;
  return {
    boxes: boxes[0]!.name,
    scores: scores.name,
    classes: classes.name,
    ...(counts[0] && { count: counts[0].name }),
  };
}

const pick = <T>(found: readonly T[]): T | undefined => (found.length === 1 ? found[0] : undefined);

function partsHead(
  format: DetectorFormat,
  parts: Parts,
  form: BoxForm,
  firstClass: 0 | 1,
  options: BoxOptions,
): Head {
  const layout: PartsLayout = { ...parts, form: formOf(form, options) };
  return {
    format,
    task: "detect",
    description: "lists of boxes, scores and classes",
    outputs: Object.values(parts),
    suppress: false,
    firstClass,
    read: (input) => readParts(layout, input),
  };
}

const fitTensorflow: Fitting = (outputs, _evidence, options) => {
  const wanted = outputs.filter(({ name }) =>
    /detection_(boxes|scores|classes)(:0)?$|num_detections(:0)?$/.test(name),
  );
  const parts = findParts(wanted);
  return parts ? [partsHead("tensorflow", parts, { order: "yxyx", units: "fractions" }, 1, options)] : [];
};

const isTensorflow = (outputs: readonly OutputShape[]) =>
  outputs.some(({ name }) => /detection_boxes/.test(name));

const fitEfficientNms: Fitting = (outputs, evidence, options) => {
  const parts = findParts(outputs);
  if (!parts || isTensorflow(outputs) || parts.count === undefined) return [];
  if (evidence.inputs.some((name) => SIZE_INPUTS.test(name))) return [];
  return [partsHead("efficient-nms", parts, PIXELS, 0, options)];
};

const fitTorchvision: Fitting = (outputs, evidence, options) => {
  const parts = findParts(outputs);
  if (!parts || parts.count !== undefined || isTensorflow(outputs) || /^bboxes$/.test(parts.boxes)) return [];
  if (evidence.inputs.some((name) => SIZE_INPUTS.test(name))) return [];
  return [partsHead("torchvision", parts, PIXELS, 1, options)];
};

/** The SSDs of the ONNX model zoo: torchvision's classes, but fractions. */
const fitSsd: Fitting = (outputs, evidence, options) => {
  const parts = findParts(outputs);
  if (!parts || !/^bboxes$/.test(parts.boxes) || parts.count !== undefined) return [];
  if (evidence.inputs.some((name) => SIZE_INPUTS.test(name))) return [];
  return [partsHead("ssd", parts, { order: "xyxy", units: "fractions" }, 1, options)];
};

/** MMDetection: boxes with their scores [n, 5] beside the classes [n]. */
const fitMmdetection: Fitting = (outputs, _evidence, options) => {
  const list = pick(outputs.filter(({ dims, batched }) => batched && dims.length === 2 && dims[1] === 5));
  const classes = pick(outputs.filter(({ name, dims }) => dims.length === 1 && /label/i.test(name)));
  if (!list || !classes) return [];
  const layout: ListLayout = {
    output: LIST,
    columns: 6,
    box: 0,
    score: 4,
    classIndex: 5,
    form: formOf(PIXELS, options),
    task: "detect",
    extras: 0,
  };
  return [
    {
      format: "mmdetection",
      task: "detect",
      description: "boxes with their scores beside the classes",
      outputs: [list.name, classes.name],
      suppress: false,
      read: (input) => {
        const [boxes, labels] = [input.row[list.name]!.data, input.row[classes.name]!.data];
        const rows = Math.min(boxes.length / 5, labels.length);
        const data = new Float32Array(6 * rows);
        for (let row = 0; row < rows; row++) {
          for (let each = 0; each < 5; each++) data[6 * row + each] = boxes[5 * row + each]!;
          data[6 * row + 5] = labels[row]!;
        }
        return readList(layout, { ...input, row: { [LIST]: { data, dims: [rows, 6] } } });
      },
    },
  ];
};
const LIST = "dets";

/** CenterNet's maps: heat [classes, h, w], sizes and offsets [2, h, w]. */
const fitCenterNet: Fitting = (outputs, evidence, options) => {
  const maps = outputs.filter(({ dims, batched }) => batched && dims.length === 3);
  const heat = pick(maps.filter(({ name, dims }) => /^(hm|heat)/i.test(name) && dims[0] !== undefined));
  const size = pick(maps.filter(({ name, dims }) => /^(wh|size)/i.test(name) && dims[0] === 2));
  const offset = pick(maps.filter(({ name, dims }) => /^(reg|off)/i.test(name) && dims[0] === 2));
  const [classes, height, width] = heat?.dims ?? [];
  if (!heat || !size || classes === undefined || height === undefined || width === undefined) return [];
  if (evidence.labels > 0 && classes !== evidence.labels) return [];
  const layout = {
    heat: heat.name,
    size: size.name,
    offset: offset?.name,
    classes,
    height,
    width,
    activation: options.activation ?? ("sigmoid" as const),
  };
  return [
    {
      format: "centernet",
      task: "detect",
      description: `heat maps of ${classes} classes, ${width}×${height} cells`,
      outputs: [heat.name, size.name, ...(offset ? [offset.name] : [])],
      suppress: true,
      classes,
      read: (input) => readHeatMaps(layout, input),
    },
  ];
};

const FITTINGS: Readonly<Record<DetectorFormat, Fitting>> = {
  yolov5: fitYolov5,
  yolov6: fitYolov6,
  yolov8: fitYolov8,
  "end-to-end": fitEndToEnd,
  "yolov7-end2end": fitNumberedList("yolov7-end2end", 6, 5),
  yolox: fitYolox("yolox"),
  "yolox-legacy": fitYolox("yolox-legacy"),
  "yolo-nas": fitYoloNas,
  "yolo-nas-flat": fitNumberedList("yolo-nas-flat", 5, 6),
  "efficient-nms": fitEfficientNms,
  "rt-detr": fitRtDetr,
  "rf-detr": fitRfDetr,
  detr: fitDetr,
  tensorflow: fitTensorflow,
  torchvision: fitTorchvision,
  ssd: fitSsd,
  mmdetection: fitMmdetection,
  paddle: fitPaddleList,
  picodet: fitPicoDet,
  centernet: fitCenterNet,
};
