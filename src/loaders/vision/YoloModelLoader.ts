/**
 * YOLO detectors: v5 to v12, 26, YOLO-NAS, and Ultralytics' RT-DETR, raw or with the boxes picked by the graph, with
 * masks, poses and boxes at an angle.
 */
import type { DetectorFormat } from "./heads/head.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";

const FORMATS: readonly DetectorFormat[] = [
  "yolov8",
  "yolov5",
  "yolov6",
  "end-to-end",
  "yolov7-end2end",
  "yolo-nas",
  "yolo-nas-flat",
  "efficient-nms",
  "rt-detr",
];

export class YoloModelLoader extends DetectionModelLoader {
  static override readonly options = detectorOptions({ conf_thres: 0.25, iou_thres: 0.7 });

  protected override get formats(): readonly DetectorFormat[] {
    return FORMATS;
  }
}
