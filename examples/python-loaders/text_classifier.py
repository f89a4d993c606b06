"""Hugging Face transformers: a text in, the label and its score out."""

from dataclasses import dataclass

from infermill import BaseModelLoader
from transformers import pipeline


class TextClassifierModelLoader(BaseModelLoader):
    @dataclass
    class Options:
        checkpoint: str

    def load(self):
        self.pipe = pipeline("text-classification", self.options.checkpoint, device=self.settings["device"])

    def predict_requests(self, requests):
        texts = [str(request["Text"]) for request in requests]
        found = self.pipe(texts, batch_size=len(texts), truncation=True)
        return [{"Label": each["label"], "Score": each["score"]} for each in found]

    def warm_up_request(self):
        return {"Text": "warm"}

    def describe(self):
        return {"labels": list(self.pipe.model.config.id2label.values()), "picture": "none", "required_keys": ["Text"]}
