/**
 * CenterNet detectors: those of `@vladmandic/human` (MobileNetV3, COCO), whose graph picks the peaks itself, and those
 * that put out heat maps, sizes and offsets.
 */
import type { DetectorFormat } from "./heads/head.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";
import type { PreprocessingDefaults } from "./pictureOptions.ts";

export class CenterNetModelLoader extends DetectionModelLoader {
  // The scores of this model are low: sheep that anybody recognises have 0.41.
  static override readonly options = detectorOptions({ conf_thres: 0.3, iou_thres: 0.45 });

  protected override get formats(): readonly DetectorFormat[] {
    return ["end-to-end", "centernet"];
  }

  protected override preparation(format: DetectorFormat): PreprocessingDefaults {
    // Small things score up to 0.07 higher than with a bilinear kernel.
    return format === "end-to-end"
      ? { fit: "stretch", scale: 1, interpolation: "lanczos", size: { width: 512, height: 512 } }
      : super.preparation(format);
  }

  /** Its graph leaves duplicates in. */
  protected override get suppressesAlways(): boolean {
    return true;
  }
}
