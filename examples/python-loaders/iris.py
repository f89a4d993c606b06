"""scikit-learn: rows of numbers in, the class of each out; a whole batch in one call of the model."""

from dataclasses import dataclass

from infermill import BadInputError, BaseModelLoader
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier


class IrisModelLoader(BaseModelLoader):
    @dataclass
    class Options:
        trees: int = 50

    def load(self):
        data = load_iris()
        self.labels = [str(name) for name in data.target_names]
        self.model = RandomForestClassifier(self.options.trees, random_state=0).fit(data.data, data.target)

    def predict_requests(self, requests):
        outcomes = [self.read(request) for request in requests]
        rows = [row for row in outcomes if isinstance(row, list)]
        scores = iter(self.model.predict_proba(rows) if rows else ())
        return [self.answer(next(scores)) if isinstance(row, list) else row for row in outcomes]

    def read(self, request):
        row = request["Row"]
        if isinstance(row, list) and len(row) == 4 and all(isinstance(number, (int, float)) for number in row):
            return row
        # Returned and not raised, it fails this request only and leaves the batch whole.
        return BadInputError(f"Row must be a list of 4 numbers, got {row!r}")

    def answer(self, scores):
        return {"Label": self.labels[scores.argmax()], "Scores": scores}

    def describe(self):
        return {"labels": self.labels, "picture": "none", "required_keys": ["Row"]}
