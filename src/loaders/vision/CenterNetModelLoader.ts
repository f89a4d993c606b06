/**
 * CenterNet detectors as `@vladmandic/human` ships them (MobileNetV3, COCO). The graph picks the peaks itself: its
 * output is [N, 100, 6] with left, top, right, bottom (input pixels), score and class index.
 */
import type { TensorDescription } from "../../core/description.ts";
import type { Candidate } from "./boxes.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import type { NormalisationFormat, OutputRow } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";

export class CenterNetModelLoader extends DetectionModelLoader {
  // The scores of this model are low: sheep that anybody recognises have 0.41.
  static readonly options = detectorOptions({ conf_thres: 0.3, iou_thres: 0.45 });

  protected override get defaultInputSize() {
    return { width: 512, height: 512 };
  }

  /** RGB, 0..255 as it is. */
  protected override tensorFormat(): NormalisationFormat {
    return { scale: 1 };
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    const detections = outputs.find(({ shape }) => shape.length === 3 && shape[2] === 6);
    if (!detections) {
      const shapes = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
      throw new Error(
        `CenterNetModelLoader reads an output of shape [N, boxes, 6], this model has ${shapes}`,
      );
    }
    return [detections.name];
  }

  protected override fitPicture(picture: Buffer): Promise<DecodedPicture> {
    // Small things score up to 0.07 higher than with a bilinear kernel.
    return this.decode(picture, "stretch", { kernel: "lanczos3" });
  }

  override async postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    const { data } = Object.values(row)[0]!;
    const threshold = this.thresholdOf(request);
    const candidates: Candidate[] = [];
    for (let at = 0; at < data.length; at += 6) {
      const [left, top, right, bottom, score, classIndex] = data.subarray(at, at + 6) as unknown as Six;
      if (score >= threshold) candidates.push({ left, top, right, bottom, score, classIndex });
    }
    return this.toFindings(candidates, picture);
  }
}

type Six = [number, number, number, number, number, number];
