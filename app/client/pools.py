"""``velda-apiserver pool …``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC

from app.client.connect import connect
from app.client.errors import ClientError
from app.client.options import Connection, Format
from app.client.output import print_error, print_json, print_line, print_table, printable
from app.client.retry import Backoff
from app.proto import velda_pb2

PATIENCE = 60.0
"""Seconds that a watch goes on without an answer of the server."""
NO_ERROR = "no allocation error"


async def list_pools(to: Connection, *, namespace: str, output: Format) -> None:
    """Those that we may list; of one namespace, if it is given."""
    async with connect(to) as server:
        answer = await server.list_pools(velda_pb2.ListPoolsRequest(namespace=namespace))
    if output == "json":
        print_json(answer)
    elif output == "name":
        for pool in answer.pools:
            print_line(printable(pool.name))
    else:
        _print_pools(answer.pools, wide=output == "wide")


def _namespace(pool: velda_pb2.Pool) -> str:
    """The server describes a pool by its whole name, NAMESPACE/NAME."""
    return pool.description.partition("/")[0]


def _print_pools(pools: Sequence[velda_pb2.Pool], *, wide: bool) -> None:
    columns = ("NAME", "NAMESPACE", "ALLOCATION ERROR", *(("SINCE",) if wide else ()))
    rows = [
        (pool.name, _namespace(pool), pool.autoscaler_status.last_allocation_error, _since(pool.autoscaler_status))
        for pool in pools
    ]
    print_table(columns, [row[: len(columns)] for row in rows])


def _since(status: velda_pb2.PoolAutoscalerStatus) -> str:
    if not status.HasField("last_allocation_error_time"):
        return ""
    return status.last_allocation_error_time.ToDatetime(tzinfo=UTC).isoformat(timespec="seconds")


async def watch(to: Connection, pool: str, *, output: Format) -> None:
    """A line for each change, until the pool is gone, which is a ClientError."""
    async for notification in _changes(to, pool):
        status = notification.autoscaler_status
        if output == "json":
            print_json(notification, indent=None)
        else:
            said = printable(status.last_allocation_error) or NO_ERROR
            print_line(f"{time.strftime('%H:%M:%S')}  {printable(notification.pool)}  {said}")


async def _changes(to: Connection, pool: str) -> AsyncGenerator[velda_pb2.PoolStatusNotification]:
    """Over the ends of servers: what each says first is a change only if it differs."""
    backoff, shown, failing_since = Backoff(), None, None
    while True:
        try:
            async with connect(to) as server:
                async for notification in server.watch_pool(pool):
                    backoff.reset()
                    failing_since = None
                    if notification != shown:
                        shown = notification
                        yield notification
        except ClientError as error:
            now = time.monotonic()
            failing_since = failing_since or now
            if not error.passing or now - failing_since > PATIENCE:
                raise
            print_error(f"{error} (trying again)")
        await asyncio.sleep(backoff.seconds())
