"""JSON Schema of messages, as protobuf's JSON mapping writes them, from their descriptors."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from app.api.messages import is_map

Schema = dict[str, Any]

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,18}$"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
}
"""The kinds that the protocol has."""
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,9}(\.[0-9]{1,9})?s$"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}


def reference(message: Descriptor) -> Schema:
    """What stands for the message where it is used."""
    return _WELL_KNOWN.get(message.full_name) or {"$ref": f"#/components/schemas/{message.full_name}"}


def schemas(*messages: Descriptor) -> dict[str, Schema]:
    """The messages and all that they are made of, by full name."""
    found: dict[str, Schema] = {}
    left = list(messages)
    while left:
        message = left.pop()
        if message.full_name in found or message.full_name in _WELL_KNOWN:
            continue
        if not message.GetOptions().map_entry:
            properties = {field.json_name: field_schema(field) for field in message.fields}
            found[message.full_name] = {"type": "object", "properties": properties}
        left.extend(field.message_type for field in message.fields if field.message_type)
    return dict(sorted(found.items()))


def field_schema(field: FieldDescriptor) -> Schema:
    if field.message_type and is_map(field):
        return {"type": "object", "additionalProperties": _value(field.message_type.fields_by_name["value"])}
    if field.is_repeated:
        return {"type": "array", "items": _value(field)}
    if field.message_type:
        return {"anyOf": [_value(field), {"type": "null"}]}
    return _value(field)


def _value(field: FieldDescriptor) -> Schema:
    if field.message_type:
        return reference(field.message_type)
    if field.enum_type:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return _SCALARS[field.type]
