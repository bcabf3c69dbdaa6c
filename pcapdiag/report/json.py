"""The JSON form of a Result: what a report needs, and what a program reads.

`schema.json` beside this file describes it. The walk is driven by the fields of the dataclasses
in result.py: metadata "json" names the key where it differs from the field, "time" marks
nanoseconds that are written as ISO 8601. Only ASCII is written, so that neither a terminal nor a
ticket system interprets captured text.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pcapdiag.errors import PcapdiagError
from pcapdiag.report import instants
from pcapdiag.result import SCHEMA, Result
from pcapdiag.text import clean

_ORIGIN: Final = "give a file that `pcapdiag analyze --json FILE` wrote"
_MAX_INTEGER: Final = 1 << 64
"""Beyond any counter, time or fact; such a number was not written by an analysis."""


def dumps(result: Result) -> str:
    """Return the JSON text of `result`, with a final newline; equal results give equal bytes.

    Keys stand in the order of the dataclass fields, those of free objects (`hosts`, `facts`,
    `series`) sorted. A number that JSON has no form for (infinity, not a number) becomes null:
    a report without one fact is better than none.
    """
    return json.dumps(_encode(result), indent=2, allow_nan=False) + "\n"


def loads(text: str) -> Result:
    """Return the Result that `dumps` wrote: `loads(dumps(result)) == result`.

    Unknown keys are ignored, so that later versions may add some. PcapdiagError names the place,
    what was found and what was expected where the text is no JSON, has another schema number,
    lacks a key or holds a value of a wrong type.
    """
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise PcapdiagError(f"the JSON is nested too deeply to be a result; {_ORIGIN}") from None
    except ValueError as error:
        raise PcapdiagError(f"not JSON ({clean(str(error))}); {_ORIGIN}") from None
    if not isinstance(document, dict) or "schema" not in document:
        raise PcapdiagError(f'no result: the key "schema" is missing; {_ORIGIN}')
    found = document["schema"]
    if found != SCHEMA or isinstance(found, bool):
        raise PcapdiagError(
            f"schema {_shown(found)} found, this version reads schema {SCHEMA}; "
            "use the version of pcapdiag that wrote the file"
        )
    return cast("Result", _decode(Result, document, "result"))


class _Key(NamedTuple):
    """How one dataclass field stands in JSON."""

    name: str
    key: str
    time: bool
    kind: Any


@cache
def _keys(cls: type) -> tuple[_Key, ...]:
    hints = get_type_hints(cls)
    return tuple(
        _Key(item.name, item.metadata.get("json", item.name), "time" in item.metadata, kind)
        for item in fields(cls)
        for kind in (hints[item.name],)
    )


def _encode(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            key.key: instants.iso(field) if key.time and field is not None else _encode(field)
            for key in _keys(type(value))
            for field in (getattr(value, key.name),)
        }
    if isinstance(value, dict):
        return {key: _encode(value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _decode(kind: Any, value: Any, at: str) -> Any:
    """Return `value` as the type `kind`; `at` is the JSON path for messages."""
    origin = get_origin(kind)
    if origin in {UnionType, Union}:
        return _decode(_member(kind, value, at), value, at)
    if not _fits(kind, value):
        raise _wrong(at, value, _expected(kind))
    if origin is tuple:
        item = get_args(kind)[0]
        return tuple(_decode(item, entry, f"{at}[{n}]") for n, entry in enumerate(value))
    if origin is dict:
        item = get_args(kind)[1]
        return {
            name: _decode(item, entry, f"{at}.{clean(name, 40)}") for name, entry in value.items()
        }
    if is_dataclass(kind):
        return _decode_object(cast("type", kind), value, at)
    return kind(value) if isinstance(kind, type) and issubclass(kind, StrEnum) else value


def _decode_object(cls: type, value: dict[str, Any], at: str) -> Any:
    keys = _keys(cls)
    missing = [key.key for key in keys if key.key not in value]
    if missing:
        raise PcapdiagError(f'{at}: the key "{missing[0]}" is missing; {_ORIGIN}')
    arguments: dict[str, Any] = {}
    for key in keys:
        entry, where = value[key.key], f"{at}.{key.key}"
        if key.time and entry is not None:
            try:
                arguments[key.name] = instants.from_iso(entry)
            except (TypeError, ValueError):
                raise _wrong(where, entry, _TIME) from None
        else:
            arguments[key.name] = _decode(key.kind, entry, where)
    try:
        return cls(**arguments)
    except ValueError as error:  # what the dataclass itself refuses
        raise PcapdiagError(f"{at}: {error}; {_ORIGIN}") from None


def _member(kind: Any, value: Any, at: str) -> Any:
    """Return the first member of a union that the JSON type of `value` fits."""
    for member in get_args(kind):
        if _fits(member, value):
            return member
    names = dict.fromkeys(_expected(member) for member in get_args(kind))
    raise _wrong(at, value, " or ".join(names))


def _fits(kind: Any, value: Any) -> bool:
    """Whether the JSON type of `value` is that of `kind`; what is inside is not looked at."""
    origin = get_origin(kind) or kind
    if origin is Literal:
        return value in get_args(kind)
    if is_dataclass(origin):
        return isinstance(value, dict)
    if issubclass(origin, StrEnum):
        return value in tuple(origin)
    if origin in {int, float}:  # a bool is an int to Python only
        number = isinstance(value, _JSON_TYPE[origin]) and not isinstance(value, bool)
        return number and (
            -_MAX_INTEGER < value < _MAX_INTEGER if isinstance(value, int) else math.isfinite(value)
        )
    return isinstance(value, _JSON_TYPE.get(origin, origin))


_JSON_TYPE: Final[dict[type, Any]] = {tuple: list, int: int, float: int | float}
_TIME: Final = "a UTC time such as 2024-05-01T12:00:00.000000000Z"
_EXPECTED: Final = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    tuple: "a list",
}


def _expected(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return "one of " + ", ".join(get_args(kind))
    if isinstance(origin, type) and issubclass(origin, StrEnum):
        return "one of " + ", ".join(origin)
    return _EXPECTED.get(origin, "an object")


def _wrong(at: str, value: Any, expected: str) -> PcapdiagError:
    return PcapdiagError(f"{at}: found {_shown(value)}, expected {expected}; {_ORIGIN}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else clean(json.dumps(value), 60)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
