"""A folder through a pool of processes, one for each core: pool_peer.py <folder> <results.ndjson>."""

import json
import multiprocessing
import os
import sys
from pathlib import Path

model = None


def open_model():
    global model
    from vision import Model

    model = Model()


def run(file):
    return json.dumps({"path": str(file), "Fs": model.predict([file.read_bytes()])[0]})


if __name__ == "__main__":
    folder, results = map(Path, sys.argv[1:])
    files = sorted(folder.rglob("*.jpg"))
    with multiprocessing.Pool(int(os.environ["BENCH_WORKERS"]), open_model) as pool, results.open("w") as out:
        for line in pool.imap_unordered(run, files, chunksize=8):
            out.write(line + "\n")
