/**
 * Says which loaders would fit a model, from what its file says: for the
 * message that refuses it elsewhere, and for `infermill models inspect`.
 */
import type { TensorDescription } from "../../core/description.ts";
import type { ModelFacts } from "../../models/modelFacts.ts";
import { producerOf } from "../../models/quantisation.ts";
import { readPictureInput, type PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import { chooseHead, UnclearHeadError } from "./heads/choose.ts";
import { DETECTOR_FORMATS, type DetectorFormat, type Evidence, type Head } from "./heads/head.ts";
import { beginsWithFocus, toShapes } from "./heads/shapes.ts";

export interface Suggestion {
  loader: string;
  /** Settings beside `loader` and `model_path`; `null` where somebody must fill in what no file says. */
  settings: Record<string, unknown>;
  /** Why it fits, or what to look at first. */
  why: string;
}

/** `; YoloxModelLoader would fit (…)`, or what to choose among; empty where nothing is known. */
export function suggestLoader(facts: ModelFacts, labels: number, asked: string): string {
  const others = suggestLoaders(facts, labels).filter(({ loader }) => loader !== asked);
  if (others.length === 0) return "";
  const named = others.map(({ loader, why }) => `${loader} (${why})`);
  return `; ${named.join(" or ")} would fit`;
}

/** The loaders that fit, the likeliest first; empty where the file isn't ONNX. */
export function suggestLoaders(facts: ModelFacts, labels = facts.labels?.length ?? 0): Suggestion[] {
  const { graph } = facts;
  if (!graph) return [];
  const described = (tensors: typeof graph.inputs) =>
    tensors.map(({ name, type, shape }): TensorDescription => ({ name, type, shape: shape ?? [] }));
  const [inputs, outputs] = [described(graph.inputs), described(graph.outputs)];
  const input = pictureInputOf(inputs);
  if (!input) {
    return [
      {
        loader: "OnnxTensorModelLoader",
        settings: {},
        why: "its inputs are no pictures; requests bring tensors",
      },
    ];
  }
  if (facts.characters) {
    return [{ loader: "TextRecognitionModelLoader", settings: {}, why: "its metadata lists characters" }];
  }
  if (outputs.some(({ name }) => name === "tower_0/detections")) {
    return [
      {
        loader: "CenterNetModelLoader",
        settings: { class_names: ["coco"] },
        why: "the CenterNet of @vladmandic/human",
      },
    ];
  }
  const detectors = suggestDetectors(facts, labels, input, outputs, inputs);
  return detectors.length > 0 ? detectors : suggestByShape(facts, labels, inputs, outputs);
}

function pictureInputOf(inputs: readonly TensorDescription[]): PictureInput | undefined {
  try {
    return readPictureInput(inputs);
  } catch {
    return undefined;
  }
}

/** The loaders named after a family, and the formats that they read. */
const FAMILIES: readonly (readonly [loader: string, formats: readonly DetectorFormat[]])[] = [
  ["YoloxModelLoader", ["yolox", "yolox-legacy"]],
  ["DetectoModelLoader", ["torchvision", "tensorflow", "ssd"]],
  [
    "YoloModelLoader",
    [
      "yolov5",
      "yolov6",
      "yolov8",
      "end-to-end",
      "yolov7-end2end",
      "yolo-nas",
      "yolo-nas-flat",
      "efficient-nms",
    ],
  ],
];

function suggestDetectors(
  facts: ModelFacts,
  labels: number,
  input: PictureInput,
  outputs: readonly TensorDescription[],
  inputs: readonly TensorDescription[],
): Suggestion[] {
  const { graph } = facts;
  const [width, height] = [
    input.width ?? facts.inputSize?.[0] ?? 640,
    input.height ?? facts.inputSize?.[1] ?? 640,
  ];
  const evidence: Evidence = {
    canvas: { width, height },
    labels,
    task: facts.task === "classify" ? undefined : (facts.task as Evidence["task"]),
    endToEnd: facts.endToEnd,
    keyPointShape: facts.keyPointShape,
    architecture: facts.architecture,
    inputs: inputs.map(({ name }) => name),
    operators: graph && new Set(graph.nodes.map(({ opType }) => opType)),
    beginsWithFocus: graph && beginsWithFocus(graph),
  };
  const shapes = toShapes(outputs, input.batch !== "none");
  const fitting = DETECTOR_FORMATS.filter((format) => format !== "yolox-legacy").flatMap((format): Head[] => {
    try {
      return [chooseHead(shapes, evidence, [format])];
    } catch (error) {
      if (error instanceof UnclearHeadError) return [];
      throw error;
    }
  });
  return fitting.map(({ format, description, classes }) => {
    const family = FAMILIES.find(([, formats]) => formats.includes(format))?.[0];
    const loader = family ?? "DetectionModelLoader";
    const needsLabels = labels === 0 && format !== "torchvision";
    return {
      loader,
      settings: {
        ...(fitting.length > 1 || !family ? { format } : {}),
        ...(needsLabels && { class_names: null }),
      },
      why: `${format}: ${description}${classes === undefined || labels > 0 ? "" : ", labels unknown"}`,
    };
  });
}

function suggestByShape(
  facts: ModelFacts,
  labels: number,
  inputs: readonly TensorDescription[],
  outputs: readonly TensorDescription[],
): Suggestion[] {
  const [output] = outputs;
  if (!output) return [];
  const hasBatch = true;
  const dims = output.shape.slice(hasBatch && output.shape.length > 1 ? 1 : 0);
  const sizes = dims.filter((dim) => dim !== 1);
  const needsLabels = labels === 0 ? { class_names: null } : {};
  const pictures = inputs.filter(({ shape }) => shape.length >= 3);
  if (sizes.length <= 1)
    return suggestForVector(facts, labels, sizes[0], output, pictures.length, needsLabels);
  if (output.shape.length === 3 && !/^u?int/.test(output.type) && facts.task === undefined) {
    return [
      {
        loader: "TextRecognitionModelLoader",
        settings: { class_names: null },
        why: "scores for each step; class_names are its characters",
      },
      { loader: "DepthEstimationModelLoader", settings: {}, why: "if it is a map of depths" },
      {
        loader: "ImageEmbeddingModelLoader",
        settings: { pooling: "cls" },
        why: "if it is a vector for each token",
      },
    ];
  }
  const planes = output.shape.length === 4 ? output.shape[1] : 1;
  if (facts.task === "depth")
    return [{ loader: "DepthEstimationModelLoader", settings: {}, why: "its config.json" }];
  const segmentation = {
    loader: "SemanticSegmentationModelLoader",
    settings: needsLabels,
    why: planes === 1 ? "if the map says where something is" : "a plane for each class",
  };
  if (planes === 3 && labels !== 3) {
    return [
      { loader: "ImageToImageModelLoader", settings: {}, why: "its output is a picture" },
      segmentation,
    ];
  }
  return planes === 1
    ? [
        { loader: "DepthEstimationModelLoader", settings: {}, why: "if the map is one of depths" },
        segmentation,
      ]
    : [segmentation];
}

function suggestForVector(
  facts: ModelFacts,
  labels: number,
  size: number | string | undefined,
  output: TensorDescription,
  pictures: number,
  needsLabels: object,
): Suggestion[] {
  const regression = { loader: "ImageRegressionModelLoader", settings: {}, why: "numbers for a picture" };
  if (pictures > 1) return [{ ...regression, why: `numbers for ${pictures} pictures` }];
  const last = facts.graph && producerOf(facts.graph, output.name, new Set(["Identity", "Cast"]))?.opType;
  const classification = {
    loader: "ImageClassificationModelLoader",
    settings: { ...needsLabels },
    why: "one score for each class",
  };
  if (facts.problem === "regression" || (size === undefined && labels < 2)) return [regression];
  if (labels > 0 && size === labels) return [classification];
  if (/embed|feature/i.test(output.name) || last === "LpNormalization")
    return [
      { loader: "ImageEmbeddingModelLoader", settings: {}, why: "its output is a vector" },
      classification,
    ];
  return [
    classification,
    { loader: "ImageEmbeddingModelLoader", settings: {}, why: "if its output is a vector" },
  ];
}
