/**
 * YOLOX detectors as Megvii exports them: BGR 0..255 in; objectness and class scores for each cell out, the boxes
 * relative to their cells, or in pixels (`decode_in_inference`). `format: "yolox-legacy"` for the weights before 0.1.1.
 */
import type { DetectorFormat } from "./heads/head.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";

export class YoloxModelLoader extends DetectionModelLoader {
  static override readonly options = detectorOptions({ conf_thres: 0.25, iou_thres: 0.45 });

  protected override get formats(): readonly DetectorFormat[] {
    return ["yolox"];
  }
}
