"""Celery on Redis, a worker process for each core, behind an HTTP front of FastAPI that submits, waits and collects.

    celery -A celery_peer worker        BENCH_FRONT=1 uvicorn celery_peer:front
"""

import asyncio
import json
import os
import uuid
from contextlib import asynccontextmanager

from celery import Celery

URL = "redis+socket://" + os.environ["BENCH_REDIS"]
app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_serializer="pickle",
    accept_content=["pickle", "json"],
    result_serializer="json",
    # Lost with its worker, a task is run again, as infermill does it.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    result_expires=600,
    broker_connection_retry_on_startup=True,
)
model = None


@app.task
def classify(picture):
    global model
    if model is None:
        from vision import Model

        model = Model()
    return model.predict([picture])[0]


@app.task
def echo(fid):
    return fid


if os.environ.get("BENCH_FRONT"):
    import redis.asyncio
    from fastapi import FastAPI, Request

    store = redis.asyncio.Redis(unix_socket_path=os.environ["BENCH_REDIS"])
    KEY = "celery-task-meta-"
    waiting: dict[str, asyncio.Future] = {}

    @asynccontextmanager
    async def listening(_):
        """One subscription for all who wait: Celery publishes each result under the key that it stores it at."""
        events = store.pubsub()
        await events.psubscribe(KEY + "*")
        listener = asyncio.create_task(listen(events))
        yield
        listener.cancel()

    async def listen(events):
        async for event in events.listen():
            future = event["type"] == "pmessage" and waiting.pop(event["channel"].decode(), None)
            if future and not future.done():
                future.set_result(event["data"])

    front = FastAPI(lifespan=listening)

    async def result_of(task, *arguments, id):
        """The result of a task, submitted with these arguments or, without, submitted before."""
        future = waiting[KEY + id] = asyncio.get_running_loop().create_future()
        if arguments:
            task.apply_async(arguments, task_id=id)
        else:
            stored = await store.get(KEY + id)
            if stored and not future.done():
                future.set_result(stored)
        try:
            meta = json.loads(await asyncio.wait_for(future, 60))
        finally:
            waiting.pop(KEY + id, None)
        if meta["status"] != "SUCCESS":
            raise RuntimeError(str(meta["result"]))
        return meta["result"]

    @front.post("/predict")
    async def predict(request: Request):
        return {"Fs": await result_of(classify, await request.body(), id=str(uuid.uuid4()))}

    @front.post("/echo")
    async def echo_back(body: dict):
        return {"Fs": [], "Fid": await result_of(echo, body["Fid"], id=str(uuid.uuid4()))}

    @front.post("/submit", status_code=202)
    async def submit(request: Request):
        id = str(uuid.uuid4())
        classify.apply_async((await request.body(),), task_id=id)
        return {"id": id}

    @front.get("/result/{id}")
    async def result(id: str):
        return {"Fs": await result_of(classify, id=id)}
