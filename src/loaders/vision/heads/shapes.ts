/** What a head is chosen by, from a model's description: shapes without their batch axis, and how each format is fed. */
import type { OnnxFile } from "../../../models/onnxFile.ts";
import { IMAGENET, type PreprocessingDefaults } from "../pictureOptions.ts";
import type { DetectorFormat, OutputShape } from "./head.ts";

/**
 * Shapes of a detector's outputs. Where the picture has a batch axis the outputs have one, but for lists of the
 * detections of all pictures ([detections, 6] or 7) and what lies beside lists of boxes without one.
 */
export function toShapes(
  outputs: readonly { name: string; type: string; shape: readonly (number | string)[] }[],
  hasBatch: boolean,
): OutputShape[] {
  const isList = ({ shape }: { shape: readonly (number | string)[] }) =>
    shape.length === 2 && [4, 5, 6, 7].includes(Number(shape[1]));
  const isFlat = !hasBatch || (outputs.every(({ shape }) => shape.length <= 2) && outputs.some(isList));
  return outputs.map((output) => {
    const { name, type, shape } = output;
    const batched = shape.length > 0 && !isFlat;
    const dims = (batched ? shape.slice(1) : shape).map((dim) => (typeof dim === "number" ? dim : undefined));
    return { name, type, dims, batched };
  });
}

/** Whether the graph begins by slicing the picture into four (Focus), as YOLOX and the first versions of YOLOv5 do. */
export function beginsWithFocus({ nodes, inputs }: OnnxFile): boolean {
  const [picture] = inputs;
  return (
    picture !== undefined &&
    nodes.filter(({ opType, input }) => opType === "Slice" && input[0] === picture.name).length >= 2
  );
}

const LETTERBOX: PreprocessingDefaults = { fit: "letterbox", pad_color: 114 };
const STRETCH: PreprocessingDefaults = { fit: "stretch" };
const IMAGENET_STRETCH: PreprocessingDefaults = { fit: "stretch", ...IMAGENET };
const BLACK_CORNER: PreprocessingDefaults = { fit: "letterbox-top-left", pad_color: 0, maxSize: 1333 };

/** What each format is fed where neither the configuration nor the files beside the model say it. */
export const PREPARED_FOR: Readonly<Record<DetectorFormat, PreprocessingDefaults>> = {
  yolov5: LETTERBOX,
  yolov6: LETTERBOX,
  yolov8: LETTERBOX,
  "end-to-end": LETTERBOX,
  "yolov7-end2end": LETTERBOX,
  yolox: {
    channels: "bgr",
    scale: 1,
    fit: "letterbox-top-left",
    pad_color: 114,
    size: { width: 416, height: 416 },
  },
  "yolox-legacy": {
    fit: "letterbox-top-left",
    pad_color: 114,
    ...IMAGENET,
    size: { width: 416, height: 416 },
  },
  "yolo-nas": LETTERBOX,
  "yolo-nas-flat": LETTERBOX,
  "efficient-nms": LETTERBOX,
  "rt-detr": STRETCH,
  "rf-detr": IMAGENET_STRETCH,
  detr: IMAGENET_STRETCH,
  tensorflow: { fit: "stretch", scale: 1, maxSize: 1333 },
  torchvision: BLACK_CORNER,
  ssd: IMAGENET_STRETCH,
  mmdetection: { fit: "letterbox-top-left", pad_color: 114, ...IMAGENET },
  paddle: IMAGENET_STRETCH,
  picodet: IMAGENET_STRETCH,
  centernet: { ...IMAGENET_STRETCH, size: { width: 512, height: 512 } },
};
