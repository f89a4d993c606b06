"""What the client raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .types import Prediction


class InfermillError(Exception):
    """Any error of this package."""


class ApiError(InfermillError):
    """The server refused a call; `problem` is its answer (RFC 9457), `code` and `status` are taken from it."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem
        self.code: str = problem["code"]
        self.status: int = problem["status"]


class ServerUnreachableError(InfermillError):
    """The server could not be reached, or the connection broke in the middle of its answer."""


class PredictionFailedError(InfermillError):
    """A prediction ended without a response; `prediction.error` says why."""

    def __init__(self, prediction: Prediction) -> None:
        detail = (prediction.error or {}).get("detail", "it has no response")
        super().__init__(f"{prediction.id} {prediction.status}: {detail}")
        self.prediction = prediction
