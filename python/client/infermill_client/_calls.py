"""What the two clients have in common: the calls of the API, and when one is made again. Nothing here sends anything."""

from __future__ import annotations

import json
import math
import mimetypes
import os
import secrets
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional, Union
from urllib.parse import quote

import httpx

from .errors import ApiError, ServerUnreachableError
from .types import Json

MAX_WAIT_SECONDS = 60
"""What the server waits at most."""
PASSING = frozenset({429, 502, 503, 504})
"""Answers after which the same call may do better."""
FIRST_RETRY_SECONDS = 0.25
MAX_RETRY_SECONDS = 30.0

Source = Union[bytes, str, "os.PathLike[str]"]
"""Bytes, or the path of a file."""
Request = Union[Mapping[str, Any], Source]
"""A request dictionary, or a picture that is one alone."""


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Optional[bytes] = None
    files: Optional[list[tuple[str, tuple[str, bytes, str]]]] = None
    repeatable: bool = True

    def arguments(self) -> dict[str, Any]:
        """Of `httpx.Client.build_request`."""
        query = {key: value for key, value in self.query.items() if value is not None}
        return {
            "method": self.method,
            "url": self.path,
            "params": query or None,
            "headers": dict(self.headers),
            "content": self.content,
            "files": self.files,
        }


Answer = Union[httpx.Response, httpx.TransportError]


def exchange(call: Call, retries: int, base: str) -> Generator[Union[Call, float], Optional[Answer], httpx.Response]:
    """Yields a call that is to be made, or seconds that are to be waited; is sent what came of the call."""
    attempt = 0
    while True:
        attempt += 1
        answer = yield call
        may_repeat = call.repeatable and attempt <= retries
        if isinstance(answer, httpx.Response):
            if answer.is_success:
                return answer
            if not may_repeat or answer.status_code not in PASSING:
                raise ApiError(problem_of(answer))
            yield retry_delay(attempt, answer.headers.get("Retry-After"))
        else:
            if not may_repeat:
                raise unreachable(base, answer) from answer
            yield retry_delay(attempt, None)


def unreachable(base: str, error: Optional[httpx.TransportError]) -> ServerUnreachableError:
    return ServerUnreachableError(f"{base} can't be reached: {error}")


def retry_delay(attempt: int, retry_after: Optional[str]) -> float:
    try:
        asked = float(retry_after or 0)
    except ValueError:
        asked = 0.0
    delay = asked if asked > 0 and math.isfinite(asked) else FIRST_RETRY_SECONDS * 2 ** (attempt - 1)
    return min(delay, MAX_RETRY_SECONDS)


def problem_of(answer: httpx.Response) -> Json:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    status = answer.status_code
    return {
        "type": "about:blank",
        "title": answer.reason_phrase,
        "code": "unknown",
        "detail": f"the server answered {status} {answer.reason_phrase}",
        **(problem if isinstance(problem, dict) else {}),
        "status": status,
    }


def path_of(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def submit(
    model: str,
    request: Optional[Mapping[str, Any]],
    *,
    pictures: Sequence[Source],
    inputs: Mapping[str, Source],
    priority: Optional[str],
    ttl_ms: Optional[int],
    timeout_ms: Optional[int],
    webhook: Optional[str],
    idempotency_key: Optional[str],
    wait_seconds: float,
) -> Call:
    headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
    if wait_seconds > 0:
        headers["Prefer"] = f"wait={min(wait_seconds, MAX_WAIT_SECONDS):g}"
    text = json.dumps({} if request is None else request, ensure_ascii=False, allow_nan=False).encode()
    parts = [("image", source) for source in pictures] + list(inputs.items())
    files = [("request", ("request.json", text, "application/json"))] + [
        (name, _file_of(source)) for name, source in parts
    ]
    if not parts:
        headers["Content-Type"] = "application/json"
    return Call(
        "POST",
        path_of("v1", "models", model, "predictions"),
        query={"priority": priority, "ttl_ms": ttl_ms, "timeout_ms": timeout_ms, "webhook": webhook},
        headers=headers,
        content=None if parts else text,
        files=files if parts else None,
    )


def _file_of(source: Source) -> tuple[str, bytes, str]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "picture", bytes(source), "application/octet-stream"
    path = Path(source)
    return path.name, path.read_bytes(), mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _time_of(time: datetime) -> str:
    """One without a zone is in this machine's."""
    return time.astimezone(timezone.utc).isoformat()


def start_bulk(
    model: str,
    folder: str,
    *,
    glob: Optional[str],
    request: Optional[Mapping[str, Any]],
    priority: Optional[str],
    fail_fast: Optional[bool],
    max_failures: Optional[int],
    deadline: Union[datetime, int, str, None],
    metadata: Optional[Mapping[str, str]],
    webhook: Optional[str],
    webhook_events: Optional[Iterable[str]],
    idempotency_key: Optional[str],
) -> Call:
    body = {
        "model": model,
        "folder": folder,
        "glob": glob,
        "request": request,
        "priority": priority,
        "fail_fast": fail_fast,
        "max_failures": max_failures,
        "deadline": _time_of(deadline) if isinstance(deadline, datetime) else deadline,
        "metadata": metadata,
        "webhook": webhook,
        "webhook_events": list(webhook_events) if webhook_events is not None else None,
    }
    text = json.dumps({key: value for key, value in body.items() if value is not None}, allow_nan=False)
    return Call(
        "POST",
        "v1/bulk",
        headers={
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key or secrets.token_hex(16),
        },
        content=text.encode(),
    )


def submission_of(request: Any) -> dict[str, Any]:
    """What stands for a request in a list of many: a dictionary, or a picture (bytes, or a path)."""
    if request is None or isinstance(request, Mapping):
        return {"request": request}
    return {"pictures": [request]}


def progress_bar(wanted: bool, total: Optional[int], unit: str) -> Any:
    """A bar of tqdm, or one that shows nothing."""
    if not wanted:
        return _NoBar()
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError('progress=True needs tqdm: pip install "infermill-client[progress]"') from error
    return tqdm(total=total, unit=unit)


class _NoBar:
    total: Optional[int] = None
    n = 0

    def update(self, _count: int = 1) -> None: ...

    def refresh(self) -> None: ...

    def close(self) -> None: ...
