"""What a loader answers with: IMIL's response dictionary, and outputs as bytes beside it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Iterable, Mapping, NamedTuple, Optional

_ECHOED = (
    "Tid",
    "Did",
    "Fid",
    "Ts",
    "Ts_ntp",
    "Msg_ver",
    "Inf_ver",
    "Ad",
    "Lfp",
    "Ffp",
    "Ltsize",
    "I_fn",
    "Prompt",
    "Hp",
)
_MAX_OUTPUT_NAME = 256


class Output(NamedTuple):
    """Bytes that a response brings: a picture, a mask, a large tensor."""

    #: Unique in its response: 1 to 256 printable characters.
    name: str
    #: Such as ``image/png``.
    media_type: str
    data: bytes


class Response(dict):  # type: ignore[type-arg]
    """A response dictionary with outputs beside it; made by ``attach_outputs``."""

    outputs: list[Output]


def attach_outputs(response: Mapping[str, Any], outputs: Iterable[Output]) -> Response:
    """The response with bytes beside it. Clients read them at ``GET …/outputs/{name}``, or inline where they are small.

    :raises ValueError: where a name is used twice, or is not 1 to 256 printable characters
    """
    own = Response(response)
    own.outputs = [*getattr(response, "outputs", []), *(Output(*each) for each in outputs)]
    names = [each.name for each in own.outputs]
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_OUTPUT_NAME or not name.isprintable():
            raise ValueError(f"an output's name must be 1 to {_MAX_OUTPUT_NAME} printable characters, got {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"two outputs are called {name}")
    return own


def build_response(
    request: Mapping[str, Any], findings: list[Any], model: str, started_at: Optional[datetime] = None
) -> dict[str, Any]:
    """IMIL's response dictionary: identifying keys echoed as they came, one step appended to ``Mtp``.

    :param findings: what was found, ``{"Cs": 0..1, "Lb": label, "Dm": {"X", "Y", "W", "H"} or {}}`` each
    :param started_at: when the run began, in UTC; default now
    """
    now = get_datetime_utc()
    return {
        **{key: request[key] for key in _ECHOED if key in request},
        "Mtp": get_mtp(request.get("Mtp"), started_at or now, now, model),
        "Fs": findings,
        "Obase_64": [],
        "Img_url": [],
        "Rc": "200",
        "Rm": "Success",
    }


def get_datetime_utc() -> datetime:
    """The time now, in UTC."""
    return datetime.now(timezone.utc)


def get_mtp(mtp: Any, start_time: Any, end_time: Any, model_name: str) -> list[Any]:
    """The message travel path with one step more. Times may be datetimes, or texts that were formatted before."""
    step = {"Stime": format_imil_time(start_time), "Etime": format_imil_time(end_time), "Src": model_name}
    return [*(mtp if isinstance(mtp, list) else []), step]


def format_imil_time(time: Any) -> Any:
    """``YYYY-MM-DD,hh:mm:ss.mmm AM|PM`` on a 12-hour clock, as IMIL writes it."""
    if not isinstance(time, datetime):
        return time
    return f"{time:%Y-%m-%d,%I:%M:%S}.{time.microsecond // 1000:03d} {'AM' if time.hour < 12 else 'PM'}"
