/** What a custom loader builds on: all that its file may import from "infermill". The package's entry has it too. */
export { BaseModelLoader } from "./BaseModelLoader.ts";
export type { BatchTrace, LoaderClass, LoaderConfig, ModelSection, Outcome } from "./BaseModelLoader.ts";
export type { LoaderDescription, TensorDescription } from "../core/description.ts";
export type {
  Box,
  Finding,
  ImilText,
  MessageTravelStep,
  PredictionRequest,
  PredictionResponse,
} from "../imil/dictionaries.ts";
export { attachInputs, attachOutputs, inputsOf, outputsOf } from "../core/request.ts";
export type { Input, Output, RequestDictionary, ResponseDictionary } from "../core/request.ts";
export type { InputDescription } from "../core/description.ts";
export { attachPictures, picturesOf } from "../imil/requestPictures.ts";
export { buildErrorResponse, buildResponse } from "../imil/response.ts";
export { OnnxModelLoader } from "./onnx/OnnxModelLoader.ts";
export type { OnnxGraph } from "./onnx/OnnxGraph.ts";
export type { InputTensor, InputTensors } from "./onnx/rows.ts";
export { OnnxTensorModelLoader } from "./onnx/OnnxTensorModelLoader.ts";
export { inlineTensors, readTensors, writeTensors } from "../tensors/dialect.ts";
export type { TensorEntry } from "../tensors/dialect.ts";
export { toNumbers } from "../tensors/numbers.ts";
export type { ElementType, TensorValue, Tensors } from "../tensors/tensor.ts";
export { OnnxPictureModelLoader } from "./pictures/OnnxPictureModelLoader.ts";
export type {
  Interpretation,
  NormalisationFormat,
  OutputRow,
  PictureInput,
  RowOutput,
} from "./pictures/OnnxPictureModelLoader.ts";
export { createTensorWriter, cropPicture, decodePicture, writeTensor } from "./pictures/picture.ts";
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
} from "./pictures/picture.ts";
export { suppressNonMaxima, toFinding } from "./vision/boxes.ts";
export type { Candidate } from "./vision/boxes.ts";
export { CenterNetModelLoader } from "./vision/CenterNetModelLoader.ts";
export { ClipModelLoader, readPrompts } from "./vision/ClipModelLoader.ts";
export { readClipTokenizer } from "./text/clipTokenizer.ts";
export type { ClipTokenizer } from "./text/clipTokenizer.ts";
export { TextClassificationModelLoader } from "./text/TextClassificationModelLoader.ts";
export { TextEmbeddingModelLoader } from "./text/TextEmbeddingModelLoader.ts";
export { TextModelLoader } from "./text/TextModelLoader.ts";
export type { FinishedText } from "./text/TextModelLoader.ts";
export { DepthEstimationModelLoader } from "./vision/DepthEstimationModelLoader.ts";
export { ImageEmbeddingModelLoader } from "./vision/ImageEmbeddingModelLoader.ts";
export { ImageRegressionModelLoader } from "./vision/ImageRegressionModelLoader.ts";
export { ImageToImageModelLoader } from "./vision/ImageToImageModelLoader.ts";
export { SemanticSegmentationModelLoader } from "./vision/SemanticSegmentationModelLoader.ts";
export { TextDetectionModelLoader } from "./vision/TextDetectionModelLoader.ts";
export { TextRecognitionModelLoader } from "./vision/TextRecognitionModelLoader.ts";
export { DetectionModelLoader } from "./vision/DetectionModelLoader.ts";
export { DetectoModelLoader } from "./vision/DetectoModelLoader.ts";
export { FacialExpressionRecognitionModelLoader } from "./vision/FacialExpressionRecognitionModelLoader.ts";
export { ImageClassificationModelLoader, softmax } from "./vision/ImageClassificationModelLoader.ts";
export { PoseEstimationModelLoader } from "./vision/PoseEstimationModelLoader.ts";
export { YoloModelLoader } from "./vision/YoloModelLoader.ts";
export { YoloxModelLoader } from "./vision/YoloxModelLoader.ts";
export { BadInputError, ConfigError, InfermillError, LoaderError, RetryableError } from "../errors.ts";
