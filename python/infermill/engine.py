"""The engine: a child process of a worker that holds one loader instance on one device.

The main thread runs the loader. A second one reads frames and the files that they name, so that the next batch is at
hand when one ends; it sees the worker go, too, whatever the loader is doing.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Mapping, NamedTuple, Optional, Sequence

from . import options
from .encode import encode_json, encode_response, to_bytes
from .errors import BadInputError, ConfigFaults, InfermillError, LoaderError, is_out_of_memory, wire_error
from .frames import PROTOCOL, Bytes, Channel
from .importing import describe, format_traceback, load_class, set_user_folder
from .inputs import InputReader
from .loader import TRACE, on_progress, predict_one_by_one, resolve
from .requests import UNKNOWN_MEDIA_TYPE, Input, Request

#: Outcomes that come quicker than this travel together.
COALESCE_S = 0.005
#: Bytes of outcomes that travel in one frame, unless a single response has more.
MAX_BODY_TOGETHER = 64 * 2**20
#: The largest response, with its outputs: a frame holds it in any case.
MAX_OUTCOME_BYTES = 128 * 2**20
PROGRESS_S = 0.1


class Member(NamedTuple):
    """A prediction whose inputs were read."""

    key: int
    request: Request
    read_ms: float


def main() -> None:
    # The worker decides what a signal to the whole group means. A handler, as what is ignored stays so in the
    # processes that a loader starts.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # What crashes in native code then says where, on stderr.
    faulthandler.enable()
    Engine(Channel()).run()


class Engine:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reporter = Reporter(channel)
        self._queue = Queue()
        self._load_frame: Optional[dict[str, Any]] = None
        self._load_came = threading.Event()
        self._reader: Optional[InputReader] = None
        self._loader: Any = None
        self._predict: Callable[[Sequence[Request]], Any] = lambda _: []
        self._model = ""
        self._max_pixels: Optional[int] = None
        #: Most requests that run together: the loader's limit, or what memory allowed.
        self._batch_limit = 1
        self._progress_at = 0.0

    def run(self) -> None:
        """Serves until the worker closes it or goes."""
        threading.Thread(target=self._read_frames, name="infermill-reader", daemon=True).start()
        self._load_came.wait()
        assert self._load_frame is not None
        try:
            ready = self._load(self._load_frame)
        except BaseException as error:  # noqa: BLE001 -- whatever the loader raises is told
            self._channel.send_json({"type": "load_failed", "error": _load_failure(error, self._model)})
            return
        self._channel.send_json(ready)
        while True:
            batch = self._queue.take()
            if batch is None:
                break
            self._run_batch(batch)
        if self._is_whole_contract() and hasattr(self._loader, "close"):
            try:
                resolve(self._loader.close())
            except Exception as error:  # noqa: BLE001
                print(format_traceback(error), file=sys.stderr)

    # Loading

    def _load(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        if frame["protocol"] != PROTOCOL:
            raise LoaderError(f"this engine speaks protocol {PROTOCOL}, its worker {frame['protocol']}")
        place, class_name = frame["loader"], frame["loader"]["class"]
        self._model = frame["model"]
        section = frame["config"][self._model]
        self._max_pixels = section.get("max_picture_pixels")
        options.COMMON_KEYS = frozenset(frame["common_keys"])
        set_user_folder(place)
        found = load_class(place, class_name)
        try:
            takes_none = found.__init__ is object.__init__  # type: ignore[misc]
            self._loader = found() if takes_none else found(frame["config"], self._model)
        except ConfigFaults:
            raise
        except Exception as error:
            raise LoaderError(f"the constructor of {class_name} failed: {describe(error)}") from error
        if self._is_whole_contract() and hasattr(self._loader, "load"):
            resolve(self._loader.load())
        if hasattr(self._loader, "predict_requests"):
            self._predict = self._loader.predict_requests
        else:
            predict_request = self._loader.predict_request
            self._predict = lambda requests: predict_one_by_one(predict_request, requests)
        self._batch_limit = self._read_batch_limit(int(section.get("max_batch_size", 1)))
        on_progress(self._tell_progress)
        self._warm_up()
        description = resolve(self._loader.describe()) if hasattr(self._loader, "describe") else {}
        return {
            "type": "ready",
            "protocol": PROTOCOL,
            "batch_limit": self._batch_limit,
            "description": {"labels": [], "picture": "optional", **description},
        }

    def _is_whole_contract(self) -> bool:
        """IMIL's classes load in their constructor; a method ``load`` of theirs has another role."""
        base = getattr(sys.modules.get("modelloader.base_model_loader"), "BaseModelLoader", None)
        return self._loader is not None and not (isinstance(base, type) and isinstance(self._loader, base))

    def _read_batch_limit(self, max_batch_size: int) -> int:
        default = max_batch_size if hasattr(self._loader, "predict_requests") else 1
        limit = getattr(self._loader, "batch_limit", default)
        limit = limit() if callable(limit) else limit
        if not isinstance(limit, int) or limit < 1:
            raise LoaderError(f"batch_limit must be a whole number ≥ 1, got {limit!r}")
        return min(limit, max_batch_size)

    def _warm_up(self) -> None:
        if not hasattr(self._loader, "warm_up_request"):
            return
        keys = resolve(self._loader.warm_up_request())
        if keys is None:
            return
        inputs = getattr(keys, "inputs", ())
        [outcome] = self._call([Request(keys, inputs, self._model, self._max_pixels)])
        if isinstance(outcome, BaseException):
            raise LoaderError(f"the warm-up failed: {describe(outcome)}") from outcome

    # Reading

    def _read_frames(self) -> None:
        _die_with_worker()
        try:
            while True:
                frame = self._channel.receive()
                if frame is None:
                    break
                self._receive(*frame)
        except OSError:
            # The loader closed the pipe.
            pass
        except Exception as error:  # noqa: BLE001
            print(f"the worker sent what this engine can't read: {error!r}", file=sys.stderr)
        _end_process()

    def _receive(self, header: dict[str, Any], body: memoryview) -> None:
        kind = header.get("type")
        if kind == "load":
            self._reader = InputReader(header["inputs"]["folder"], header["inputs"]["roots"])
            self._load_frame = header
            self._load_came.set()
        elif kind == "chunk":
            self._receive_chunk(header, body)
        elif kind == "close":
            self._queue.close()

    def _receive_chunk(self, header: Mapping[str, Any], body: memoryview) -> None:
        members = header["members"]
        self._reporter.expect(len(members))
        offset = 0
        batch: list[Member] = []
        for member in members:
            if not member["inputs"]:
                batch.append(Member(member["key"], Request(member["request"], (), self._model, self._max_pixels), 0.0))
                if len(batch) >= self._batch_limit:
                    self._queue.put(batch, header["is_urgent"])
                    batch = []
                continue
            started_at = time.perf_counter()
            try:
                inputs = []
                for ref in member["inputs"]:
                    if "bytes" in ref:
                        data = bytes(body[offset : offset + ref["bytes"]])
                        offset += ref["bytes"]
                    else:
                        assert self._reader is not None
                        data = self._reader.read(ref)
                    inputs.append(Input(ref.get("name", "image"), ref.get("media_type", UNKNOWN_MEDIA_TYPE), data))
            except BadInputError as error:
                offset += sum(ref.get("bytes", 0) for ref in member["inputs"][len(inputs) + 1 :])
                read_ms = (time.perf_counter() - started_at) * 1000
                self._reporter.report([_failure(member["key"], error, _timings(read_ms), 0)])
                continue
            request = Request(member["request"], inputs, self._model, self._max_pixels)
            batch.append(Member(member["key"], request, (time.perf_counter() - started_at) * 1000))
            if len(batch) >= self._batch_limit:
                self._queue.put(batch, header["is_urgent"])
                batch = []
        if batch:
            self._queue.put(batch, header["is_urgent"])

    # Running

    def _run_batch(self, batch: list[Member]) -> None:
        """Runs a batch; where the loader raises, its two halves, down to the requests that it raises on alone."""
        limit = self._batch_limit
        if len(batch) > limit:
            for start in range(0, len(batch), limit):
                self._run_batch(batch[start : start + limit])
            return
        for phase in TRACE:
            TRACE[phase] = 0.0
        started_at = time.perf_counter()
        outcomes: Sequence[Any] = ()
        try:
            outcomes = self._call([member.request for member in batch])
        except BaseException as error:  # noqa: BLE001 -- also SystemExit: a loader doesn't end its engine
            if len(batch) == 1:
                outcomes = [error]
            elif is_out_of_memory(error):
                self._lower_batch_limit(len(batch), error)
        if not outcomes:
            # The exception has gone by now, and with its frames what filled the memory.
            _free_memory()
            half = len(batch) // 2
            self._run_batch(batch[:half])
            self._run_batch(batch[half:])
            return
        if not TRACE["infer_ms"]:
            spent = (time.perf_counter() - started_at) * 1000
            TRACE["infer_ms"] = max(0.0, spent - TRACE["preprocess_ms"] - TRACE["postprocess_ms"])
        self._reporter.report(_encode_batch(batch, outcomes))

    def _call(self, requests: list[Request]) -> Sequence[Any]:
        outcomes = resolve(self._predict(requests))
        if not isinstance(outcomes, (list, tuple)) or len(outcomes) != len(requests):
            got = len(outcomes) if isinstance(outcomes, (list, tuple)) else type(outcomes).__name__
            raise LoaderError(
                f"predict_requests must return a list of one outcome for each of its {len(requests)} requests, got {got}"
            )
        return outcomes

    def _lower_batch_limit(self, tried: int, error: BaseException) -> None:
        self._batch_limit = max(1, tried // 2)
        self._channel.send_json(
            {"type": "batch_limit", "batch_limit": self._batch_limit, "reason": f"{tried} at once: {describe(error)}"[:500]}
        )

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now - self._progress_at >= PROGRESS_S:
            self._progress_at = now
            self._channel.send_json({"type": "progress"})


class Queue:
    """Batches that wait to run, the urgent first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._urgent: Deque[list[Member]] = deque()
        self._others: Deque[list[Member]] = deque()
        self._is_closed = False

    def put(self, batch: list[Member], is_urgent: bool) -> None:
        with self._condition:
            (self._urgent if is_urgent else self._others).append(batch)
            self._condition.notify()

    def take(self) -> Optional[list[Member]]:
        """Waits for the next one; None when the queue was closed and is empty."""
        with self._condition:
            while True:
                if self._urgent:
                    return self._urgent.popleft()
                if self._others:
                    return self._others.popleft()
                if self._is_closed:
                    return None
                self._condition.wait()

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify()


class Encoded(NamedTuple):
    """Outcomes as they travel."""

    header: str
    body: Sequence[Bytes] = ()
    #: How many predictions they are of.
    predictions: int = 1

    @property
    def size(self) -> int:
        return len(self.header) + sum(map(len, self.body))


class Reporter:
    """Sends outcomes, those that come in quick succession together."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._condition = threading.Condition()
        self._unsent: list[Encoded] = []
        self._under_way = 0
        self._sent_at = 0.0
        self._is_flushing = False

    def expect(self, count: int) -> None:
        with self._condition:
            self._under_way += count

    def report(self, outcomes: list[Encoded]) -> None:
        with self._condition:
            self._unsent += outcomes
            self._under_way -= sum(outcome.predictions for outcome in outcomes)
            if self._under_way == 0 or time.monotonic() - self._sent_at >= COALESCE_S:
                self._send()
            elif not self._is_flushing:
                self._is_flushing = True
                threading.Thread(target=self._flush_later, daemon=True).start()

    def _flush_later(self) -> None:
        time.sleep(COALESCE_S)
        with self._condition:
            self._is_flushing = False
            self._send()

    def _send(self) -> None:
        outcomes, self._unsent = self._unsent, []
        self._sent_at = time.monotonic()
        while outcomes:
            size = count = 0
            while count < len(outcomes):
                size += outcomes[count].size
                if count and size > MAX_BODY_TOGETHER:
                    break
                count += 1
            now, outcomes = outcomes[:count], outcomes[count:]
            header = '{"type":"outcomes","outcomes":[' + ",".join(outcome.header for outcome in now) + "]}"
            self._channel.send(to_bytes(header), [part for outcome in now for part in outcome.body])


def _encode_batch(batch: list[Member], outcomes: Sequence[Any]) -> list[Encoded]:
    """All at once where they are plain dictionaries, as nearly all are; else one by one, so that each fails alone."""
    size = len(batch)
    if size > 1 and all(type(outcome) is dict and "outputs" not in outcome for outcome in outcomes):
        phases = {phase: round(ms, 3) for phase, ms in TRACE.items() if ms}
        try:
            text = encode_json(
                [
                    {
                        "key": member.key,
                        "response": outcome,
                        "timings": {"read_ms": round(member.read_ms, 3), **phases} if member.read_ms else phases,
                        "batch_size": size,
                    }
                    for member, outcome in zip(batch, outcomes)
                ]
            )
            if len(text) <= MAX_BODY_TOGETHER:
                return [Encoded(text[1:-1], (), size)]
        except (ValueError, TypeError, RecursionError):
            pass
    return [_outcome(member, outcome, size) for member, outcome in zip(batch, outcomes)]


def _timings(read_ms: float) -> str:
    return (
        f'{{"read_ms":{read_ms:.3f},"preprocess_ms":{TRACE["preprocess_ms"]:.3f},'
        f'"infer_ms":{TRACE["infer_ms"]:.3f},"postprocess_ms":{TRACE["postprocess_ms"]:.3f}}}'
    )


def _outcome(member: Member, outcome: Any, batch_size: int) -> Encoded:
    timings = _timings(member.read_ms)
    try:
        if isinstance(outcome, BaseException):
            raise outcome
        text, outputs = encode_response(outcome)
    except BaseException as error:  # noqa: BLE001 -- it is the outcome
        return _failure(member.key, error, timings, batch_size)
    names = ""
    if outputs:
        names = ',"outputs":' + json.dumps(
            [{"name": each.name, "media_type": each.media_type, "bytes": len(each.data)} for each in outputs]
        )
    header = f'{{"key":{member.key},"response":{text}{names},"timings":{timings},"batch_size":{batch_size}}}'
    encoded = Encoded(header, [each.data for each in outputs])
    if encoded.size > MAX_OUTCOME_BYTES:
        too_large = f"the response has {encoded.size} bytes with its outputs, at most {MAX_OUTCOME_BYTES} can be sent"
        return _failure(member.key, LoaderError(too_large), timings, batch_size)
    return encoded


def _failure(key: int, error: BaseException, timings: str, batch_size: int) -> Encoded:
    is_known = isinstance(error, InfermillError)
    wire = wire_error(error, str(error) if is_known else describe(error), format_traceback(error))
    return Encoded(
        f'{{"key":{key},"error":{json.dumps(wire)},"timings":{timings},"batch_size":{batch_size}}}'
    )


def _load_failure(error: BaseException, model: str) -> dict[str, Any]:
    if isinstance(error, ConfigFaults):
        detail = "; ".join(f"models.{model}.{fault['key']} {fault['problem']}" for fault in error.faults)
    elif isinstance(error, InfermillError):
        detail = f"models.{model}: {error}"
    else:
        detail = f"models.{model}: {describe(error)}"
    return wire_error(error, detail, format_traceback(error.__cause__ or error))


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _die_with_worker() -> None:
    """On Linux also where a loader holds the interpreter's lock for good."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        pass


def _end_process() -> None:
    """Ends this process at once, and those that the loader started where they are in its group."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)

