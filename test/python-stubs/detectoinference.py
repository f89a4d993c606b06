"""Stands for IMIL's wheel: torchvision's detector contract over the ONNX file that DETECTO_MODEL or the section names."""

import base64
import io
import json
import os

import numpy
import onnxruntime
from PIL import Image


class Detecto:
    def __init__(self, model_weight_file=None):
        path = model_weight_file or os.environ["DETECTO_MODEL"]
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        with open(os.environ["DETECTO_LABELS"], encoding="utf-8") as file:
            self.labels = json.load(file)

    def executeModel(self, Base_64, Cs):
        image = Image.open(io.BytesIO(base64.b64decode(Base_64))).convert("RGB")
        pixels = numpy.asarray(image, numpy.float32).transpose(2, 0, 1) / 255
        boxes, labels, scores = self.session.run(["boxes", "labels", "scores"], {"image": pixels})
        width, height = image.size
        return [
            {
                "Cs": round(float(score), 4),
                "Lb": self.labels[str(label)],
                "Dm": {
                    "X": round(float(left / width), 4),
                    "Y": round(float(top / height), 4),
                    "W": round(float((right - left) / width), 4),
                    "H": round(float((bottom - top) / height), 4),
                },
            }
            for (left, top, right, bottom), label, score in zip(boxes, labels, scores)
            if score >= float(Cs)
        ]
