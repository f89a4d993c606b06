import path from "node:path";
import { describe, expect, it } from "vitest";
import {
  ImageClassificationModelLoader,
  YoloModelLoader,
  YoloxModelLoader,
  type LoaderClass,
} from "../../../../src/index.ts";
import { suggestLoaders } from "../../../../src/loaders/vision/suggestLoader.ts";
import { readModelFacts } from "../../../../src/models/modelFacts.ts";
import { node, tensor, valueInfo } from "../../../../src/models/onnxProto.ts";
import { modelFile, openLoader } from "../../../support/loaders.ts";
import { sharedField, sharedModels } from "../../../support/sharedModels.ts";

describe.skipIf(!sharedField || !sharedModels)("the loader that fits a file", () => {
  it.each([
    ["any/yolov8n_end2end/model.onnx", "YoloModelLoader"],
    ["any/yolov8n_seg/model.onnx", "YoloModelLoader"],
    ["any/rtdetr_hf/model.onnx", "DetectionModelLoader"],
    ["any/rapidocr_rec/model.onnx", "TextRecognitionModelLoader"],
    ["any/image_embedding_512/model.onnx", "ImageEmbeddingModelLoader"],
    ["any/regression_age/model.onnx", "ImageRegressionModelLoader"],
    ["any/siamese_two_pictures/model.onnx", "ImageRegressionModelLoader"],
    ["any/super_resolution_x2/model.onnx", "ImageToImageModelLoader"],
    ["any/minilm_int8/model.onnx", "OnnxTensorModelLoader"],
    ["squeezenet1_1/squeezenet1_1.onnx", "ImageClassificationModelLoader"],
    ["yolov8n/yolov8n.onnx", "YoloModelLoader"],
    ["detecto_style/detecto_style_yolox_nano.onnx", "DetectoModelLoader"],
    ["npm_human/centernet.onnx", "CenterNetModelLoader"],
    ["../field/tf-detection/ssd_mobilenet.onnx", "DetectoModelLoader"],
    ["../field/two-inputs/rtdetr.onnx", "DetectionModelLoader"],
    ["yolox_nano/yolox_nano.onnx", "YoloxModelLoader"],
  ])("of %s is %s", async (file, loader) => {
    const [first] = suggestLoaders(await readModelFacts(path.join(sharedModels!, file)));
    expect(first?.loader).toBe(loader);
  });

  it.each<[string, LoaderClass, string]>([
    ["any/rapidocr_rec/model.onnx", ImageClassificationModelLoader, "TextRecognitionModelLoader"],
    ["yolov8n/yolov8n.onnx", ImageClassificationModelLoader, "YoloModelLoader"],
    ["squeezenet1_1/squeezenet1_1.onnx", YoloModelLoader, "ImageClassificationModelLoader"],
    ["yolov8n/yolov8n.onnx", YoloxModelLoader, "YoloModelLoader"],
    ["any/minilm_int8/model.onnx", YoloModelLoader, "OnnxTensorModelLoader"],
  ])("%s is refused by another one, with its name", async (file, Loader, named) => {
    await expect(openLoader(Loader, [path.join(sharedModels!, file)])).rejects.toThrow(named);
  });
});

it("a sound of [N, samples, 1] is no grey picture", async () => {
  const file = await modelFile({
    opset: 13,
    name: "sound",
    inputs: [valueInfo("wave", "float32", ["N", 43_844, 1])],
    outputs: [valueInfo("scores", "float32", ["N", 3])],
    nodes: [node("ReduceMean", ["wave"], ["mean"], { axes: [1] }), node("MatMul", ["mean", "w"], ["scores"])],
    initializers: [tensor("w", [1, 3], Float32Array.of(1, 2, 3))],
  });
  await expect(openLoader(ImageClassificationModelLoader, [file])).rejects.toThrow("OnnxTensorModelLoader");
});
