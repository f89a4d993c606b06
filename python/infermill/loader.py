"""The contract of a loader in Python: one class for one kind of model.

An engine builds one instance, calls ``load()``, warms it up, then calls ``predict_requests`` with each batch. Every
method may be ``async``. A loader knows nothing of HTTP, Redis or jobs.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import contextmanager
from typing import Any, Callable, ClassVar, Iterator, Mapping, Optional, Sequence, Union

from .errors import BadInputError
from .options import parse_options
from .requests import Request
from .responses import build_response, get_datetime_utc

#: What became of one request of a batch: its response, or the exception that it failed with.
Outcome = Union[Mapping[str, Any], Exception]


class BaseModelLoader:
    """Base class of loaders. Its name must end in ``ModelLoader``.

    Write ``predict`` for a model that takes one picture at a time, ``predict_request`` for one that takes anything else,
    ``predict_requests`` for one that takes a batch.
    """

    #: The keys that this loader adds to its model's section, with defaults, checked at start: a dataclass, or a JSON
    #: Schema of an object. ``None`` takes whatever keys there are.
    Options: ClassVar[Any] = None

    #: This model's section of the configuration: ``model_path`` (absolute), ``class_names`` (labels), ``device``,
    #: ``max_batch_size`` and the loader's own keys.
    settings: Mapping[str, Any]
    model_name: str
    #: What ``Options`` made of the section: an instance of the dataclass, or a dictionary with defaults filled in.
    options: Any

    def __init__(self, config: Mapping[str, Any], model_name: str) -> None:
        """Reads parameters from ``config[model_name]``. Open models in ``load``, so that ``__init__`` stays quick."""
        self.settings = config[model_name]
        self.model_name = model_name
        self.options = parse_options(type(self), self.settings)

    def load(self) -> Any:
        """Opens the model; called once before the first request."""

    def preprocessing(self, *_args: Any, **_keys: Any) -> Any:
        """Author's hook: turns a picture into what ``predict`` runs. Not called by the base class."""

    def postprocessing(self, *_args: Any, **_keys: Any) -> Any:
        """Author's hook: turns what the model put out into findings. Not called by the base class."""

    def predict(self, *_args: Any, **_keys: Any) -> Any:
        """Preprocesses, runs and postprocesses one picture.

        The parameters are the author's choice; the base class calls it once for each picture as
        ``predict(picture, confidence_threshold, request)`` with a ``Picture`` and a number from 0 to 1, and expects a
        list of findings.
        """
        raise NotImplementedError(f"{type(self).__name__} must override predict, predict_request or predict_requests")

    def predict_request(self, request: Request) -> Any:
        """The main driver: request dictionary in, response dictionary out."""
        started_at = get_datetime_utc()
        pictures = request.pictures
        if not pictures:
            raise BadInputError(f'the model "{self.model_name}" needs a picture, the request has none')
        findings: list[Any] = []
        for index, picture in enumerate(pictures):
            found = resolve(self.predict(picture, request.threshold, request))
            if not isinstance(found, (list, tuple)):
                raise TypeError(
                    f"predict() of {type(self).__name__} must return a list of findings, got {type(found).__name__}"
                )
            findings += found if len(pictures) == 1 else [{**each, "Info": str(index)} for each in found]
        return build_response(request, findings, self.model_name, started_at)

    def predict_requests(self, requests: Sequence[Request]) -> Any:
        """The batched twin of ``predict_request``: one outcome for each request, in the same order.

        An exception as an outcome fails its own request only; one that is raised makes infermill try the two halves of
        the batch, down to the culprit. Called with at most ``batch_limit`` requests.
        """
        return predict_one_by_one(self.predict_request, requests)

    @property
    def batch_limit(self) -> int:
        """Most requests that one call of ``predict_requests`` really runs together. Read after ``load``."""
        if type(self).predict_requests is BaseModelLoader.predict_requests:
            return 1
        return int(self.settings.get("max_batch_size", 1))

    def warm_up_request(self) -> Optional[Mapping[str, Any]]:
        """A request that is run once after ``load``, so that the first prediction doesn't pay for lazy initialisation."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """What the model offers, shown by ``GET /v1/models/{model}`` and checked before a request is accepted.

        ``labels``, ``picture`` (``required``, ``optional`` or ``none``), ``required_keys``, ``inputs``, ``tensors``,
        ``takes_tensors``, ``embeds``, ``facts``, ``notes``.
        """
        return {"labels": list(self.settings.get("class_names", [])), "picture": "optional"}

    def close(self) -> Any:
        """Releases what ``load`` opened."""

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """``with self.timed("preprocess"):`` adds to a phase of the batch's timings: preprocess, infer or postprocess."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            key = f"{phase}_ms"
            if key not in TRACE:
                raise ValueError(f"a phase must be preprocess, infer or postprocess, got {phase!r}")
            TRACE[key] += (time.perf_counter() - started_at) * 1000


#: Where the time of the batch that runs went, in milliseconds; emptied by the engine before each batch.
TRACE: dict[str, float] = {"preprocess_ms": 0.0, "infer_ms": 0.0, "postprocess_ms": 0.0}

_report_progress: Callable[[], None] = lambda: None  # noqa: E731


def on_progress(report: Callable[[], None]) -> None:
    """Says who is notified of progress; the engine does."""
    global _report_progress
    _report_progress = report


def progress() -> None:
    """Tells the worker that a long run continues: ``timeout_ms`` counts from here again. Cheap enough for an inner loop."""
    _report_progress()


def predict_one_by_one(predict_request: Callable[[Request], Any], requests: Sequence[Request]) -> list[Outcome]:
    """Runs one request after the other; what is raised becomes the outcome of its own."""
    outcomes: list[Outcome] = []
    for request in requests:
        try:
            outcomes.append(resolve(predict_request(request)))
        except Exception as error:  # noqa: BLE001 -- it is the outcome
            outcomes.append(error)
    return outcomes


_loop: Optional[asyncio.AbstractEventLoop] = None


def resolve(value: Any) -> Any:
    """The value itself, or what comes of awaiting it on the engine's own event loop."""
    global _loop
    if not inspect.isawaitable(value):
        return value
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)

    async def wait() -> Any:
        return await value

    return _loop.run_until_complete(wait())
