"""FastAPI with onnxruntime in the handler: a process for each core, no batches, no queue.

BENCH_TASK says what is served: pictures, echo, rows or texts.
"""

import os

from fastapi import FastAPI, Request

TASK = os.environ["BENCH_TASK"]
app = FastAPI()


if TASK == "pictures":
    from vision import Model

    model = Model()

    @app.post("/predict")
    async def predict(request: Request):
        return {"Fs": model.predict([await request.body()])[0]}


if TASK == "echo":

    @app.post("/predict")
    async def echo(body: dict):
        return {"Fs": [], "Fid": body["Fid"]}


if TASK == "rows":
    from vectors import Rows

    rows = Rows()

    @app.post("/predict")
    async def infer(body: dict):
        return {"y": rows.run([body["x"]])[0].tolist()}


if TASK == "texts":
    from vectors import Texts

    texts = Texts()

    @app.post("/predict")
    async def embed(body: dict):
        return {"embedding": texts.embed([body["input"]])[0].tolist()}
