"""A folder through Ray Data, an actor for each core: ray_peer.py <folder> <results.ndjson>."""

import json
import logging
import os
import sys

import ray

WORKERS = int(os.environ["BENCH_WORKERS"])


class Pictures:
    def __init__(self):
        from vision import Model

        self.model = Model()

    def __call__(self, batch):
        found = self.model.predict(batch["bytes"].tolist())
        return {"line": [json.dumps({"path": path, "Fs": each}) for path, each in zip(batch["path"], found)]}


if __name__ == "__main__":
    folder, results = sys.argv[1:]
    # One more than there are cores: the actors take one each, and then none would be left to read the files.
    ray.init(
        num_cpus=WORKERS + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": os.path.dirname(os.path.abspath(__file__)), "OMP_NUM_THREADS": "1"}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = ray.data.read_binary_files(folder, include_paths=True, file_extensions=["jpg"])
    found = files.map_batches(Pictures, concurrency=WORKERS, num_cpus=1, batch_size=8)
    with open(results, "w") as out:
        for row in found.iter_rows():
            out.write(row["line"] + "\n")
