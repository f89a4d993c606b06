"""The client for threads. It can be shared by several of them."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, Optional, Union

import httpx

from . import _calls
from ._calls import MAX_WAIT_SECONDS, Call, Request, Source, path_of
from .errors import PredictionFailedError
from .types import BulkResult, BulkRun, Json, Prediction


class Client:
    """
    Every method raises ApiError where the server refuses, and ServerUnreachableError where it can't be reached.

    :param url: where the server is, such as `http://127.0.0.1:8448` or `https://example.org/infermill`
    :param api_key: one of the server's `api_keys`
    :param retries: how often a call is made again where the server can't be reached, is full (429) or away (502, 503,
        504); it waits for as long as `Retry-After` says, else 0.25 s, 0.5 s, 1 s and so on
    :param timeout: seconds to connect, and to wait for more bytes behind what the server itself may wait
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8448",
        *,
        api_key: Optional[str] = None,
        retries: int = 5,
        timeout: float = 30.0,
    ) -> None:
        self._retries = retries
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout, read=MAX_WAIT_SECONDS + timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    # Predictions

    def predict(
        self,
        model: str,
        request: Optional[Mapping[str, Any]] = None,
        *,
        pictures: Sequence[Source] = (),
        inputs: Optional[Mapping[str, Source]] = None,
        **options: Any,
    ) -> Json:
        """
        Submits a request and waits for its end, however long that takes.

        :param request: the request dictionary
        :param pictures: bytes or paths, of any format that the server decodes
        :param inputs: bytes or paths by name, where a model tells its inputs apart
        :param options: as `submit` takes them
        :returns: the response dictionary
        :raises PredictionFailedError: where it failed, was cancelled or expired
        """
        options.setdefault("wait_seconds", MAX_WAIT_SECONDS)
        accepted = self.submit(model, request, pictures=pictures, inputs=inputs, **options)
        prediction = self.wait(accepted)
        if prediction.result is None:
            raise PredictionFailedError(prediction)
        return prediction.result

    def predict_many(
        self,
        model: str,
        requests: Iterable[Request],
        *,
        concurrency: int = 32,
        progress: bool = False,
        return_exceptions: bool = False,
        **options: Any,
    ) -> Iterator[Union[Prediction, Exception]]:
        """
        The predictions of many requests, in their order, each as soon as those before it have ended. One that failed is
        a prediction with `error`.

        :param requests: request dictionaries, or pictures (bytes or paths); read as they are needed
        :param concurrency: how many are submitted and not yet ended
        :param progress: shows a progress bar (tqdm)
        :param return_exceptions: yields an ApiError or OSError in its place instead of raising it
        :param options: as `submit` takes them
        """
        total = len(requests) if isinstance(requests, Sized) else None
        bar = _calls.progress_bar(progress, total, "prediction")

        def run(request: Any) -> Prediction:
            submission = {**options, "wait_seconds": MAX_WAIT_SECONDS, **_calls.submission_of(request)}
            return self.wait(self.submit(model, **submission))

        running: deque[Future[Prediction]] = deque()
        with ThreadPoolExecutor(concurrency, thread_name_prefix="infermill") as pool:
            try:
                for request in requests:
                    running.append(pool.submit(run, request))
                    if len(running) >= 2 * concurrency:
                        yield _result_of(running.popleft(), return_exceptions)
                        bar.update()
                while running:
                    yield _result_of(running.popleft(), return_exceptions)
                    bar.update()
            finally:
                for future in running:
                    future.cancel()
                bar.close()

    def submit(
        self,
        model: str,
        request: Optional[Mapping[str, Any]] = None,
        *,
        pictures: Sequence[Source] = (),
        inputs: Optional[Mapping[str, Source]] = None,
        priority: Optional[str] = None,
        ttl_ms: Optional[int] = None,
        timeout_ms: Optional[int] = None,
        webhook: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        wait_seconds: float = 0,
    ) -> Prediction:
        """
        Submits a request; with `wait_seconds` (up to 60) the prediction may have ended in the answer.

        :param priority: `high`, `normal` or `low`
        :param ttl_ms: longest wait in the queue, in milliseconds
        :param timeout_ms: longest run, in milliseconds
        :param webhook: URL that is notified of the end
        :param idempotency_key: the same key and the same request give the first prediction again; a random one by default
        """
        call = _calls.submit(
            model,
            request,
            pictures=pictures,
            inputs=inputs or {},
            priority=priority,
            ttl_ms=ttl_ms,
            timeout_ms=timeout_ms,
            webhook=webhook,
            idempotency_key=idempotency_key,
            wait_seconds=wait_seconds,
        )
        return Prediction.of(self._json(call))

    def get(self, model: str, id: str, *, wait_seconds: float = 0) -> Prediction:
        """Reads a prediction; with `wait_seconds` (up to 60) as it is when it ends or that time has passed."""
        path = path_of("v1", "models", model, "predictions", id)
        return Prediction.of(self._json(Call("GET", path, {"wait": wait_seconds or None})))

    def wait(self, prediction: Prediction, *, timeout: Optional[float] = None) -> Prediction:
        """
        Waits until a prediction has ended.

        :param timeout: seconds after which TimeoutError is raised; the prediction continues
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not prediction.ended:
            left = MAX_WAIT_SECONDS if until is None else until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{prediction.id} is still {prediction.status} after {timeout} s")
            prediction = self.get(prediction.model, prediction.id, wait_seconds=min(left, MAX_WAIT_SECONDS))
        return prediction

    def cancel(self, model: str, id: str) -> Prediction:
        """Cancels a prediction. Once more is harmless."""
        return Prediction.of(self._json(Call("DELETE", path_of("v1", "models", model, "predictions", id))))

    def list_predictions(
        self, model: str, *, status: Optional[str] = None, limit: Optional[int] = None
    ) -> list[Prediction]:
        """A model's predictions, the newest first."""
        path = path_of("v1", "models", model, "predictions")
        answer = self._json(Call("GET", path, {"status": status, "limit": limit}))
        return [Prediction.of(each) for each in answer["predictions"]]

    def output(self, prediction: Prediction, name: str) -> bytes:
        """The bytes of an output: a picture, a mask, a large tensor."""
        output = prediction.output(name)
        if output.data is not None:
            return base64.b64decode(output.data)
        path = path_of("v1", "models", prediction.model, "predictions", prediction.id, "outputs", name)
        return self._call(Call("GET", path)).content

    # Models

    def models(self) -> list[Json]:
        """The configured models."""
        return list(self._json(Call("GET", "v1/models"))["models"])

    def model(self, model: str) -> Json:
        """What a model takes and answers, its labels, and whether it is ready."""
        return self._json(Call("GET", path_of("v1", "models", model)))

    # Bulk runs

    def start_bulk(
        self,
        model: str,
        folder: str,
        *,
        glob: Optional[str] = None,
        request: Optional[Mapping[str, Any]] = None,
        priority: Optional[str] = None,
        fail_fast: Optional[bool] = None,
        max_failures: Optional[int] = None,
        deadline: Union[datetime, int, str, None] = None,
        metadata: Optional[Mapping[str, str]] = None,
        webhook: Optional[str] = None,
        webhook_events: Optional[Iterable[str]] = None,
        idempotency_key: Optional[str] = None,
    ) -> BulkRun:
        """
        Starts a bulk run over a folder of the server.

        :param folder: `<root>` or `<root>/<path>` below the server's `bulk_roots`
        :param glob: which files, such as `*.jpg`; whatever is a picture by default
        :param request: keys for the request dictionary of every file
        :param fail_fast: ends the run as failed with the first entry that fails
        :param max_failures: entries that may fail; with one more the run ends as failed
        :param deadline: when the run ends as failed if it has not ended: a time, or seconds from now
        :param metadata: what comes back in the run and in its webhook
        :param idempotency_key: the same key and the same request give the first run again; random by default
        """
        call = _calls.start_bulk(
            model,
            folder,
            glob=glob,
            request=request,
            priority=priority,
            fail_fast=fail_fast,
            max_failures=max_failures,
            deadline=deadline,
            metadata=metadata,
            webhook=webhook,
            webhook_events=webhook_events,
            idempotency_key=idempotency_key,
        )
        return BulkRun.of(self._json(call))

    def get_bulk(self, id: str) -> BulkRun:
        return BulkRun.of(self._json(Call("GET", path_of("v1", "bulk", id))))

    def wait_bulk(self, id: str, *, progress: bool = False, interval: float = 1.0) -> BulkRun:
        """
        Waits until a bulk run has ended.

        :param progress: shows a progress bar (tqdm)
        :param interval: seconds between two looks
        """
        bar = _calls.progress_bar(progress, None, "entry")
        try:
            while True:
                run = self.get_bulk(id)
                bar.total = run.counts["total"]
                bar.update(run.counts["done"] - bar.n)
                if run.ended:
                    return run
                time.sleep(interval)
        finally:
            bar.close()

    def bulk_results(
        self, id: str, *, after: int = 0, status: Optional[str] = None, follow: bool = True
    ) -> Iterator[BulkResult]:
        """
        The results of a bulk run as they come, until it has ended. A connection that breaks is made again.

        :param after: continues behind this `line`
        :param status: `succeeded` or `failed` only
        :param follow: whether to wait for those that are still to come
        """
        failures = 0
        while True:
            call = Call(
                "GET",
                path_of("v1", "bulk", id, "results"),
                {"after": after or None, "status": status, "follow": None if follow else "false"},
            )
            answer = self._call(call, stream=True)
            try:
                for line in answer.iter_lines():
                    result = BulkResult.of(json.loads(line))
                    after, failures = result.line, 0
                    yield result
                return
            except httpx.TransportError as error:
                failures += 1
                if failures > self._retries:
                    raise _calls.unreachable(str(self._http.base_url), error) from error
                time.sleep(_calls.retry_delay(failures, None))
            finally:
                answer.close()

    def bulk_skipped(self, id: str) -> Iterator[Json]:
        """What a bulk run found in its folder and left out: `path`, `reason` and often `detail`."""
        answer = self._call(Call("GET", path_of("v1", "bulk", id, "skipped")), stream=True)
        try:
            yield from map(json.loads, answer.iter_lines())
        except httpx.TransportError as error:
            raise _calls.unreachable(str(self._http.base_url), error) from error
        finally:
            answer.close()

    def cancel_bulk(self, id: str) -> BulkRun:
        """Cancels a bulk run; its results stay. One that has ended is left as it is."""
        return BulkRun.of(self._json(Call("POST", path_of("v1", "bulk", id, "cancel"))))

    def resume_bulk(self, id: str) -> BulkRun:
        """Resumes a bulk run that failed or was cancelled."""
        return BulkRun.of(self._json(Call("POST", path_of("v1", "bulk", id, "resume"), repeatable=False)))

    # HTTP

    def _json(self, call: Call) -> Json:
        return dict(self._call(call).json())

    def _call(self, call: Call, *, stream: bool = False) -> httpx.Response:
        steps = _calls.exchange(call, self._retries, str(self._http.base_url))
        step = next(steps)
        while True:
            answer: Optional[_calls.Answer] = None
            if isinstance(step, Call):
                try:
                    answer = self._http.send(self._http.build_request(**step.arguments()), stream=stream)
                    if stream and not answer.is_success:
                        answer.read()
                except httpx.TransportError as error:
                    answer = error
            else:
                time.sleep(step)
            try:
                step = steps.send(answer)
            except StopIteration as end:
                response: httpx.Response = end.value
                return response


def _result_of(future: Future[Prediction], return_exceptions: bool) -> Union[Prediction, Exception]:
    try:
        return future.result()
    except Exception as error:
        if not return_exceptions:
            raise
        return error
