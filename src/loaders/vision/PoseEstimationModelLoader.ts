/**
 * Poses, as YOLO's pose models find them: of people with COCO's 17 key points (nose, eyes, ears, shoulders, elbows,
 * wrists, hips, knees, ankles, left before right), or of anything with any `kpt_shape`.
 */
import type { ModelFacts } from "../../models/modelFacts.ts";
import type { DetectionTask, DetectorFormat } from "./heads/head.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";

export class PoseEstimationModelLoader extends DetectionModelLoader {
  static override readonly options = detectorOptions({ conf_thres: 0.25, iou_thres: 0.7 });

  protected override get formats(): readonly DetectorFormat[] {
    return ["yolov8", "yolov5", "yolov6", "end-to-end"];
  }

  protected override defaultTask(): DetectionTask {
    return "pose";
  }

  protected override defaultLabels(facts: ModelFacts): readonly string[] {
    return facts.labels ?? ["person"];
  }
}
