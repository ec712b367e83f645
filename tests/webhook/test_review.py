"""The envelope: what is no AdmissionReview is malformed, and answers read well wherever they are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.agentpool import FieldError
from app.webhook import review
from app.webhook.review import MalformedError, decode, encode
from tests.webhook.questions import pool, question
from tests.webhook.questions import review as body


def answer(value: review.Answer) -> Any:
    document = json.loads(encode(value))
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    return document["response"]


def changed(**changes: Any) -> bytes:
    document = json.loads(body(pool()))
    for key, value in changes.items():
        target = document if key in document else document["request"]
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value
    return json.dumps(document).encode()


def test_a_request_with_fields_that_we_do_not_know() -> None:
    request = decode(changed(somethingNew={"a": 1}))
    assert (request.uid, request.operation, request.resource.resource) == ("r-1", "CREATE", "agentpools")
    assert json.loads(bytes(request.object)) == pool()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}',
        changed(apiVersion="admission.k8s.io/v1beta1"),
        changed(kind="Pod"),
        changed(request=[]),
        changed(uid=None),
        changed(uid=""),
        changed(uid=7),
        changed(operation="PATCH"),
        changed(resource=None),
        changed(userInfo="jane"),
        body(pool())[:-5],
    ],
)
def test_malformed(text: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(text)


@given(text=st.binary() | st.text().map(str.encode))
def test_no_body_raises_anything_else(text: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(text)


def test_allowed() -> None:
    assert answer(review.allow(question(pool()))) == {"uid": "r-1", "allowed": True}
    assert answer(review.allow(question(pool()), warnings=["w"]))["warnings"] == ["w"]


def test_a_patch_is_a_json_patch_in_base64() -> None:
    operations = [{"op": "add", "path": "/a", "value": 1}]
    assert answer(review.patch(question(pool()), operations)) == {
        "uid": "r-1",
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": "W3sib3AiOiJhZGQiLCJwYXRoIjoiL2EiLCJ2YWx1ZSI6MX1d",
    }


def test_no_patch_when_nothing_changes() -> None:
    assert answer(review.patch(question(pool()), [])) == {"uid": "r-1", "allowed": True}


def test_one_error_is_one_line() -> None:
    error = FieldError("spec.a", "FieldValueInvalid", "Invalid value: 1: no")
    assert answer(review.refuse_fields(question(pool()), [error], name="cpu", warnings=["w"])) == {
        "uid": "r-1",
        "allowed": False,
        "status": {
            "status": "Failure",
            "code": 422,
            "reason": "Invalid",
            "message": "spec.a: Invalid value: 1: no",
            "details": {
                "name": "cpu",
                "group": "velda.io",
                "kind": "AgentPool",
                "causes": [{"field": "spec.a", "reason": "FieldValueInvalid", "message": "Invalid value: 1: no"}],
            },
        },
        "warnings": ["w"],
    }


def test_several_errors_are_a_list() -> None:
    errors = [FieldError("spec.a", "", "no"), FieldError("spec.b", "", "neither")]
    refused = answer(review.refuse_fields(question(pool()), errors, name="cpu"))
    assert refused["status"]["message"] == "2 errors:\n* spec.a: no\n* spec.b: neither"
