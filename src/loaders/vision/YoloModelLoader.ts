/**
 * YOLO detectors of the Ultralytics family. v5 and v7 put out [N, boxes, 5 + classes] with centre, size, objectness and
 * class scores; v8 and v11 put out [N, 4 + classes, boxes] without objectness. The shape tells them apart.
 */
import type { TensorDescription } from "../../core/description.ts";
import type { Candidate } from "./boxes.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import type { OutputRow } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture, PictureSize } from "../pictures/picture.ts";

export class YoloModelLoader extends DetectionModelLoader {
  static readonly options = detectorOptions({ conf_thres: 0.25, iou_thres: 0.7 });

  protected override get defaultInputSize(): PictureSize {
    return { width: 640, height: 640 };
  }

  /** The one output of rank 3; some exports of v5 have the three raw heads (rank 5) beside it. */
  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    const boxes = outputs.filter(({ shape }) => shape.length === 3);
    if (boxes.length !== 1) {
      const shapes = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
      throw new Error(
        `YoloModelLoader reads one output of shape [N, boxes, 5 + classes] or [N, 4 + classes, boxes], this model has ${shapes}`,
      );
    }
    return [boxes[0]!.name];
  }

  protected override fitPicture(picture: Buffer): Promise<DecodedPicture> {
    return this.decode(picture, "letterbox");
  }

  override async postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    const { data, dims } = Object.values(row)[0]!;
    const layout = readYoloLayout(dims, picture.canvas, this.settings.class_names.length);
    return this.toFindings(readYoloBoxes(data, layout, this.thresholdOf(request)), picture);
  }
}

/** How the numbers of a YOLO output lie. */
export interface YoloLayout {
  boxes: number;
  classes: number;
  hasObjectness: boolean;
  /** Distance from a box to the next, and from a feature of a box to the next. */
  boxStep: number;
  featureStep: number;
}

/**
 * Reads the layout from an output's shape without N, in either order of its axes. The number of labels decides; without
 * labels the number of boxes does: v5 and v7 have 3 for each cell of the grids of stride 8, 16, 32, v8 and v11 have one.
 * @param labelCount 0 where `class_names` is empty.
 * @throws Error where the shape is no YOLO output, or doesn't fit the labels.
 */
export function readYoloLayout(dims: readonly number[], canvas: PictureSize, labelCount: number): YoloLayout {
  const [first = 0, second = 0] = dims;
  const cells = [8, 16, 32].reduce(
    (sum, s) => sum + Math.ceil(canvas.width / s) * Math.ceil(canvas.height / s),
    0,
  );
  // The order that each version really exports comes first, for shapes that could be read either way.
  const readings = [
    { boxes: first, features: second, hasObjectness: true, boxStep: second, featureStep: 1 },
    { boxes: second, features: first, hasObjectness: false, boxStep: 1, featureStep: second },
    { boxes: first, features: second, hasObjectness: false, boxStep: second, featureStep: 1 },
    { boxes: second, features: first, hasObjectness: true, boxStep: 1, featureStep: second },
  ].map(({ features, ...reading }) => ({ ...reading, classes: features - (reading.hasObjectness ? 5 : 4) }));

  const expectedBoxes = (reading: YoloLayout) => reading.boxes === cells * (reading.hasObjectness ? 3 : 1);
  const fitting = labelCount > 0 ? readings.filter(({ classes }) => classes === labelCount) : readings;
  const found = fitting.find(expectedBoxes) ?? (labelCount > 0 ? fitting[0] : undefined);
  if (dims.length === 2 && found && found.classes > 0) return found;

  const seen = readings.find((reading) => expectedBoxes(reading) && reading.classes > 0);
  throw new Error(
    seen && labelCount > 0
      ? `the model's output [N, ${dims.join(", ")}] has ${seen.classes} classes, class_names has ${labelCount} labels`
      : `expected an output [N, boxes, 5 + classes] or [N, 4 + classes, boxes] with ${3 * cells} or ${cells} boxes for an input of ` +
          `${canvas.width}×${canvas.height}${labelCount > 0 ? ` and ${labelCount} labels` : ""}, got [N, ${dims.join(", ")}]`,
  );
}

/** The boxes whose best class scores at least `threshold`; score = objectness × class score (v5, v7) or class score. */
export function readYoloBoxes(data: ArrayLike<number>, layout: YoloLayout, threshold: number): Candidate[] {
  const { boxes, classes, hasObjectness, boxStep, featureStep } = layout;
  const firstClass = hasObjectness ? 5 : 4;
  const candidates: Candidate[] = [];
  for (let box = 0; box < boxes; box++) {
    const at = box * boxStep;
    const objectness = hasObjectness ? data[at + 4 * featureStep]! : 1;
    if (objectness < threshold) continue;
    let classIndex = 0;
    let best = -1;
    for (let index = 0, from = at + firstClass * featureStep; index < classes; index++, from += featureStep) {
      if (data[from]! > best) {
        best = data[from]!;
        classIndex = index;
      }
    }
    const score = best * objectness;
    if (score < threshold) continue;
    const x = data[at]!;
    const y = data[at + featureStep]!;
    const halfWidth = data[at + 2 * featureStep]! / 2;
    const halfHeight = data[at + 3 * featureStep]! / 2;
    candidates.push({
      left: x - halfWidth,
      top: y - halfHeight,
      right: x + halfWidth,
      bottom: y + halfHeight,
      score,
      classIndex,
    });
  }
  return candidates;
}
