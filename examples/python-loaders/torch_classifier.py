"""torchvision: real batches on the CPU or a GPU."""

from dataclasses import dataclass

import torch
import torchvision
from infermill import BadInputError, BaseModelLoader, build_response
from torchvision.transforms.functional import pil_to_tensor


class TorchClassifierModelLoader(BaseModelLoader):
    @dataclass
    class Options:
        architecture: str = "resnet50"

    def load(self):
        weights = torchvision.models.get_model_weights(self.options.architecture).DEFAULT
        model = torchvision.models.get_model(self.options.architecture, weights=weights)
        self.device = self.settings["device"]
        self.model = model.eval().to(self.device)
        self.preprocessing = weights.transforms()
        self.labels = weights.meta["categories"]

    def predict_requests(self, requests):
        outcomes = []
        with self.timed("preprocess"):
            for request in requests:
                try:
                    outcomes.append(self.preprocessing(pil_to_tensor(request.picture.image())))
                except BadInputError as error:
                    outcomes.append(error)
        tensors = [outcome for outcome in outcomes if isinstance(outcome, torch.Tensor)]
        if not tensors:
            return outcomes
        with torch.inference_mode(), self.timed("infer"):
            scores = self.model(torch.stack(tensors).to(self.device)).softmax(dim=1).cpu()
        rows = iter(scores)
        return [
            self.answer(request, next(rows)) if isinstance(outcome, torch.Tensor) else outcome
            for request, outcome in zip(requests, outcomes)
        ]

    def answer(self, request, scores):
        top = scores.topk(5)
        findings = [
            {"Cs": score, "Lb": self.labels[index], "Dm": {}}
            for score, index in zip(top.values.tolist(), top.indices.tolist())
            if score >= request.threshold
        ]
        return build_response(request, findings, self.model_name)

    def describe(self):
        return {"labels": self.labels, "picture": "required"}
