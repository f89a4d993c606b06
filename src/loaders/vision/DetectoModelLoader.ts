/**
 * Object detectors with torchvision's contract (Faster R-CNN, RetinaNet, SSD, and Detecto, which wraps the first):
 * pictures of any size in, RGB 0..1; boxes, labels and scores of what was found out, duplicates already removed.
 */
import { z } from "zod";
import type { LoaderConfig } from "../BaseModelLoader.ts";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import { toFinding } from "./boxes.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import { BACKGROUND, coco91Labels, cocoLabels, UNUSED } from "../labels/coco.ts";
import {
  OnnxPictureModelLoader,
  type NormalisationFormat,
  type OutputRow,
  type PictureInput,
} from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";

const options = z.object({
  conf_thres: z
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .meta({ description: "Lowest score (0..1) of a finding where the request has no C_threshold." }),
  max_size: z.int().min(1).default(1333).meta({
    description:
      "Longest side in pixels of what the model gets, where it takes any size and input_image_size is left out: larger pictures are scaled down. torchvision's detectors scale down to 1333 themselves.",
  }),
});

export class DetectoModelLoader extends OnnxPictureModelLoader {
  static readonly options = options;

  readonly #options: z.output<typeof options>;
  #takesAnySize = false;
  #outputs!: Record<"boxes" | "labels" | "scores", string>;

  /**
   * Labels by the number that the model gives them, from 1. Default: COCO's 91 numbers. A list of one's own needs no
   * entry for the background, which is 0.
   */
  static labelsFrom(given: readonly string[]): readonly string[] {
    if (given.length === 0 || String(given) === String(cocoLabels)) return coco91Labels;
    return given[0] === BACKGROUND ? given : [BACKGROUND, ...given];
  }

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    this.#options = options.parse(this.settings);
  }

  protected override tensorFormat({ width, height }: PictureInput): NormalisationFormat {
    this.#takesAnySize =
      width === undefined && height === undefined && this.settings.input_image_size === undefined;
    // torchvision pads with black.
    return { pad: 0 };
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    this.#outputs = findOutputs(outputs);
    return Object.values(this.#outputs);
  }

  override async preprocessing(picture: Buffer, request: PredictionRequest): Promise<DecodedPicture> {
    this.confidenceThreshold(request);
    const { max_size: most } = this.#options;
    return this.#takesAnySize
      ? this.decode(picture, "inside", { size: { width: most, height: most } })
      : this.decode(picture, "letterbox-top-left");
  }

  /** The boxes of wanted classes whose score is at or above the threshold, best first. */
  override async postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    const threshold = this.confidenceThreshold(request, this.#options.conf_thres);
    const [boxes, labels, scores] = (["boxes", "labels", "scores"] as const).map(
      (part) => row[this.#outputs[part]]!.data,
    ) as [OutputData, OutputData, OutputData];
    if (boxes.length !== 4 * scores.length || labels.length !== scores.length) {
      throw new Error(
        `expected four numbers of a box and a label for each of ${scores.length} scores, got ${boxes.length} and ${labels.length}`,
      );
    }
    const findings: Finding[] = [];
    for (let index = 0; index < scores.length; index++) {
      const score = scores[index]!;
      const classIndex = labels[index]!;
      if (!(score >= threshold) || !this.keepsClass(classIndex)) continue;
      const [left, top, right, bottom] = boxes.subarray(4 * index, 4 * index + 4) as unknown as Sides;
      const box = { left, top, right, bottom, score, classIndex };
      const finding = toFinding(box, picture, this.labelOf(classIndex));
      if (finding) findings.push(finding);
    }
    return findings.toSorted((a, b) => b.Cs - a.Cs);
  }

  override describe(): LoaderDescription {
    const described = super.describe();
    return {
      ...described,
      labels: described.labels.filter((label) => label !== BACKGROUND && label !== UNUSED),
    };
  }
}

type OutputData = OutputRow[string]["data"];
type Sides = [number, number, number, number];

/**
 * Which outputs are which: by the names that torchvision's models give them, else by what they must be: the boxes end
 * in 4, labels are whole numbers, scores aren't, and both have one axis less than the boxes.
 */
function findOutputs(outputs: readonly TensorDescription[]): Record<"boxes" | "labels" | "scores", string> {
  const named = (name: string) => outputs.find((output) => output.name === name);
  const isWhole = ({ type }: TensorDescription) => /^u?int/.test(type);
  const boxes = named("boxes") ?? outputs.find(({ shape }) => shape.length >= 2 && shape.at(-1) === 4);
  const flat = outputs.filter(
    (output) => output !== boxes && output.shape.length === (boxes?.shape.length ?? 0) - 1,
  );
  const labels = named("labels") ?? flat.find(isWhole);
  const scores = named("scores") ?? flat.find((output) => !isWhole(output));
  if (boxes && labels && scores) return { boxes: boxes.name, labels: labels.name, scores: scores.name };
  const seen = outputs.map(({ name, type, shape }) => `${name}: ${type} [${shape.join(", ")}]`).join("; ");
  throw new Error(
    `DetectoModelLoader reads three outputs, boxes [n, 4], labels [n] (whole numbers) and scores [n], this model has ${seen}`,
  );
}
