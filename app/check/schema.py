"""What the CRD's schema says of an AgentPool, without an API server: types, bounds, unknown fields, equal keys."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Literal

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from app.core.fields import INVALID, REQUIRED, invalid, unknown_field, wrong_type
from app.model.agentpool import FieldError

UNKNOWN = "UnknownField"
DUPLICATE = "FieldValueDuplicate"
NOT_SUPPORTED = "FieldValueNotSupported"
OPEN = "x-kubernetes-preserve-unknown-fields"
LIST_TYPE, LIST_KEYS = "x-kubernetes-list-type", "x-kubernetes-list-map-keys"

Errors = Iterator[ValidationError]
Schema = Mapping[str, Any]

_TYPES = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
}


def mistakes(pool: Any) -> Iterator[tuple[Literal["error", "warning"], FieldError]]:
    """What the API server would refuse. A pod's fields that we do not know are warnings: a newer cluster may."""
    for error in _validator().iter_errors(_without_nulls(pool)):
        yield "warning" if error.validator == OPEN else "error", _told(error)


@functools.cache
def _validator() -> Draft7Validator:
    schema = json.loads((resources.files("crd") / "agentpool.schema.json").read_text(encoding="utf-8"))
    validator: Draft7Validator = _Validator(schema)
    return validator


def _without_nulls(value: Any) -> Any:
    """An API server drops fields that are null before it validates."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _required(_: object, names: list[str], instance: Any, __: Schema) -> Errors:
    for name in names if isinstance(instance, dict) else ():
        if name not in instance:
            yield ValidationError("", path=[name])


def _closed(validator: Any, allowed: Any, instance: Any, schema: Schema) -> Errors:
    if allowed is False:
        yield from _unknown(instance, schema)
    elif isinstance(instance, dict):
        for name, value in instance.items():
            yield from validator.descend(value, allowed, path=name)


def _open(_: object, __: object, instance: Any, schema: Schema) -> Errors:
    if "properties" in schema:
        yield from _unknown(instance, schema)


def _unknown(instance: Any, schema: Schema) -> Errors:
    known = schema["properties"]
    for name in instance if isinstance(instance, dict) else ():
        if name not in known:
            yield ValidationError(unknown_field(name, known), path=[name])


def _unique(_: object, kind: str, instance: Any, schema: Schema) -> Errors:
    """Lists that are maps by some of their items' fields, or sets."""
    keys = schema.get(LIST_KEYS, ())
    seen: set[str] = set()
    for i, item in enumerate(instance if isinstance(instance, list) and kind != "atomic" else ()):
        if kind == "map" and not isinstance(item, dict):
            continue
        defaults = {key: schema["items"]["properties"][key].get("default") for key in keys}
        found = {key: item.get(key, defaults[key]) for key in keys} if kind == "map" else item
        if (text := json.dumps(found, sort_keys=True)) in seen:
            words = ", ".join(str(value) for value in found.values()) if isinstance(found, dict) else text
            yield ValidationError(f"Duplicate value: {words}", path=[i, *keys[:1]])
        seen.add(text)


_KEYWORDS = {"required": _required, "additionalProperties": _closed, OPEN: _open, LIST_TYPE: _unique}
_Validator = extend(Draft7Validator, _KEYWORDS)  # type: ignore[no-untyped-call]


def _told(error: ValidationError) -> FieldError:
    """The error in the words that validation uses for its own fields."""
    path = _path(error)
    value: Any = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "required":
            return FieldError(path, REQUIRED, "Required value")
        case "type":
            return wrong_type(path, value, _TYPES[wanted])
        case "anyOf":
            return wrong_type(path, value, "an integer or a string")
        case "enum":
            choices = ", ".join(json.dumps(choice) for choice in wanted)
            return FieldError(path, NOT_SUPPORTED, f"Unsupported value: {json.dumps(value)}: must be {choices}")
        case "minimum" | "exclusiveMinimum":
            return invalid(path, value, f"must be {'at least' if error.validator == 'minimum' else 'above'} {wanted}")
        case "maximum" | "exclusiveMaximum":
            return invalid(path, value, f"must be {'at most' if error.validator == 'maximum' else 'below'} {wanted}")
        case "pattern":
            return invalid(path, value, f"must match {wanted}")
        case "x-kubernetes-list-type":
            return FieldError(path, DUPLICATE, error.message)
        case "additionalProperties" | "x-kubernetes-preserve-unknown-fields":
            return FieldError(path, UNKNOWN, error.message)
    return FieldError(path, INVALID, f"Invalid value: {error.message}")


def _path(error: ValidationError) -> str:
    text = ""
    for part in error.absolute_path:
        plain = isinstance(part, str) and part.replace("-", "").replace("_", "").isalnum()
        text += f".{part}" if plain else f"[{part}]"
    return text.removeprefix(".")
