"""The settings that a loader adds to its model's section, checked at start: by a dataclass, or by a JSON Schema."""

from __future__ import annotations

import dataclasses
import difflib
import json
import operator
import re
import types
import typing
from typing import Any, Literal, Mapping, Union

from .errors import ConfigFaults

#: Keys that every model's section may have, as the worker names them. Unknown while no engine runs: then any key passes.
COMMON_KEYS: frozenset[str] | None = None

_UNION_TYPES = (Union, getattr(types, "UnionType", Union))
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def parse_options(loader: type, section: Mapping[str, Any]) -> Any:
    """What ``loader.Options`` makes of the section.

    :raises ConfigFaults: with every fault of the section at once
    """
    declared = getattr(loader, "Options", None)
    if declared is None:
        return None
    if isinstance(declared, Mapping):
        faults: list[dict[str, str]] = []
        filled = _check_schema(declared, dict(section), "", faults)
        known = set(declared.get("properties", {}))
        if declared.get("additionalProperties") is not True:
            faults += _unknown_keys(section, known, loader)
        if faults:
            raise ConfigFaults(faults)
        return {key: filled[key] for key in known if key in filled}
    if dataclasses.is_dataclass(declared):
        return _parse_dataclass(declared, loader, section)
    raise ConfigFaults(
        [
            {
                "key": "loader",
                "problem": f"{loader.__name__}.Options must be a dataclass or a JSON Schema (a dict), "
                f"got {type(declared).__name__}",
            }
        ]
    )


def _parse_dataclass(declared: Any, loader: type, section: Mapping[str, Any]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(declared) if field.init}
    hints = typing.get_type_hints(declared)
    faults = _unknown_keys(section, set(fields), loader)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        hint = hints.get(name, Any)
        if name in section:
            problem = _type_problem(section[name], hint)
            if problem:
                faults.append({"key": name, "problem": problem})
            # JSON has one kind of number and no tuples.
            values[name] = float(section[name]) if hint is float and not problem else section[name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append({"key": name, "problem": f"is missing: it {_expectation(hint)}"})
    if faults:
        raise ConfigFaults(faults)
    try:
        # Where __post_init__ raises, it says what is wrong.
        return declared(**values)
    except ConfigFaults:
        raise
    except (TypeError, ValueError) as error:
        key = next((name for name in fields if str(error).startswith(name)), "loader")
        problem = f"{loader.__name__}.Options: {error}" if key == "loader" else str(error)[len(key) :].strip()
        raise ConfigFaults([{"key": key, "problem": problem}]) from error


def _unknown_keys(section: Mapping[str, Any], own: set[str], loader: type) -> list[dict[str, str]]:
    if COMMON_KEYS is None:
        return []
    known = own | COMMON_KEYS
    return [
        {"key": key, "problem": f"is no setting of {loader.__name__}{did_you_mean(key, known)}"}
        for key in section
        if key not in known
    ]


def did_you_mean(given: str, known: typing.Iterable[str]) -> str:
    """``; did you mean "cat"?``, or an empty string where no candidate is near."""
    near = difflib.get_close_matches(given, sorted(known), 1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _type_problem(value: Any, hint: Any) -> str:
    return "" if _is_a(value, hint) else f"{_expectation(hint)}, got {_shown(value)}"


def _is_a(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in _UNION_TYPES:
        return any(_is_a(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (list, tuple):
        if not isinstance(value, list):
            return False
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(_is_a, value, arguments))
        return not arguments or all(_is_a(each, arguments[0]) for each in value)
    if origin is dict or hint is dict:
        return isinstance(value, dict) and (len(arguments) < 2 or all(_is_a(v, arguments[1]) for v in value.values()))
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _expectation(hint: Any) -> str:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in _UNION_TYPES:
        return ", or ".join(_expectation(each) for each in arguments if each is not type(None))
    if origin is Literal:
        return f"must be one of {', '.join(_shown(each) for each in arguments)}"
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"must be a list of {len(arguments)}"
    if origin in (list, tuple) or hint in (list, tuple):
        return "must be a list" + (f" ({_expectation(arguments[0])} each)" if arguments else "")
    if origin is dict or hint is dict:
        return "must be an object"
    return f"must be {_TYPE_NAMES.get(hint, getattr(hint, '__name__', str(hint)))}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:80]}…"


_JSON_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": None,
}
_KEYWORDS = frozenset(
    "type enum const minimum maximum exclusiveMinimum exclusiveMaximum minLength maxLength pattern minItems maxItems "
    "items properties required additionalProperties default title description examples $schema".split()
)


def _check_schema(schema: Mapping[str, Any], value: Any, path: str, faults: list[dict[str, str]]) -> Any:
    """The value with defaults filled in; what is wrong with it is added to ``faults``."""

    def wrong(problem: str, key: str = path) -> None:
        faults.append({"key": key or "loader", "problem": problem})

    for keyword in sorted(set(schema) - _KEYWORDS):
        wrong(f"the JSON Schema of Options uses {keyword}, which infermill doesn't check; use a dataclass for that")
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds or []
    if names and not any(_is_a(value, _JSON_TYPES[name]) for name in names):
        expected = ", or ".join(_expectation(_JSON_TYPES[name]) if name != "null" else "must be null" for name in names)
        wrong(f"{expected}, got {_shown(value)}")
        return value
    if "enum" in schema and value not in schema["enum"]:
        wrong(f"must be one of {', '.join(_shown(each) for each in schema['enum'])}, got {_shown(value)}")
    if "const" in schema and value != schema["const"]:
        wrong(f"must be {_shown(schema['const'])}, got {_shown(value)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for keyword, sign, holds in (
            ("minimum", "≥", operator.ge),
            ("maximum", "≤", operator.le),
            ("exclusiveMinimum", ">", operator.gt),
            ("exclusiveMaximum", "<", operator.lt),
        ):
            if keyword in schema and not holds(value, schema[keyword]):
                wrong(f"must be {sign} {schema[keyword]}, got {_shown(value)}")
    if isinstance(value, (str, list)):
        least = schema.get("minLength" if isinstance(value, str) else "minItems")
        most = schema.get("maxLength" if isinstance(value, str) else "maxItems")
        if least is not None and len(value) < least:
            wrong(f"must be of length ≥ {least}, got {_shown(value)}")
        if most is not None and len(value) > most:
            wrong(f"must be of length ≤ {most}, got {_shown(value)}")
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        wrong(f"must match {schema['pattern']}, got {_shown(value)}")
    if isinstance(value, list) and "items" in schema:
        return [_check_schema(schema["items"], each, f"{path}.{at}", faults) for at, each in enumerate(value)]
    if isinstance(value, dict) and "properties" in schema:
        filled = dict(value)
        for name, own in schema["properties"].items():
            inner = f"{path}.{name}".lstrip(".")
            if name in value:
                filled[name] = _check_schema(own, value[name], inner, faults)
            elif "default" in own:
                filled[name] = own["default"]
            elif name in schema.get("required", []):
                wrong("is missing", inner)
        return filled
    return value
