/**
 * Object detectors with torchvision's contract (Faster R-CNN, RetinaNet, SSD, and Detecto, which wraps the first) or
 * TensorFlow's: pictures of any size in; boxes, labels (from 1) and scores of what was found out, duplicates removed.
 */
import type { LoaderDescription } from "../../core/description.ts";
import { BACKGROUND, coco91Labels, UNUSED } from "../labels/coco.ts";
import { DetectionModelLoader, detectorOptions, withBackground } from "./DetectionModelLoader.ts";
import type { DetectorFormat } from "./heads/head.ts";

export class DetectoModelLoader extends DetectionModelLoader {
  static override readonly options = detectorOptions({ conf_thres: 0.5, iou_thres: 0.7 });

  /** Labels by the number that the model gives them, from 1. Default: COCO's 91 numbers. */
  static labelsFrom(given: readonly string[]): readonly string[] {
    return given.length > 0 ? withBackground(given) : coco91Labels;
  }

  protected override get formats(): readonly DetectorFormat[] {
    return ["torchvision", "tensorflow", "ssd"];
  }

  override describe(): LoaderDescription {
    const described = super.describe();
    return {
      ...described,
      labels: described.labels.filter((label) => label !== BACKGROUND && label !== UNUSED),
    };
  }
}
