/** What users of the package import: the client, what a custom loader builds on, and their types. */
export { ApiError, InfermillClient, PredictionFailedError, ServerUnreachableError } from "./client/client.ts";
export type { BulkRunRequest, ClientOptions, SubmitOptions } from "./client/client.ts";
export { closeModels, executeModel } from "./executeModel.ts";
export type { ExecuteOptions } from "./executeModel.ts";
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
  ImilText,
  MessageTravelStep,
  PredictionRequest,
  PredictionResponse,
} from "./loaders/dictionaries.ts";
export { attachPictures, picturesOf } from "./loaders/requestPictures.ts";
export { buildErrorResponse, buildResponse } from "./loaders/response.ts";
export { OnnxModelLoader } from "./loaders/OnnxModelLoader.ts";
export type { NormalisationFormat, OutputRow, PictureInput, RowOutput } from "./loaders/OnnxModelLoader.ts";
export { createTensorWriter, cropPicture, decodePicture, writeTensor } from "./loaders/picture.ts";
export type {
  DecodedPicture,
  DecodeOptions,
  Fit,
  PictureElementType,
  PictureSize,
  Placement,
  TensorData,
  TensorFormat,
  TensorWriter,
} from "./loaders/picture.ts";
export { suppressNonMaxima, toFinding } from "./loaders/boxes.ts";
export type { Candidate } from "./loaders/boxes.ts";
export { CenterNetModelLoader } from "./loaders/CenterNetModelLoader.ts";
export { ClipModelLoader, readPrompts } from "./loaders/ClipModelLoader.ts";
export { readClipTokenizer } from "./loaders/clipTokenizer.ts";
export type { ClipTokenizer } from "./loaders/clipTokenizer.ts";
export { DetectoModelLoader } from "./loaders/DetectoModelLoader.ts";
export { FacialExpressionRecognitionModelLoader } from "./loaders/FacialExpressionRecognitionModelLoader.ts";
export { ImageClassificationModelLoader, softmax } from "./loaders/ImageClassificationModelLoader.ts";
export { PoseEstimationModelLoader } from "./loaders/PoseEstimationModelLoader.ts";
export { YoloModelLoader } from "./loaders/YoloModelLoader.ts";
export { YoloxModelLoader } from "./loaders/YoloxModelLoader.ts";
export { BadInputError, ConfigError, InfermillError, LoaderError, RetryableError } from "./errors.ts";
