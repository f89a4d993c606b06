"""Stands for OpenAI's package: the same interface over two ONNX encoders, in the folder that CLIP_FOLDER names."""

import os

import numpy
import onnxruntime
from torch import Tensor

SIDE = 224
CONTEXT = 77
START, END = 49406, 49407
MEAN = numpy.array([0.48145466, 0.4578275, 0.40821073], numpy.float32)
STD = numpy.array([0.26862954, 0.26130258, 0.27577711], numpy.float32)


def load(name, device="cpu"):
    assert name.startswith("ViT-") and device == "cpu"
    return Model(os.environ["CLIP_FOLDER"]), preprocess


def preprocess(image):
    scale = SIDE / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    resized = image.resize((width, height), 3).crop((left, top, left + SIDE, top + SIDE))
    pixels = numpy.asarray(resized, numpy.float32) / 255
    return Tensor(((pixels - MEAN) / STD).transpose(2, 0, 1))


def tokenize(texts):
    """With a vocabulary whose merges never apply: each letter is a token."""
    rows = numpy.zeros((len(texts), CONTEXT), numpy.int64)
    for row, text in zip(rows, texts):
        letters = [
            ord(letter) - 33 + (256 if at == len(word) - 1 else 0)
            for word in text.split(" ")
            for at, letter in enumerate(word)
        ]
        row[: len(letters) + 2] = [START, *letters, END]
    return Tensor(rows)


class Model:
    def __init__(self, folder):
        self.image, self.text = (
            onnxruntime.InferenceSession(os.path.join(folder, name), providers=["CPUExecutionProvider"])
            for name in ("image.onnx", "text.onnx")
        )

    def __call__(self, image, text):
        pictures = self.image.run(["image_embeds"], {"pixel_values": image.array})[0]
        texts = self.text.run(["text_embeds"], {"input_ids": text.array})[0]
        logits = 100 * normalised(pictures) @ normalised(texts).T
        return Tensor(logits), Tensor(logits.T)


def normalised(vectors):
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)
