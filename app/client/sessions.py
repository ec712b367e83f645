"""``velda-apiserver session …``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from app.client.connect import connect
from app.client.errors import ClientError, Exit
from app.client.options import Connection, Format
from app.client.output import print_error, print_json, print_line, print_table, printable
from app.client.retry import Backoff
from app.client.server import Server
from app.obs.progress import Waiting, waiting
from app.proto import velda_pb2

GRACE = 1.0
"""Seconds after which someone who waits is told why; an idle agent takes milliseconds."""
STATUS_PREFIX = "STATUS_"


async def run(to: Connection, request: velda_pb2.SessionRequest, *, timeout: float, output: Format) -> None:
    """Until the session runs; ``timeout`` seconds at most, whatever happens to the server meanwhile."""
    with waiting(f"waiting for an agent of pool {request.pool}") as shown:
        status = await _started(to, request, shown, timeout=timeout)
    if output == "json":
        print_json(status)
    elif output == "name":
        print_line(printable(status.session_id))
    else:
        connection = status.ssh_connection
        print_table(("SESSION", "HOST", "PORT"), [(status.session_id, connection.host, str(connection.port))])


async def _started(
    to: Connection, request: velda_pb2.SessionRequest, shown: Waiting, *, timeout: float
) -> velda_pb2.ExecutionStatus:
    """Asked for again with the same session_id, by which the server knows that it is the same."""
    backoff = Backoff()
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    return await _attempt(to, request, shown, timeout=timeout)
                except ClientError as error:
                    if not error.passing:
                        raise
                    shown.say(f"{error} (trying again)")
                await asyncio.sleep(backoff.seconds())
    except TimeoutError as error:
        why = f": {shown.reason}" if shown.reason else ""
        raise ClientError(
            Exit.UNAVAILABLE,
            f'pool "{request.pool}": no agent took the session within {timeout:g} s{why}; its place in the queue is '
            "given up, try again with a longer --timeout",
        ) from error


async def _attempt(
    to: Connection, request: velda_pb2.SessionRequest, shown: Waiting, *, timeout: float
) -> velda_pb2.ExecutionStatus:
    """By a connection of its own: the leader, its CA and our token may all be others by now."""
    async with connect(to) as server:
        watching = asyncio.create_task(_tell_why(server, request.pool, shown))
        try:
            return await server.request_session(request, timeout=timeout)
        finally:
            watching.cancel()
            await asyncio.wait({watching})


async def _tell_why(server: Server, pool: str, shown: Waiting) -> None:
    """By the pool's status, where we may watch it."""
    await asyncio.sleep(GRACE)
    with contextlib.suppress(ClientError):
        async for notification in server.watch_pool(pool):
            shown.say(notification.autoscaler_status.last_allocation_error)


async def list_sessions(to: Connection, request: velda_pb2.ListSessionsRequest, *, output: Format) -> None:
    async with connect(to) as server:
        answer = await server.list_sessions(request)
    if output == "json":
        print_json(answer)
    elif output == "name":
        for session in answer.sessions:
            print_line(printable(session.session_id))
    else:
        _print_sessions(answer.sessions, wide=output == "wide")


def _print_sessions(sessions: Sequence[velda_pb2.Session], *, wide: bool) -> None:
    columns = ("SESSION", "POOL", "STATUS", "SERVICE", "USER")
    more = ("ADDRESS", "LABELS", "TAGS")
    rows = ((*_cells(session), *_more_cells(session)) for session in sessions)
    shown = (*columns, *more) if wide else columns
    print_table(shown, [row[: len(shown)] for row in rows])


def _cells(session: velda_pb2.Session) -> tuple[str, ...]:
    status = velda_pb2.ExecutionStatus.Status.Name(session.status).removeprefix(STATUS_PREFIX)
    return session.session_id, session.pool, status, session.service_name, session.user


def _more_cells(session: velda_pb2.Session) -> tuple[str, ...]:
    tags = ",".join(f"{key}={value}" for key, value in sorted(session.tags.items()))
    return session.internal_ip_address, ",".join(session.labels), tags


async def kill(to: Connection, requests: Sequence[velda_pb2.KillSessionRequest]) -> None:
    """Each of them, also where another is refused; raises the first refusal."""
    refused: list[ClientError] = []
    async with connect(to) as server:
        for request in requests:
            try:
                await server.kill_session(request)
                print_line(f"{_name(request)} is told to end")
            except ClientError as error:
                refused.append(error)
    for other in refused[1:]:
        print_error(str(other))
    if refused:
        raise refused[0]


def _name(request: velda_pb2.KillSessionRequest) -> str:
    kind, name = ("service", request.service_name) if request.service_name else ("session", request.session_id)
    return printable(f'{kind} "{name}"')
