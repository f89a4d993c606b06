"""LitServe with batches of up to 8: a worker for each core behind one front, the picture as a file of a form."""

import os

import litserve


class Pictures(litserve.LitAPI):
    def setup(self, device):
        from vision import Model

        self.model = Model()

    def decode_request(self, request):
        return request["image"].file.read()

    def predict(self, pictures):
        return self.model.predict(pictures)

    def encode_response(self, found):
        return {"Fs": found}


class Rows(litserve.LitAPI):
    def setup(self, device):
        from vectors import Rows as RowsModel

        self.model = RowsModel()

    def decode_request(self, request):
        return request["x"]

    def predict(self, rows):
        return self.model.run(rows).tolist()

    def encode_response(self, row):
        return {"y": row}


class Echo(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["Fid"]

    def predict(self, ids):
        return ids

    def encode_response(self, found):
        return {"Fs": [], "Fid": found}


if __name__ == "__main__":
    served = {"pictures": Pictures, "rows": Rows, "echo": Echo}[os.environ["BENCH_TASK"]]
    api = served(max_batch_size=8, batch_timeout=0.005)
    workers = int(os.environ["BENCH_WORKERS"])
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=workers, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
    )
