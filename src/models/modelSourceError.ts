/** The one error of model sources, in a file of its own because every part of them throws it. */
import { InfermillError } from "../errors.ts";

/** A source that names no usable model file. */
export class ModelSourceError extends InfermillError {
  override readonly code = "bad_model_source";
  override readonly title = "The model file can't be used";
}
