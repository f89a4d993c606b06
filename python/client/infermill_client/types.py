"""What the server answers, with attributes. `raw` is the JSON as it came."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Optional, TypeVar

Json = dict[str, Any]
T = TypeVar("T", bound="_Document")


@dataclass(frozen=True)
class _Document:
    @classmethod
    def of(cls: type[T], raw: Json) -> T:
        """Keys that this version does not know stand in `raw` alone."""
        known = {each.name for each in fields(cls)} - {"raw"}
        values: Json = {key: value for key, value in raw.items() if key in known}
        return cls(**values, raw=raw)  # type: ignore[call-arg]


@dataclass(frozen=True)
class Output:
    """Bytes beside the response: a picture, a mask, a large tensor."""

    name: str
    media_type: str
    bytes: int
    """Size."""
    url: str
    data: Optional[str] = None
    """The bytes as base64, where they are few."""


@dataclass(frozen=True)
class Prediction(_Document):
    id: str
    model: str
    status: str
    """`queued`, `running`, `succeeded`, `failed`, `cancelled` or `expired`."""
    created_at: str
    """ISO 8601, UTC."""
    started_at: Optional[str] = None
    finished_at: Optional[str] = None
    attempts: int = 0
    """How often it was started."""
    result: Optional[Json] = None
    """The response dictionary."""
    outputs: list[Json] = field(default_factory=list)
    error: Optional[Json] = None
    timings: Optional[dict[str, float]] = None
    """Where the time went, in milliseconds: `queue_ms`, `read_ms`, `preprocess_ms`, `infer_ms`, `postprocess_ms`."""
    batch_size: Optional[int] = None
    engine: Optional[str] = None
    raw: Json = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        return self.finished_at is not None

    def output(self, name: str) -> Output:
        """
        The output of this name.

        :raises KeyError: where the prediction has none of this name
        """
        for each in self.outputs:
            if each["name"] == name:
                return Output(**{key: each[key] for key in each if key in Output.__dataclass_fields__})
        names = ", ".join(each["name"] for each in self.outputs) or "none"
        raise KeyError(f"{self.id} has no output {name!r}; it has {names}")


@dataclass(frozen=True)
class BulkRun(_Document):
    id: str
    model: str
    status: str
    """`queued`, `walking`, `running`, `completed`, `cancelled` or `failed`."""
    counts: dict[str, int]
    """`total`, `done`, `succeeded`, `failed`."""
    created_at: str
    folder: Optional[str] = None
    glob: Optional[str] = None
    max_failures: Optional[int] = None
    """Entries that may fail before the run gives up; None for any number."""
    deadline: Optional[str] = None
    """When it gives up; None for never."""
    metadata: dict[str, str] = field(default_factory=dict)
    """As it was given at the start."""
    skipped: Json = field(default_factory=dict)
    """What was found in the folder and left out: `total` and `by_reason`."""
    progress: Optional[float] = None
    """0 to 1; None while the folder is walked."""
    images_per_second: Optional[float] = None
    eta_seconds: Optional[float] = None
    started_at: Optional[str] = None
    finished_at: Optional[str] = None
    error: Optional[Json] = None
    raw: Json = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "cancelled", "failed")


@dataclass(frozen=True)
class BulkResult(_Document):
    """How one entry of a bulk run ended."""

    index: int
    status: str
    """`succeeded` or `failed`."""
    line: int
    """Of the results, from 1; `after` continues behind it."""
    path: Optional[str] = None
    custom_id: Optional[str] = None
    result: Optional[Json] = None
    error: Optional[Json] = None
    timings: Optional[dict[str, float]] = None
    raw: Json = field(default_factory=dict, repr=False)
