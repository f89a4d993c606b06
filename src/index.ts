/** What users of the package import: the classes that a custom loader builds on, and their types. */
export { BaseModelLoader } from "./loaders/BaseModelLoader.ts";
export type {
  BatchTrace,
  LoaderClass,
  LoaderConfig,
  LoaderDescription,
  ModelSection,
  Outcome,
  TensorDescription,
} from "./loaders/BaseModelLoader.ts";
export type {
  Box,
  Finding,
  MessageTravelStep,
  PredictionRequest,
  PredictionResponse,
} from "./loaders/dictionaries.ts";
export { attachPictures, picturesOf } from "./loaders/requestPictures.ts";
export { buildResponse } from "./loaders/response.ts";
export { OnnxModelLoader } from "./loaders/OnnxModelLoader.ts";
export type { NormalisationFormat, OutputRow, PictureInput, RowOutput } from "./loaders/OnnxModelLoader.ts";
export { decodePicture } from "./loaders/picture.ts";
export type {
  DecodedPicture,
  DecodeOptions,
  Fit,
  PictureSize,
  Placement,
  TensorFormat,
} from "./loaders/picture.ts";
export { suppressNonMaxima, toFinding } from "./loaders/boxes.ts";
export type { Candidate } from "./loaders/boxes.ts";
export { CenterNetModelLoader } from "./loaders/CenterNetModelLoader.ts";
export { ImageClassificationModelLoader, softmax } from "./loaders/ImageClassificationModelLoader.ts";
export { YoloModelLoader } from "./loaders/YoloModelLoader.ts";
export { YoloxModelLoader } from "./loaders/YoloxModelLoader.ts";
export { BadInputError, InfermillError, LoaderError, RetryableError } from "./errors.ts";
