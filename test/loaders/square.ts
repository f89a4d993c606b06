/** A classifier that throws on a whole batch when one of its pictures is not square. */
import {
  ImageClassificationModelLoader,
  type DecodedPicture,
  type Finding,
  type OutputRow,
  type PredictionRequest,
} from "infermill";

export class SquareModelLoader extends ImageClassificationModelLoader {
  override async postprocessing(
    row: OutputRow,
    picture: DecodedPicture,
    request: PredictionRequest,
  ): Promise<Finding[]> {
    if (picture.original.width !== picture.original.height) throw new Error("not square");
    return super.postprocessing(row, picture, request);
  }
}
