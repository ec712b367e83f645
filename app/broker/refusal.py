"""Why the broker says no. Free of gRPC: each reason carries the name of the status code that it is answered with."""

from __future__ import annotations

from enum import Enum

from app.core.agents import PoolDirectory, PoolInfo


class Reason(Enum):
    """Label in metrics, and the gRPC status code's name."""

    UNKNOWN_POOL = "unknown_pool", "NOT_FOUND"
    AMBIGUOUS_POOL = "ambiguous_pool", "INVALID_ARGUMENT"
    POOL_DELETING = "pool_deleting", "FAILED_PRECONDITION"
    BATCH_WORK = "batch_work", "UNIMPLEMENTED"
    BAD_REQUEST = "bad_request", "INVALID_ARGUMENT"
    LIMIT = "limit", "RESOURCE_EXHAUSTED"
    NO_SESSION = "no_session", "NOT_FOUND"
    RETURNING = "returning", "UNAVAILABLE"
    SESSION_ENDED = "session_ended", "ABORTED"
    START_FAILED = "start_failed", "UNAVAILABLE"
    STOPPING = "stopping", "UNAVAILABLE"
    NOT_LEADING = "not_leading", "UNAVAILABLE"
    HANDSHAKE = "handshake", "UNAUTHENTICATED"
    UNAUTHENTICATED = "unauthenticated", "UNAUTHENTICATED"
    FORBIDDEN = "forbidden", "PERMISSION_DENIED"
    NOT_CHECKED = "not_checked", "UNAVAILABLE"
    NOT_A_WORKER = "not_a_worker", "PERMISSION_DENIED"
    WEAKER_PROOF = "weaker_proof", "PERMISSION_DENIED"
    AGENT_DRAINED = "agent_drained", "FAILED_PRECONDITION"
    AGENT_REPLACED = "agent_replaced", "ABORTED"
    AGENT_GONE = "agent_gone", "NOT_FOUND"
    AGENT_SILENT = "agent_silent", "DEADLINE_EXCEEDED"
    INTERNAL = "internal", "INTERNAL"

    def __init__(self, label: str, code: str) -> None:
        self.label = label
        self.code = code


class RefusedError(Exception):
    """A request or a stream that the broker does not serve, or no longer."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.about: dict[str, str] = {}
        """Of whom the log is to tell, by key; nothing of a secret."""


def one_pool(pools: PoolDirectory, name: str) -> PoolInfo:
    """The only pool that ``name``, bare or ``namespace/name``, may mean; raises RefusedError if it is not one."""
    found = pools.find_pools(name)
    if not found:
        raise unknown_pool(name)
    if len(found) > 1:
        raise ambiguous_pool(name, found)
    return found[0]


def unknown_pool(name: str) -> RefusedError:
    return RefusedError(Reason.UNKNOWN_POOL, f'there is no pool "{name}"')


def ambiguous_pool(name: str, found: list[PoolInfo]) -> RefusedError:
    names = ", ".join(str(info.key) for info in found)
    return RefusedError(Reason.AMBIGUOUS_POOL, f'pool "{name}" may mean several, say which: {names}')
