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
  ModelSection,
  Outcome,
} from "./loaders/BaseModelLoader.ts";
export type { LoaderDescription, TensorDescription } from "./core/description.ts";
export type {
  Box,
  Finding,
  ImilText,
  MessageTravelStep,
  PredictionRequest,
  PredictionResponse,
} from "./imil/dictionaries.ts";
export { attachInputs, attachOutputs, inputsOf, outputsOf } from "./core/request.ts";
export type { Input, Output, RequestDictionary, ResponseDictionary } from "./core/request.ts";
export type { InputDescription } from "./core/description.ts";
export { attachPictures, picturesOf } from "./imil/requestPictures.ts";
export { buildErrorResponse, buildResponse } from "./imil/response.ts";
export { OnnxPictureModelLoader } from "./loaders/pictures/OnnxPictureModelLoader.ts";
export type {
  NormalisationFormat,
  OutputRow,
  PictureInput,
  RowOutput,
} from "./loaders/pictures/OnnxPictureModelLoader.ts";
export { createTensorWriter, cropPicture, decodePicture, writeTensor } from "./loaders/pictures/picture.ts";
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
} from "./loaders/pictures/picture.ts";
export { suppressNonMaxima, toFinding } from "./loaders/vision/boxes.ts";
export type { Candidate } from "./loaders/vision/boxes.ts";
export { CenterNetModelLoader } from "./loaders/vision/CenterNetModelLoader.ts";
export { ClipModelLoader, readPrompts } from "./loaders/vision/ClipModelLoader.ts";
export { readClipTokenizer } from "./loaders/text/clipTokenizer.ts";
export type { ClipTokenizer } from "./loaders/text/clipTokenizer.ts";
export { DetectoModelLoader } from "./loaders/vision/DetectoModelLoader.ts";
export { FacialExpressionRecognitionModelLoader } from "./loaders/vision/FacialExpressionRecognitionModelLoader.ts";
export { ImageClassificationModelLoader, softmax } from "./loaders/vision/ImageClassificationModelLoader.ts";
export { PoseEstimationModelLoader } from "./loaders/vision/PoseEstimationModelLoader.ts";
export { YoloModelLoader } from "./loaders/vision/YoloModelLoader.ts";
export { YoloxModelLoader } from "./loaders/vision/YoloxModelLoader.ts";
export { BadInputError, ConfigError, InfermillError, LoaderError, RetryableError } from "./errors.ts";
