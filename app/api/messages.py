"""Messages as JSON: protobuf's mapping, with the choices that grpc-gateway makes in it."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

import msgspec
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from starlette.datastructures import QueryParams

from app.broker.refusal import Reason, RefusedError

M = TypeVar("M", bound=Message)

DEPTH = 32
"""How deep messages may be nested; ours are four deep."""
QUOTED = 300
"""Characters of a mistake that an error may repeat."""
_MISTAKES = (msgspec.DecodeError, json_format.ParseError, ValueError, RecursionError)


def read(body: bytes, message: M) -> M:
    """Fill the message from a JSON object; nothing at all is an empty one, and fields that it lacks are ignored.

    Raises RefusedError (INVALID_ARGUMENT).
    """
    if not body:
        return message
    try:
        msgspec.json.decode(body, type=dict[str, Any])  # strict where json is not: NaN, UTF-8, what is no object
        return json_format.Parse(body, message, ignore_unknown_fields=True, max_recursion_depth=DEPTH)
    except _MISTAKES as error:
        raise _bad(f"the body is not a {message.DESCRIPTOR.name}: {str(error)[:QUOTED]}") from error


def read_query(query: QueryParams, message: M) -> M:
    """Fill the message from query parameters, by either name of a field. Raises RefusedError (INVALID_ARGUMENT)."""
    names = {name: field for field in descriptor(message).fields for name in (field.name, field.json_name)}
    given: dict[str, str] = {}
    for name, value in query.multi_items():
        if field := names.get(name):
            if field.name in given:
                raise _bad(f"{name}: it is given more than once")
            given[field.name] = value
    try:
        return json_format.ParseDict(given, message)
    except _MISTAKES as error:
        raise _bad(f"the query is not a {message.DESCRIPTOR.name}: {str(error)[:QUOTED]}") from error


def write(message: Message) -> dict[str, Any]:
    """Every field is there: one that is unset has its default, a message null, as grpc-gateway's EmitUnpopulated."""
    fields = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return _with_nulls(message, fields)


def descriptor(message: Message | type[Message]) -> Descriptor:
    """The stubs have two classes of descriptors, with the same content."""
    return cast(Descriptor, message.DESCRIPTOR)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _with_nulls(message: Message, fields: dict[str, Any]) -> dict[str, Any]:
    for field in descriptor(message).fields:
        if field.message_type is None or is_map(field):
            continue
        value = fields.setdefault(field.json_name, None)
        if isinstance(value, list):
            for each, part in zip(value, getattr(message, field.name), strict=True):
                _with_nulls(part, each)
        elif isinstance(value, dict):
            _with_nulls(getattr(message, field.name), value)
    return fields


def encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _bad(message: str) -> RefusedError:
    return RefusedError(Reason.BAD_REQUEST, message)
