"""Responses as JSON and bytes: numpy and torch values converted, large tensors beside the dictionary, NaN refused."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Callable, Iterator, Mapping, Optional, Tuple

from .errors import LoaderError
from .responses import Output

#: A tensor of more bytes than this leaves the dictionary.
MAX_INLINE_BYTES = 4096

#: numpy's names of element types and those of the Open Inference Protocol.
_DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


def encode_response(response: Any) -> Tuple[str, list[Output]]:
    """The dictionary as JSON text, and the outputs beside it.

    :raises LoaderError: where it is no dictionary, or holds what JSON can't, with the path of the key
    """
    if not isinstance(response, (dict, Mapping)):
        raise LoaderError(f"the loader must return a response dictionary, got {_shown(response)}")
    outputs: list[Output] = list(getattr(response, "outputs", []))
    tensors = response.get("outputs")
    if isinstance(tensors, (list, tuple)) and any(_is_tensor_entry(entry) for entry in tensors):
        response = {**response, "outputs": [_encode_tensor(entry, outputs) for entry in tensors]}
    try:
        return _ENCODER.encode(response), outputs
    except (ValueError, TypeError, RecursionError) as error:
        raise LoaderError(_explain(response, error)) from error


def _is_tensor_entry(entry: Any) -> bool:
    return isinstance(entry, Mapping) and _as_array(entry.get("data")) is not None


def _as_array(value: Any) -> Any:
    """A numpy array, or what becomes one without a copy of ours; None for anything else."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        # numpy has no bfloat16.
        value = value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value
        return value.numpy()
    if hasattr(value, "dtype") and hasattr(value, "tobytes") and hasattr(value, "shape"):
        return value
    if hasattr(value, "numpy") and callable(value.numpy) and hasattr(value, "shape"):
        return value.numpy()
    return None


def _encode_tensor(entry: Any, outputs: list[Output]) -> Any:
    """An entry of the Open Inference Protocol's ``outputs`` whose ``data`` is an array: type and shape are its own."""
    if not _is_tensor_entry(entry):
        return entry
    array = _as_array(entry["data"])
    name = entry.get("name")
    datatype = _DATATYPES.get(array.dtype.name)
    if not isinstance(name, str) or datatype is None:
        raise LoaderError(f"an entry of outputs must have a name and data of a known type, got {name!r}, {array.dtype}")
    known = {**entry, "datatype": datatype, "shape": list(array.shape)}
    if array.nbytes <= MAX_INLINE_BYTES:
        return {**known, "data": array.ravel()}
    del known["data"]
    # Always in little endian and in C order.
    raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    outputs.append(Output(name, "application/octet-stream", raw))
    return {**known, "parameters": {**entry.get("parameters", {}), "binary_data_size": len(raw)}}


def _convert(value: Any) -> Any:
    """What JSON has no word for."""
    array = _as_array(value)
    if array is not None:
        return array.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("is bytes, which JSON can't hold; attach them with infermill.attach_outputs")
    raise TypeError(f"is a {type(value).__module__}.{type(value).__qualname__}, which JSON can't hold")


_ENCODER = json.JSONEncoder(
    default=_convert, allow_nan=False, ensure_ascii=False, check_circular=True, separators=(",", ":")
)


encode_json = _ENCODER.encode


def _explain(response: Any, error: Exception) -> str:
    if isinstance(error, RecursionError) or "Circular" in str(error):
        return "the response can't be written as JSON: it holds itself"
    for path, problem in _problems(response, ""):
        return f"the response can't be written as JSON: {path} {problem}"
    return f"the response can't be written as JSON: {error}"


def _problems(value: Any, path: str) -> Iterator[Tuple[str, str]]:
    problem: Optional[str] = None
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path, f"is {_NON_FINITE(value)}, which JSON can't hold"
        return
    if value is None or isinstance(value, (str, int, bool)):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, (str, int, float, bool, type(None))):
                yield f"{path}.{key}".lstrip("."), f"has a key that is a {type(key).__name__}, which JSON can't hold"
            yield from _problems(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _problems(inner, f"{path}[{index}]")
    else:
        try:
            converted = _convert(value)
        except TypeError as error:
            problem = str(error)
        if problem is not None:
            yield path, problem
        else:
            yield from _problems(converted, path)


_NON_FINITE: Callable[[float], str] = lambda value: "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")  # noqa: E731


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def to_bytes(text: str) -> bytes:
    """UTF-8; a lone surrogate, which UTF-8 can't hold, becomes ``?``."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
