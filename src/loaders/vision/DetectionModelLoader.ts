/** What the built-in object detectors share: their options, thresholds, and the way from candidates to findings. */
import { z } from "zod";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import { suppressNonMaxima, toFinding, type Candidate } from "./boxes.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import { OnnxPictureModelLoader } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";

/** The options of a detector, with its own defaults. */
export function detectorOptions(defaults: { conf_thres: number; iou_thres: number }) {
  return z.object({
    conf_thres: z
      .number()
      .min(0)
      .max(1)
      .default(defaults.conf_thres)
      .meta({ description: "Lowest confidence (0..1) of a finding where the request has no C_threshold." }),
    iou_thres: z.number().min(0).max(1).default(defaults.iou_thres).meta({
      description:
        "Of two boxes of one class that overlap by more (intersection over union, 0..1), the better one stays.",
    }),
  });
}

export abstract class DetectionModelLoader extends OnnxPictureModelLoader {
  protected readonly options: { conf_thres: number; iou_thres: number };

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    const { options } = this.constructor as unknown as { options: ReturnType<typeof detectorOptions> };
    this.options = options.parse(this.settings);
  }

  /** `C_threshold` of the request, else `conf_thres`; 0..1. */
  protected thresholdOf(request: PredictionRequest): number {
    return this.confidenceThreshold(request, this.options.conf_thres);
  }

  /** Refuses a C_threshold that is no number before any picture is decoded. */
  override async preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture> {
    this.thresholdOf(request);
    return this.fitPicture(picture);
  }

  protected abstract fitPicture(picture: Buffer): Promise<DecodedPicture>;

  /** Candidates (score at or above the threshold) → wanted classes → no duplicates → findings, best first. */
  protected toFindings(candidates: readonly Candidate[], picture: DecodedPicture): Finding[] {
    const wanted = candidates.filter(({ classIndex }) => this.keepsClass(classIndex));
    return suppressNonMaxima(wanted, this.options.iou_thres).flatMap(
      (box) => toFinding(box, picture, this.labelOf(box.classIndex)) ?? [],
    );
  }
}
