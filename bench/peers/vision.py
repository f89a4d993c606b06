"""The picture model of every Python peer: one session of onnxruntime on one thread, one picture or a batch.

BENCH_MODEL is JSON: {"file", "kind": "classifier" | "detector", "side", "threshold", "labels"}. BENCH_DECODER is what makes pixels of
a JPEG: "pillow"; "draft", which lets Pillow decode at a half, a quarter or an eighth where that suffices; "turbo",
libjpeg-turbo at the smallest of its scales that suffices.
"""

import io
import json
import os

import numpy as np
import onnxruntime
from PIL import Image

MODEL = json.loads(os.environ["BENCH_MODEL"])
DECODER = os.environ.get("BENCH_DECODER", "pillow")
SIDE, THRESHOLD = MODEL["side"], MODEL["threshold"]
IS_CLASSIFIER = MODEL["kind"] == "classifier"
PADDING = 114 / 255

if IS_CLASSIFIER:
    MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
else:
    MEAN, STD = np.zeros(3), np.ones(3)
FACTOR = (1 / (255 * STD)).astype(np.float32)[:, None, None]
OFFSET = (-MEAN / STD).astype(np.float32)[:, None, None]

if DECODER == "turbo":
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)


def fitted(width, height):
    """Size of a picture of this size on the model's canvas: stretched over it, or kept in shape."""
    if IS_CLASSIFIER:
        return SIDE, SIDE
    scale = min(SIDE / width, SIDE / height)
    return round(width * scale), round(height * scale)


def decode(data):
    """A JPEG as RGB bytes [height, width, 3] of the size that it has on the canvas."""
    if DECODER == "turbo":
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        size = fitted(width, height)
        scaled = simplejpeg.decode_jpeg(data, min_width=size[0], min_height=size[1])
        return cv2.resize(scaled, size, interpolation=cv2.INTER_AREA)
    picture = Image.open(io.BytesIO(data))
    size = fitted(*picture.size)
    if DECODER == "draft":
        picture.draft("RGB", size)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def place(pixels, canvas):
    """Writes pixels, normalised, into the middle of a canvas [3, side, side]; answers their left, top, width, height."""
    height, width = pixels.shape[:2]
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    if (height, width) != (SIDE, SIDE):
        canvas.fill(PADDING)
    part = canvas[:, top : top + height, left : left + width]
    np.multiply(pixels.transpose(2, 0, 1), FACTOR, out=part)
    part += OFFSET
    return left, top, width, height


class Model:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(MODEL["file"], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name
        self.run(np.zeros((1, 3, SIDE, SIDE), np.float32))

    def run(self, canvases):
        return self.session.run(None, {self.name: canvases})[0]

    def predict(self, jpegs):
        """Findings of each picture. Classifiers run them as one batch; a detector gains nothing by that on a CPU."""
        if IS_CLASSIFIER:
            canvases = np.empty((len(jpegs), 3, SIDE, SIDE), np.float32)
            for jpeg, canvas in zip(jpegs, canvases):
                place(decode(jpeg), canvas)
            return [classes_of(row) for row in self.run(canvases)]
        return [self.detect(jpeg) for jpeg in jpegs]

    def detect(self, jpeg):
        canvas = np.empty((1, 3, SIDE, SIDE), np.float32)
        left, top, width, height = place(decode(jpeg), canvas[0])
        return boxes_of(self.run(canvas)[0], np.array([left, top]), np.array([width, height]))


def finding(score, index, box):
    return {"Cs": round(float(score), 2), "Lb": MODEL["labels"][index], "Dm": box}


def classes_of(logits):
    powers = np.exp(logits - logits.max())
    scores = powers / powers.sum()
    found = np.flatnonzero(scores >= THRESHOLD)
    return [finding(scores[index], index, {}) for index in found[np.argsort(-scores[found])]]


def boxes_of(output, corner, extent, max_overlap=0.7):
    """YOLOv8's [4 + classes, boxes] (centre, size, scores), suppressed class by class, as fractions of the picture."""
    classes = output[4:].argmax(0)
    scores = output[4:].max(0)
    wanted = np.flatnonzero(scores >= THRESHOLD)
    wanted = wanted[np.argsort(-scores[wanted])]
    centre, size = output[:2, wanted].T, output[2:4, wanted].T
    low, high = centre - size / 2, centre + size / 2
    areas = size.prod(1)
    kept = []
    for index, candidate in enumerate(wanted):
        rivals = [other for other in kept if classes[wanted[other]] == classes[candidate]]
        common = np.clip(np.minimum(high[index], high[rivals]) - np.maximum(low[index], low[rivals]), 0, None).prod(1)
        if (common <= max_overlap * (areas[index] + areas[rivals] - common)).all():
            kept.append(index)
    return [
        finding(
            scores[wanted[index]],
            classes[wanted[index]],
            dict(zip("XYWH", np.concatenate([(low[index] - corner) / extent, size[index] / extent]).tolist())),
        )
        for index in kept
    ]
