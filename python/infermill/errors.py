"""What a loader raises to say whose fault it was. Every other exception counts as a fault of the loader."""

from __future__ import annotations

from typing import Any


class InfermillError(Exception):
    """An error with a stable code, as clients see it."""

    code = "internal_error"
    title = "Internal error"
    status = 500
    #: Whether the same prediction can succeed when it is run again.
    retryable = False


class BadInputError(InfermillError, ValueError):
    """The request or its picture can't be used: the prediction fails with 422 and is not tried again."""

    code = "bad_input"
    title = "The input can't be used"
    status = 422


class MissingKeyError(BadInputError, KeyError):
    """A loader read a key that the request lacks. It is a ``KeyError``, too."""

    def __str__(self) -> str:
        return str(self.args[0])


class LoaderError(InfermillError):
    """The loader failed on this prediction alone."""

    code = "loader_failed"
    title = "The model loader failed"


class RetryableError(InfermillError):
    """A fault that passes, such as a service that is away: the prediction is tried again, up to ``attempts`` times."""

    code = "temporary_fault"
    title = "A temporary fault"
    status = 503
    retryable = True


class ConfigFaults(InfermillError):
    """The model's section, its loader file or its interpreter can't be used."""

    code = "bad_configuration"
    title = "The configuration can't be used"

    def __init__(self, faults: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{fault['key']} {fault['problem']}" for fault in faults))
        self.faults = faults


def fault(key: str, problem: str) -> ConfigFaults:
    """One fault of a model's section: ``key`` is relative to the section."""
    return ConfigFaults([{"key": key, "problem": problem}])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may work: of torch and its older versions, TensorFlow, onnxruntime, CUDA, Python itself."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "ResourceExhaustedError"):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "failed to allocate memory" in text)


def wire_error(error: BaseException, detail: str, stack: str | None = None) -> dict[str, Any]:
    """An error on its way to the worker."""
    known = error if isinstance(error, InfermillError) else LoaderError()
    return {
        "code": known.code,
        "title": known.title,
        "status": known.status,
        "retryable": known.retryable,
        "detail": detail,
        **({"stack": stack} if stack else {}),
    }
