"""Counts the words of a text. It needs no model and no packages: load yours in load(), run it in predict_requests()."""

from infermill import BadInputError, BaseModelLoader


class WordsModelLoader(BaseModelLoader):
    def load(self):
        """Open your model here; it is called once, before the first request."""
        self.model = str.split

    def predict_requests(self, requests):
        """Gets a batch of requests, returns one outcome for each, in the same order."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        text = request["Text"]
        if not isinstance(text, str):
            # Returned and not raised, it fails this request only.
            return BadInputError(f"Text must be a string, got {text!r}")
        return {"Words": len(self.model(text))}

    def describe(self):
        return {"picture": "none", "required_keys": ["Text"]}
