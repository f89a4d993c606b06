"""Client of infermill's HTTP API, for threads (`Client`) and for asyncio (`AsyncClient`).

>>> from infermill_client import Client
>>> with Client("http://127.0.0.1:8448") as infermill:
...     response = infermill.predict("CocoObjectDetection", pictures=["sheep.jpg"])
"""

from .aio import AsyncClient
from .client import Client
from .errors import ApiError, InfermillError, PredictionFailedError, ServerUnreachableError
from .types import BulkResult, BulkRun, Output, Prediction
from .webhooks import verify_webhook

__all__ = [
    "ApiError",
    "AsyncClient",
    "BulkResult",
    "BulkRun",
    "Client",
    "InfermillError",
    "Output",
    "Prediction",
    "PredictionFailedError",
    "ServerUnreachableError",
    "verify_webhook",
]
