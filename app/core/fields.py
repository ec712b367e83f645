"""The mistakes that any field can have, said in one way."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator
from typing import Any

from app.model.agentpool import FieldError

REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
WRONG_TYPE = "FieldValueTypeInvalid"

INT32_MAX = 2**31 - 1

Errors = Iterator[FieldError]


def missing_or_wrong(path: str, value: Any, kind: str, purpose: str) -> FieldError:
    if value is None:
        return FieldError(path, REQUIRED, f"Required value: {purpose}")
    return wrong_type(path, value, kind)


def wrong_type(path: str, value: Any, wanted: str) -> FieldError:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return FieldError(path, WRONG_TYPE, f"must be {wanted}, not {names.get(type(value), 'a number')}")


def invalid(path: str, value: str | float, message: str) -> FieldError:
    return FieldError(path, INVALID, f"Invalid value: {_short(value)}: {message}")


def whole_number(path: str, value: Any) -> FieldError | None:
    """JSON has one kind of number: 3.0 is as whole as 3, while a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return wrong_type(path, value, "an integer")
    if isinstance(value, float) and not value.is_integer():
        return invalid(path, value, "must be an integer")
    return None


def _short(value: str | float) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def strings(path: str, values: Any) -> Errors:
    yield from optional(path, values, dict)
    for key, value in values.items() if isinstance(values, dict) else ():
        if not isinstance(value, str):
            yield wrong_type(f"{path}[{key}]", value, 'a string (write it in quotes: "true", "1")')


def objects(path: str, values: Any) -> Errors:
    yield from optional(path, values, list)
    for i, value in enumerate(values if isinstance(values, list) else ()):
        if not isinstance(value, dict):
            yield wrong_type(f"{path}[{i}]", value, "an object")


def optional(path: str, value: Any, kind: type) -> Errors:
    if value is not None and not isinstance(value, kind):
        yield wrong_type(path, value, "an object" if kind is dict else "a list")


def unknown_field(name: str, known: Collection[str]) -> str:
    """What is said of a field that is none of those known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown field, did you mean {near[0]}?" if near else "unknown field"


def is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists stand within each other more than so many levels deep."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True
