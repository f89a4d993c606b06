"""Triton by PyTriton, a Python function for each core behind the dynamic batcher; the picture as bytes of its protocol."""

import json
import os

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

PORT = int(os.environ["PORT"])
WORKERS = range(int(os.environ["BENCH_WORKERS"]))


def pictures():
    from vision import Model

    model = Model()

    @batch
    def infer(image):
        found = model.predict([each[0] for each in image])
        return {"found": np.array([[json.dumps({"Fs": each}).encode()] for each in found])}

    return infer


def rows():
    from vectors import Rows

    model = Rows()

    @batch
    def infer(x):
        return {"y": model.run(x)}

    return infer


SERVED = {
    "pictures": (pictures, Tensor(name="image", dtype=bytes, shape=(1,)), Tensor(name="found", dtype=bytes, shape=(1,))),
    "rows": (rows, Tensor(name="x", dtype=np.float32, shape=(-1,)), Tensor(name="y", dtype=np.float32, shape=(-1,))),
}

if __name__ == "__main__":
    make, taken, given = SERVED[os.environ["BENCH_TASK"]]
    config = TritonConfig(http_address="127.0.0.1", http_port=PORT, grpc_address="127.0.0.1", grpc_port=PORT + 1, metrics_port=PORT + 2)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="Bench",
            infer_func=[make() for _ in WORKERS],
            inputs=[taken],
            outputs=[given],
            config=ModelConfig(max_batch_size=8, batcher=DynamicBatcher(max_queue_delay_microseconds=5000)),
            strict=False,
        )
        triton.serve()
