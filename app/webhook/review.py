"""The AdmissionReview envelope: what the API server asks, and the answers it understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from app.model.agentpool import FieldError
from app.model.meta import GROUP, KIND

API_VERSION = "admission.k8s.io/v1"


class MalformedError(Exception):
    """The body is no AdmissionReview of the version that we speak; the text says why."""


class Resource(msgspec.Struct, frozen=True):
    resource: str = ""
    group: str = ""
    version: str = ""


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """One question. ``object`` and ``old_object`` stay undecoded until they are needed."""

    uid: str
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    resource: Resource
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    user_info: dict[str, Any] = {}
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def writes(self) -> bool:
        """Whether it creates or changes a whole object, and not a subresource such as status or scale."""
        return self.operation in ("CREATE", "UPDATE") and not self.sub_resource


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: Request


class _Details(msgspec.Struct, frozen=True):
    name: str
    causes: Sequence[FieldError]
    group: str = GROUP
    kind: str = KIND


class Refusal(msgspec.Struct, frozen=True):
    """A metav1.Status. With kind and name in its details kubectl says: The AgentPool "x" is invalid."""

    code: int
    reason: str
    message: str
    details: _Details
    status: str = "Failure"


class Answer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An AdmissionResponse; ``patch`` is a JSON patch (RFC 6902) in base64."""

    uid: str
    allowed: bool
    status: Refusal | None = None
    patch: bytes = b""
    patch_type: str = ""
    warnings: Sequence[str] = ()

    @property
    def code(self) -> int:
        return self.status.code if self.status else 200


def decode(body: bytes) -> Request:
    """The request of an AdmissionReview; raises MalformedError."""
    try:
        request = msgspec.json.decode(body, type=_Review).request
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"not an AdmissionReview of {API_VERSION}: {error}") from error
    if not request.uid:
        raise MalformedError("request.uid is empty")
    return request


def allow(request: Request, *, warnings: Sequence[str] = ()) -> Answer:
    return Answer(uid=request.uid, allowed=True, warnings=tuple(warnings))


def patch(request: Request, operations: Sequence[Mapping[str, Any]]) -> Answer:
    """Allowed, with a change if there is one."""
    if not operations:
        return allow(request)
    return Answer(uid=request.uid, allowed=True, patch_type="JSONPatch", patch=msgspec.json.encode(operations))


def refuse_fields(request: Request, errors: Sequence[FieldError], *, name: str, warnings: Sequence[str] = ()) -> Answer:
    """Denied for all that is wrong. kubectl prints the causes, other clients the message: one line an error."""
    lines = [str(error) for error in errors]
    message = lines[0] if len(lines) == 1 else "\n".join([f"{len(lines)} errors:", *(f"* {line}" for line in lines)])
    status = Refusal(code=422, reason="Invalid", message=message, details=_Details(name, errors))
    return Answer(uid=request.uid, allowed=False, status=status, warnings=tuple(warnings))


def refuse(request: Request, *, code: int, reason: str, message: str, name: str) -> Answer:
    """Denied for something that is not in the object."""
    status = Refusal(code=code, reason=reason, message=message, details=_Details(name, ()))
    return Answer(uid=request.uid, allowed=False, status=status)


def encode(answer: Answer) -> bytes:
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": answer})
