/**
 * People and their 17 key points (COCO: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, left before
 * right), as YOLOv7-pose and YOLOv8-pose find them.
 */
import type { TensorDescription } from "../../core/description.ts";
import { suppressNonMaxima, toFinding, type Candidate } from "./boxes.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import type { OutputRow } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture, PictureSize } from "../pictures/picture.ts";

const KEY_POINTS = 17;
/** Numbers of a box: centre, size, score and key points in v8; v7 has the objectness before the score. */
const V8_FEATURES = 5 + 3 * KEY_POINTS;
const V7_FEATURES = 6 + 3 * KEY_POINTS;

/** A person; each key point is x, y (pixels of the input tensor) and score. */
export interface Pose extends Candidate {
  keyPoints: readonly (readonly [x: number, y: number, score: number])[];
}

export class PoseEstimationModelLoader extends DetectionModelLoader {
  static readonly options = detectorOptions({ conf_thres: 0.25, iou_thres: 0.7 });

  static labelsFrom(given: readonly string[]): readonly string[] {
    return given.length > 0 ? given : ["person"];
  }

  protected override get defaultInputSize(): PictureSize {
    return { width: 640, height: 640 };
  }

  /** The one output of rank 3; some exports have raw heads beside it. */
  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    const found = outputs.filter(({ shape }) => shape.length === 3);
    if (found.length === 1) return [found[0]!.name];
    const shapes = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
    throw new Error(
      `PoseEstimationModelLoader reads one output of shape [N, ${V8_FEATURES}, boxes] (YOLOv8-pose) or ` +
        `[N, boxes, ${V7_FEATURES}] (YOLOv7-pose), this model has ${shapes}`,
    );
  }

  protected override fitPicture(picture: Buffer): Promise<DecodedPicture> {
    return this.decode(picture, "letterbox");
  }

  /** A finding for each person, best first, with the key points in `Kp` from "1". */
  override async postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    const { data, dims } = Object.values(row)[0]!;
    const poses = readPoses(data, dims, this.thresholdOf(request)).filter(({ classIndex }) =>
      this.keepsClass(classIndex),
    );
    return suppressNonMaxima(poses, this.options.iou_thres).flatMap((pose) => {
      const finding = toFinding(pose, picture, this.labelOf(pose.classIndex));
      return finding ? { ...finding, Kp: toKeyPoints(pose, picture) } : [];
    });
  }
}

/**
 * The people whose score is at or above `threshold`: score (v8), or objectness × score (v7). `dims` is the output's
 * shape without N, in either order of its axes.
 * @throws Error where the shape is none of a model with 17 key points.
 */
export function readPoses(data: ArrayLike<number>, dims: readonly number[], threshold: number): Pose[] {
  const axis = dims.findIndex((size) => size === V8_FEATURES || size === V7_FEATURES);
  if (dims.length !== 2 || axis < 0) {
    throw new Error(
      `expected an output [N, ${V8_FEATURES}, boxes] (YOLOv8-pose) or [N, boxes, ${V7_FEATURES}] (YOLOv7-pose), got [N, ${dims.join(", ")}]`,
    );
  }
  const features = dims[axis]!;
  const boxes = dims[1 - axis]!;
  const [boxStep, featureStep] = axis === 0 ? [1, boxes] : [features, 1];
  const firstPoint = features - 3 * KEY_POINTS;
  const poses: Pose[] = [];
  for (let box = 0; box < boxes; box++) {
    const feature = (index: number) => data[box * boxStep + index * featureStep]!;
    const score = features === V7_FEATURES ? feature(4) * feature(5) : feature(4);
    if (!(score >= threshold)) continue;
    const [x, y, halfWidth, halfHeight] = [feature(0), feature(1), feature(2) / 2, feature(3) / 2];
    poses.push({
      left: x - halfWidth,
      top: y - halfHeight,
      right: x + halfWidth,
      bottom: y + halfHeight,
      score,
      classIndex: 0,
      keyPoints: Array.from({ length: KEY_POINTS }, (_, point) => {
        const at = firstPoint + 3 * point;
        return [feature(at), feature(at + 1), feature(at + 2)] as const;
      }),
    });
  }
  return poses;
}

/** `{"1": [x, y, 0, score], …}`, x and y as fractions of the picture, at its edge where a point lies outside. */
function toKeyPoints({ keyPoints }: Pose, { placement }: DecodedPicture): Record<string, number[]> {
  const fraction = (at: number, start: number, length: number) =>
    round4(Math.min(1, Math.max(0, (at - start) / length)));
  return Object.fromEntries(
    keyPoints.map(([x, y, score], index) => [
      String(index + 1),
      [
        fraction(x, placement.left, placement.width),
        fraction(y, placement.top, placement.height),
        0,
        round4(score),
      ],
    ]),
  );
}

const round4 = (value: number) => Math.round(value * 1e4) / 1e4;
