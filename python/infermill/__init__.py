"""What a loader in Python imports: the base class, requests and their pictures, outputs, errors."""

from __future__ import annotations

from .errors import BadInputError, InfermillError, RetryableError
from .loader import BaseModelLoader, progress
from .requests import Input, Picture, Request
from .responses import Output, attach_outputs, build_response

__version__ = "0.1.0"

__all__ = [
    "BadInputError",
    "BaseModelLoader",
    "InfermillError",
    "Input",
    "Output",
    "Picture",
    "Request",
    "RetryableError",
    "attach_outputs",
    "build_response",
    "progress",
]
