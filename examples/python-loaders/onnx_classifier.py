"""onnxruntime in Python: pictures of a batch become one tensor, the scores of each come out."""

import numpy
import onnxruntime
from infermill import BaseModelLoader, build_response

MEAN = numpy.array([0.485, 0.456, 0.406], numpy.float32)
STD = numpy.array([0.229, 0.224, 0.225], numpy.float32)


class OnnxClassifierModelLoader(BaseModelLoader):
    def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings["intra_op_threads"]
        device = self.settings["device"].split(":")[0]
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        self.session = onnxruntime.InferenceSession(self.settings["model_path"][0], options, providers=[provider])
        self.input = self.session.get_inputs()[0].name

    def preprocessing(self, picture):
        image = picture.image().resize((224, 224))
        pixels = numpy.asarray(image, numpy.float32) / 255
        return ((pixels - MEAN) / STD).transpose(2, 0, 1)

    def predict_requests(self, requests):
        with self.timed("preprocess"):
            outcomes = [self.try_preprocessing(request) for request in requests]
            tensors = [outcome for outcome in outcomes if isinstance(outcome, numpy.ndarray)]
        with self.timed("infer"):
            [logits] = self.session.run(None, {self.input: numpy.stack(tensors)}) if tensors else [()]
        rows = iter(logits)
        return [
            self.answer(request, next(rows)) if isinstance(outcome, numpy.ndarray) else outcome
            for request, outcome in zip(requests, outcomes)
        ]

    def try_preprocessing(self, request):
        try:
            return self.preprocessing(request.picture)
        except ValueError as error:
            return error

    def answer(self, request, logits):
        scores = numpy.exp(logits - logits.max())
        scores /= scores.sum()
        best = numpy.argsort(-scores, kind="stable")
        labels = self.settings["class_names"]
        findings = [
            {"Cs": round(float(scores[index]), 2), "Lb": labels[index], "Dm": {}}
            for index in best
            if scores[index] >= request.threshold
        ]
        return build_response(request, findings, self.model_name)

    def describe(self):
        return {"labels": self.settings["class_names"], "picture": "required"}
