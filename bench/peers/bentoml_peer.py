"""BentoML with its adaptive batches of up to 8: a worker for each core, the picture as a file of a form."""

import os
from pathlib import Path

import bentoml

WORKERS = int(os.environ["BENCH_WORKERS"])
# A request that BentoML expects to wait for longer is refused.
MAX_LATENCY_MS = 60_000
options = {
    "workers": WORKERS,
    "traffic": {"timeout": 60, "max_concurrency": 256},
    "logging": {"access": {"enabled": False}},
}


@bentoml.service(**options)
class Pictures:
    def __init__(self):
        from vision import Model

        self.model = Model()

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=MAX_LATENCY_MS)
    def predict(self, images: list[Path]) -> list[dict]:
        return [{"Fs": found} for found in self.model.predict([image.read_bytes() for image in images])]


@bentoml.service(**options)
class Echo:
    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=MAX_LATENCY_MS)
    def predict(self, ids: list[str]) -> list[dict]:
        return [{"Fs": [], "Fid": each} for each in ids]
