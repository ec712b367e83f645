"""What the OpenAPI document says of a call; its schemas are those of the protocol's messages."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from app.api.answers import JSON
from app.api.messages import descriptor
from app.api.schema import Schema, field_schema, reference, schemas

_ERROR = "Error"
_SCHEMAS: dict[str, Schema] = {
    _ERROR: {
        "type": "object",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "integer", "description": "a code of gRPC"},
            "message": {"type": "string"},
            "details": {"type": "array", "items": {"type": "object"}},
        },
    },
}
_REFUSALS = {
    400: "the request is malformed, or cannot be served in this state",
    401: "the credentials prove nothing",
    403: "RBAC does not allow it",
    404: "there is no such pool or session",
    409: "the session is being ended",
    413: "the body is too large",
    429: "a limit is reached",
    501: "batch work is not served here",
    503: "another replica leads, or none does for a moment; try again",
    504: "it took too long",
}


def described(
    rpc: str, method: str, request: type[Message], answer: type[Message], *, stream: bool = False
) -> dict[str, Any]:
    """Arguments of a route for the RPC."""
    schema = _line(answer) if stream else reference(descriptor(answer))
    extra: dict[str, Any] = {"parameters": _parameters(request)}
    if method == "POST":
        extra = {"requestBody": {"content": _content(reference(descriptor(request)))}}
    errors = _content({"$ref": f"#/components/schemas/{_ERROR}"})
    return {
        "name": rpc,
        "operation_id": rpc,
        "summary": rpc,
        "responses": {
            200: {"description": "done", "content": _content(schema)},
            **{status: {"description": text, "content": errors} for status, text in _REFUSALS.items()},
        },
        "response_model": None,
        "openapi_extra": extra,
    }


def completed(document: dict[str, Any], *messages: type[Message]) -> dict[str, Any]:
    """The document with the schemas that it refers to, and how a client proves who it is."""
    document["components"] = {
        "schemas": {**_SCHEMAS, **schemas(*(descriptor(message) for message in messages))},
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"bearer": []}]
    return document


def _content(schema: Schema) -> dict[str, Any]:
    return {JSON: {"schema": schema}}


def _parameters(request: type[Message]) -> list[dict[str, Any]]:
    """A field of the request each; the pool is part of the path."""
    return [
        {
            "name": "pool",
            "in": "path",
            "required": True,
            "description": "NAME, or NAMESPACE/NAME with the slash as %2F or as it is",
            "schema": {"type": "string", "minLength": 1},
        }
        if field.name == "pool"
        else {"name": field.json_name, "in": "query", "schema": field_schema(field)}
        for field in descriptor(request).fields
    ]


def _line(answer: type[Message]) -> Schema:
    """Of a stream's lines each."""
    error = {"$ref": f"#/components/schemas/{_ERROR}"}
    return {"type": "object", "properties": {"result": reference(descriptor(answer)), "error": error}}
