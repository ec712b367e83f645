"""How much one peer, or all together, may ask of the broker; and the refusal, which names the limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.broker.identity import peer_address
from app.broker.refusal import Reason, RefusedError
from app.core.words import printable
from app.model.meta import NamespacedName
from app.obs import metrics
from app.proto import velda_pb2
from app.settings import Limits

ALL = ""


class Places:
    """So many at once of each, whose that may be."""

    def __init__(self, name: str, limit: int) -> None:
        self._name, self._limit = name, limit
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    @contextmanager
    def one(self, what: str, *, of: str = ALL) -> Iterator[None]:
        """A place for the block. Raises RefusedError: ``what`` there are too many of."""
        if self._taken[of] >= self._limit:
            raise over(self._name, self._limit, f"{what}; try again later")
        self._taken[of] += 1
        try:
            yield
        finally:
            self._taken[of] -= 1
            if not self._taken[of]:
                del self._taken[of]


class Bounds:
    """The limits for one term of leadership. Whatever is refused is counted by the limit's name."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._in_pool = Places("waiting_per_pool", limits.waiting_per_pool)
        self._of_user = Places("waiting_per_user", limits.waiting_per_user)
        self._watches = Places("watches", limits.watches)
        self.arrivals = Places("new_streams", limits.new_streams)
        self._arrivals_from = Places("new_streams_per_address", limits.new_streams_per_address)

    @property
    def first_message_seconds(self) -> float:
        return self._limits.request_seconds

    def nothing_said(self) -> RefusedError:
        seconds = self._limits.request_seconds
        return over("request_seconds", seconds, "the stream has not said whose it is; send agent_identity at once")

    @property
    def unread_messages(self) -> int:
        return self._limits.unread_messages

    def unread(self) -> RefusedError:
        most = self._limits.unread_messages
        return over("unread_messages", most, "the agent has not read what it was sent; it counts as lost")

    @contextmanager
    def waiting(self, pool: NamespacedName, user: str) -> Iterator[None]:
        """A request for a session, until it is answered. Who is nobody shares the pool's places alone."""
        with self._in_pool.one(f"requests wait for a session of pool {pool}", of=str(pool)):
            if not user:
                yield
                return
            with self._of_user.one(f'requests of user "{printable(user)}" wait for a session', of=user):
                yield

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self._watches.one("watches of pools are open"):
            yield

    @contextmanager
    def arriving(self, peer: str) -> Iterator[None]:
        """An agent's stream, until it is known whose it is."""
        address = str(peer_address(peer) or peer)
        with (
            self.arrivals.one("streams have not said yet whose they are"),
            self._arrivals_from.one(f"streams from {address} have not said yet whose they are", of=address),
        ):
            yield

    def check_session(self, request: velda_pb2.SessionRequest) -> None:
        """Raises RefusedError if the request is too large, or a name in it is too long or no text."""
        limits = self._limits
        if request.ByteSize() > limits.session_bytes:
            raise over("session_bytes", limits.session_bytes, f"the session request has {request.ByteSize()} bytes")
        for field in ("session_id", "user", "pool", "service_name"):
            name = getattr(request, field)
            if len(name) > limits.name_length:
                raise over("name_length", limits.name_length, f"{field} has {len(name)} characters")
            if not name.isprintable():
                raise RefusedError(Reason.BAD_REQUEST, f"{field} has characters that cannot be printed; leave them out")
        for field in ("labels", "tags"):
            if (count := len(getattr(request, field))) > limits.tags:
                raise over("tags", limits.tags, f"the session request has {count} {field}")

    def check_tags(self, tags: dict[str, str]) -> None:
        """Of a session as it would have them. Raises RefusedError."""
        if len(tags) > self._limits.tags:
            raise over("tags", self._limits.tags, f"the session would have {len(tags)} tags; remove some")
        size = sum(len(name.encode()) + len(value.encode()) for name, value in tags.items())
        if size > self._limits.session_bytes:
            raise over("session_bytes", self._limits.session_bytes, f"the session's tags would have {size} bytes")

    def check_join(self, first: velda_pb2.AgentUpdateRequest) -> None:
        """What an agent says of itself. Raises RefusedError."""
        most = self._limits.slots_per_agent
        if first.slots > most:
            raise over("slots_per_agent", most, f"the agent has {first.slots} slots; lower daemon_config.max_sessions")
        if (count := len(first.current_executions)) > most:
            raise over("slots_per_agent", most, f"the agent reports {count} sessions")
        for execution in first.current_executions:
            self.check_session(execution.request)
            self.check_message(execution.response)

    def check_message(self, message: velda_pb2.AgentUpdateRequest | velda_pb2.SessionInitResponse) -> None:
        """Any later message of an agent, or what it reports of a session. Raises RefusedError."""
        if (size := message.ByteSize()) > self._limits.session_bytes:
            raise over("session_bytes", self._limits.session_bytes, f"the agent's answer has {size} bytes")


def over(name: str, limit: int, what: str) -> RefusedError:
    """Counts it. ``what`` says how much was asked for, and what to do if it is not to ask for less."""
    metrics.LIMIT_REFUSALS.labels(name).inc()
    return RefusedError(Reason.LIMIT, f"{what} (limits.{name}: {limit})")
