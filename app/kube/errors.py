"""What the API server, or the way to it, says when it does not do what was asked."""

from __future__ import annotations

import msgspec

from app.model.agentpool import FieldError


class ApiError(Exception):
    """An answer other than 2xx. ``status`` is the HTTP code, ``reason`` the Status object's (Conflict, Invalid …).

    ``retry_after`` is in seconds, None when the server names no time.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        causes: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.reason})" if self.status else self.message

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        return self.status == 409 and not self.already_exists

    @property
    def gone(self) -> bool:
        """The resourceVersion is too old (410), or from the future of a restored server (504): list again."""
        return self.status == 410 or (self.status == 504 and "resource version" in self.message.lower())


class ApiUnreachable(ApiError):  # noqa: N818  named as what it says
    """No answer: the request may or may not have been carried out."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)


class _Cause(msgspec.Struct, frozen=True):
    field: str = ""
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    causes: tuple[_Cause, ...] | None = None
    retry_after_seconds: float | None = None


class Status(msgspec.Struct, frozen=True):
    """A metav1.Status, as far as it says what went wrong; or an error of grpc-gateway, whose details are a list."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | list[msgspec.Raw] | None = None


def from_status(status: Status, *, code: int, retry_after: float | None = None) -> ApiError:
    """The error that a Status describes; ``code`` where it names none."""
    details = status.details if isinstance(status.details, _Details) else _Details()
    causes = tuple(FieldError(cause.field, cause.reason, cause.message) for cause in details.causes or ())
    seconds = retry_after if retry_after is not None else details.retry_after_seconds
    return ApiError(
        status.code or code, status.reason, status.message or f"HTTP {code}", causes=causes, retry_after=seconds
    )


def from_response(code: int, body: bytes, retry_after: str | None) -> ApiError:
    """The error that an answer describes; what is no Status is quoted, cut short."""
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    try:
        status = msgspec.json.decode(body, type=Status)
    except (ValueError, RecursionError):
        text = body[:200].decode(errors="replace").strip()
        return ApiError(code, "", f"HTTP {code}: {text}" if text else f"HTTP {code}", retry_after=seconds)
    return from_status(status, code=code, retry_after=seconds)
