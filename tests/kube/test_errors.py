"""What the API server's answers mean."""

from __future__ import annotations

import msgspec
import pytest

from app.kube.errors import ApiError, ApiUnreachable, from_response
from app.model.agentpool import FieldError


def test_a_status_tells_reason_message_causes_and_time() -> None:
    status = {
        "code": 422,
        "reason": "Invalid",
        "message": "Pod is invalid",
        "details": {
            "causes": [{"field": "spec.containers", "reason": "FieldValueRequired", "message": "Required value"}],
            "retryAfterSeconds": 3,
        },
    }
    error = from_response(422, msgspec.json.encode(status), None)
    assert (error.status, error.reason, error.message) == (422, "Invalid", "Pod is invalid")
    assert error.causes == (FieldError("spec.containers", "FieldValueRequired", "Required value"),)
    assert error.retry_after == 3
    assert str(error) == "Pod is invalid (422 Invalid)"


def test_an_error_of_grpc_gateway_tells_its_code_and_message() -> None:
    error = from_response(404, b'{"code": 5, "message": "there is no pool", "details": [{"a": 1}]}', None)
    assert (error.status, error.message, error.causes) == (5, "there is no pool", ())


BODIES = [
    b"",
    b"<html>Bad gateway</html>",
    b"[1]",
    b'{"code": "x"}',
    b"\xff\xfe",
    b'{"message": "\xff"}',
    b'{"x": ' + b"[" * 5000,
]


@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_status_is_quoted(body: bytes) -> None:
    error = from_response(502, body, None)
    assert error.status == 502
    assert error.message.startswith("HTTP 502")
    assert body[:10].decode(errors="replace") in error.message


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), (None, None)])
def test_retry_after_is_in_seconds(header: str | None, seconds: float | None) -> None:
    assert from_response(429, b"", header).retry_after == seconds


@pytest.mark.parametrize(
    ("error", "true"),
    [
        (ApiError(404, "NotFound", ""), "not_found"),
        (ApiError(409, "Conflict", ""), "conflict"),
        (ApiError(409, "AlreadyExists", ""), "already_exists"),
        (ApiError(410, "Expired", ""), "gone"),
        (ApiError(504, "Timeout", "Too large resource version: 9, current: 5"), "gone"),
        (ApiError(504, "Timeout", "request did not complete"), ""),
        (ApiUnreachable("refused"), ""),
    ],
)
def test_helpers_name_one_kind_of_error_each(error: ApiError, true: str) -> None:
    names = ("not_found", "conflict", "already_exists", "gone")
    assert [name for name in names if getattr(error, name)] == ([true] if true else [])
