"""Sessions from their request to their end, and where to find them. Of those that ended the reason is kept a while."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from app.broker.refusal import Reason, RefusedError
from app.model.meta import NamespacedName
from app.proto import velda_pb2

if TYPE_CHECKING:
    from app.broker.agents import Agent

N = TypeVar("N", bound=Hashable)

Status = velda_pb2.ExecutionStatus.Status

ENDINGS = 1000
"""Sessions that ended, of which it is remembered why."""

_AboutSession = velda_pb2.SessionRequest | velda_pb2.SessionInitResponse | velda_pb2.SessionCompletion

AboutNamed = velda_pb2.KillSessionRequest | velda_pb2.SetTagRequest

Done = Callable[[velda_pb2.ExecutionStatus | RefusedError], None]
"""Told once what became of a request: the session's status when it has started, or why it did not."""


class SessionKey(NamedTuple):
    """A session_id counts within its instance."""

    instance_id: int
    session_id: str


@dataclass(eq=False, slots=True)
class Session:
    """One session: QUEUEING, PENDING (an agent was asked to start it), RUNNING, or STALE (its agent is lost)."""

    request: velda_pb2.SessionRequest
    """As it came, so that fields unknown here reach the agent too."""
    pool: NamespacedName
    requested_at: float
    asked_at: float = 0.0
    """When an agent was asked to start it, the last of them."""
    arrival: int = 0
    status: Status.ValueType = Status.STATUS_QUEUEING
    agent: Agent | None = None
    attempts: int = 0
    ending: bool = False
    """It was asked to end."""
    force: bool = False
    response: velda_pb2.SessionInitResponse | None = None
    started_at: float | None = None
    """Epoch seconds; None if it started under another process."""
    tags: dict[str, str] = field(default_factory=dict)
    waiters: list[Done] = field(default_factory=list)

    @property
    def key(self) -> SessionKey:
        return key_of(self.request)

    @property
    def id(self) -> str:
        return self.request.session_id

    @property
    def trace_id(self) -> str:
        return f"{self.request.instance_id}/{self.request.session_id}"

    def merged_tags(self, tags: dict[str, str]) -> dict[str, str]:
        """Its own with these; an empty value removes the tag."""
        merged = {**self.tags, **tags}
        return {name: value for name, value in merged.items() if value}

    def answer(self, outcome: velda_pb2.ExecutionStatus | RefusedError) -> None:
        """Tell all who wait for it."""
        waiters, self.waiters = self.waiters, []
        for done in waiters:
            done(outcome)

    def execution_status(self) -> velda_pb2.ExecutionStatus:
        status = velda_pb2.ExecutionStatus(session_id=self.id, status=self.status)
        if self.agent and self.response:
            status.ssh_connection.host = self.agent.address
            status.ssh_connection.port = self.response.port
            status.ssh_connection.host_key = self.response.host_key
        if self.started_at is not None:
            status.started_at.CopyFrom(timestamp(self.started_at))
        return status

    def describe(self) -> velda_pb2.Session:
        return velda_pb2.Session(
            session_id=self.id,
            user=self.request.user,
            pool=self.request.pool,
            instance_id=self.request.instance_id,
            status=self.status,
            service_name=self.request.service_name,
            labels=self.request.labels,
            internal_ip_address=self.agent.address if self.agent else "",
            tags=self.tags,
        )


class SessionTable:
    """Every live session, by key, by instance and by service; and why the latest that ended did."""

    def __init__(self) -> None:
        self._endings: dict[SessionKey, str] = {}
        self._by_key: dict[SessionKey, Session] = {}
        self._by_instance: dict[int, dict[SessionKey, Session]] = {}
        self._by_service: dict[tuple[int, str], dict[SessionKey, Session]] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_key.values()))

    def get(self, key: SessionKey) -> Session | None:
        return self._by_key.get(key)

    def add(self, session: Session) -> None:
        key = session.key
        self._by_key[key] = session
        self._by_instance.setdefault(key.instance_id, {})[key] = session
        if service := session.request.service_name:
            self._by_service.setdefault((key.instance_id, service), {})[key] = session

    def remove(self, session: Session, why: str) -> None:
        self._endings.pop(session.key, None)
        self._endings[session.key] = why
        if len(self._endings) > ENDINGS:
            del self._endings[next(iter(self._endings))]
        key, service = session.key, (session.request.instance_id, session.request.service_name)
        self._by_key.pop(key, None)
        _remove(self._by_instance, key.instance_id, key)
        _remove(self._by_service, service, key)

    def ending(self, key: SessionKey) -> str:
        """Why that session is not there any more, to be added to a message; empty if it is not known."""
        why = self._endings.get(key)
        return f"; {why}" if why else ""

    def of(self, *, instance_id: int, service_name: str) -> list[Session]:
        """Those of the service, or (without its name) of the instance, in the order in which they were requested."""
        if service_name:
            return self.of_service(instance_id, service_name)
        return list(self._by_instance.get(instance_id, {}).values())

    def of_service(self, instance_id: int, service_name: str) -> list[Session]:
        return list(self._by_service.get((instance_id, service_name), {}).values())

    def named(self, *, instance_id: int, session_id: str, service_name: str = "") -> list[Session]:
        """The session of that id or else those of that service; raises RefusedError if there is none."""
        if session_id:
            session = self.get(SessionKey(instance_id, session_id))
            found = [session] if session else []
        elif service_name:
            found = self.of_service(instance_id, service_name)
        else:
            raise RefusedError(Reason.BAD_REQUEST, "session_id or service_name must be set")
        if not found:
            ending = self.ending(SessionKey(instance_id, session_id))
            raise no_session(instance_id=instance_id, session_id=session_id, service_name=service_name, ending=ending)
        return found


def no_session(*, instance_id: int, session_id: str, service_name: str = "", ending: str = "") -> RefusedError:
    """``ending`` says how it ended, where that is known."""
    name = f'session "{session_id}"' if session_id else f'session of service "{service_name}"'
    return RefusedError(Reason.NO_SESSION, f"instance {instance_id} has no {name}{ending}")


def service_of(request: AboutNamed) -> str:
    """The service that the request may name in place of a session."""
    return request.service_name if isinstance(request, velda_pb2.KillSessionRequest) else ""


def key_of(message: _AboutSession) -> SessionKey:
    return SessionKey(message.instance_id, message.session_id)


def refuse_batch_work(request: velda_pb2.SessionRequest) -> None:
    """Raises RefusedError if the request asks for what only the batch scheduler of the full product can do."""
    asked = [name for name in ("task_id", "dependencies", "checkpointed", "snapshot_name") if getattr(request, name)]
    if request.HasField("workload"):
        asked.append("workload")
    if request.connection_finish_action == velda_pb2.SessionRequest.CONNECTION_FINISH_ACTION_CHECKPOINT:
        asked.append("connection_finish_action CHECKPOINT")
    if asked:
        message = f"batch work (tasks, shards, snapshots, checkpoints) is not served here; unset: {', '.join(asked)}"
        raise RefusedError(Reason.BATCH_WORK, message)


def timestamp(epoch: float) -> Timestamp:
    moment = Timestamp()
    moment.FromNanoseconds(int(epoch * 1e9))
    return moment


def _remove(index: dict[N, dict[SessionKey, Session]], name: N, key: SessionKey) -> None:
    sessions = index.get(name, {})
    sessions.pop(key, None)
    if not sessions:
        index.pop(name, None)
