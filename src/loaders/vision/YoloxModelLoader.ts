/**
 * YOLOX detectors as Megvii exports them: BGR 0..255 in, [N, boxes, 5 + classes] out, boxes still relative to their
 * grid cells.
 */
import type { TensorDescription } from "../../core/description.ts";
import { DetectionModelLoader, detectorOptions } from "./DetectionModelLoader.ts";
import type { Finding, PredictionRequest } from "../../imil/dictionaries.ts";
import type { NormalisationFormat, OutputRow, RowOutput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture, PictureSize } from "../pictures/picture.ts";
import { readYoloBoxes } from "./YoloModelLoader.ts";

const STRIDES = [8, 16, 32];

export class YoloxModelLoader extends DetectionModelLoader {
  static readonly options = detectorOptions({ conf_thres: 0.25, iou_thres: 0.45 });

  protected override get defaultInputSize(): PictureSize {
    return { width: 416, height: 416 };
  }

  protected override tensorFormat(): NormalisationFormat {
    return { channels: "bgr", scale: 1 };
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): string[] {
    return outputs.slice(0, 1).map(({ name }) => name);
  }

  protected override fitPicture(picture: Buffer): Promise<DecodedPicture> {
    return this.decode(picture, "letterbox-top-left");
  }

  override async postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    const { data, dims } = Object.values(row)[0]!;
    const [boxes, features = 0] = dims;
    const classes = features - 5;
    const labels = this.settings.class_names.length;
    const expected = STRIDES.reduce((sum, stride) => sum + cellsOf(picture.canvas, stride).count, 0);
    if (dims.length !== 2 || boxes !== expected || classes < 1 || (labels > 0 && classes !== labels)) {
      throw new Error(
        `expected an output [N, ${expected}, ${labels > 0 ? 5 + labels : "5 + classes"}] for an input of ` +
          `${picture.canvas.width}×${picture.canvas.height}${labels > 0 ? ` and ${labels} labels` : ""}, got [N, ${dims.join(", ")}]`,
      );
    }
    decodeGrids(data, picture.canvas, features);
    const layout = { boxes, classes, hasObjectness: true, boxStep: features, featureStep: 1 };
    return this.toFindings(readYoloBoxes(data, layout, this.thresholdOf(request)), picture);
  }
}

function cellsOf(canvas: PictureSize, stride: number) {
  const columns = Math.floor(canvas.width / stride);
  return { columns, count: columns * Math.floor(canvas.height / stride) };
}

/** In place, as YOLOX's `demo_postprocess`: centre = (output + cell) × stride, size = e^output × stride, rows first. */
function decodeGrids(data: RowOutput["data"], canvas: PictureSize, features: number): void {
  let at = 0;
  for (const stride of STRIDES) {
    const { columns, count } = cellsOf(canvas, stride);
    for (let cell = 0; cell < count; cell++, at += features) {
      data[at] = (data[at]! + (cell % columns)) * stride;
      data[at + 1] = (data[at + 1]! + Math.floor(cell / columns)) * stride;
      data[at + 2] = Math.exp(data[at + 2]!) * stride;
      data[at + 3] = Math.exp(data[at + 3]!) * stride;
    }
  }
}
