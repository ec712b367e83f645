"""Who asks over HTTP, and the calls of this term of leadership."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from app.api.auth import credentials
from app.broker.access import Caller
from app.broker.clients import Clients
from app.broker.refusal import Reason, RefusedError

Leading = Callable[[], Clients | None]
"""The calls of this term; None while another replica leads."""


def calls(leading: Leading) -> Clients:
    """Raises RefusedError while another replica leads."""
    clients = leading()
    if clients is None:
        raise RefusedError(Reason.NOT_LEADING, "another replica leads: ask the Service that follows the leader")
    return clients


async def enter(leading: Leading, request: Request) -> tuple[Clients, Caller]:
    """Before anything of the request is read. Raises RefusedError."""
    clients = calls(leading)
    return clients, await clients.identify(credentials(request))
