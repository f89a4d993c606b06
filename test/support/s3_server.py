"""An S3 server for tests: moto's, with the buckets that it finds in a folder, so that one that was killed has them again.

Usage: s3_server.py FOLDER PORT. A folder in FOLDER is a bucket, its files are its objects. Prints the port once it
listens, and then a line for each request: the method and the path.
"""

import logging
import os
import sys
from pathlib import Path

# Any credentials will do, and no request goes anywhere.
os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        # In one piece: requests end side by side.
        sys.stdout.write(f"{self.command} {self.path} {code}\n")
        sys.stdout.flush()


def seed(folder: Path) -> None:
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for bucket in sorted(folder.iterdir()):
        backend.create_bucket(bucket.name, "us-east-1")
        for file in sorted(bucket.rglob("*")):
            if file.is_file():
                backend.put_object(bucket.name, file.relative_to(bucket).as_posix(), file.read_bytes())


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    seed(Path(sys.argv[1]))
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", int(sys.argv[2]), application, threaded=True, request_handler=Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
