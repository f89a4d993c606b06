"""The fastest loop over pictures that this machine does with any library, for one process of it a core: libjpeg-turbo decodes at the
smallest of its scales that suffices (simplejpeg), OpenCV shrinks the rest, onnxruntime runs picture by picture, since on
a CPU a batch of a convolutional network costs more. No queue, no HTTP.

A line of JSON on standard input a question, one on standard output an answer: {"files"} loads and answers what is found in the first; {"seconds"}
runs and answers pictures per second.
"""

import json
import sys
import time
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from vision import Model  # noqa: E402

model = Model()
files = []


def predict(file):
    with open(file, "rb") as picture:
        return model.predict([picture.read()])[0]


def rate(seconds):
    started = time.perf_counter()
    done = 0
    for file in cycle(files):
        predict(file)
        done += 1
        taken = time.perf_counter() - started
        if taken > seconds:
            return done / taken


for line in sys.stdin:
    question = json.loads(line)
    if "files" in question:
        files = question["files"]
        answer = {"found": predict(files[0])}
    else:
        answer = {"rate": rate(question["seconds"])}
    print(json.dumps(answer), flush=True)
