"""What a page is sent, as server-sent events: all at first, then what has changed, until the reader's rights end.

Nothing is queued for a reader: the next event is made when the last has been taken, from what is there then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from app.broker.access import Caller
from app.broker.clients import Clients
from app.dashboard.board import Board
from app.dashboard.rows import Row, agent_rows, pool_detail, pool_row, session_rows
from app.model.meta import NamespacedName

TICK = 1.0
"""Seconds between two looks; a look costs by what has changed."""
RIGHTS_INTERVAL = 10.0
"""Seconds between two looks at which namespaces the reader may see."""
STREAM_SECONDS = 900.0
"""A page that is still open then opens the next stream; one that was left behind does not."""
MOST_ROWS = 1000
"""Agents, and sessions, of one pool that are shown."""

Enter = Callable[[], Awaitable[tuple[Clients, Caller]]]
"""Who reads, and the calls of this term: asked again at each look, since either may end. Raises RefusedError."""
Event = tuple[str, Mapping[str, Any]]
"""Its name and data; a look that has none to tell is None."""


class Delta:
    """Which rows a reader has."""

    def __init__(self) -> None:
        self._sent: dict[str, Row] = {}

    def news(self, rows: dict[str, Row]) -> dict[str, Any]:
        """Rows that are new or other than before, and the keys of those that are gone."""
        changed = [row for key, row in rows.items() if self._sent.get(key) != row]
        gone = [key for key in self._sent if key not in rows]
        self._sent = rows
        return {"rows": changed, "gone": gone}


async def overview(board: Board, enter: Enter) -> AsyncGenerator[Event | None]:
    """``pools``: the rows of those that the reader may list; ``whole`` if they replace all that was sent before."""
    seen, allowed, due = -1, frozenset[str](), float("-inf")
    async for now in _looks():
        clients, caller = await enter()
        changed = board.rows.since(seen) if seen >= 0 else None
        if now >= due:
            due = now + RIGHTS_INTERVAL
            found = frozenset(await clients.listable(caller, {key.namespace for key in board.cache.pool_keys()}))
            changed = changed if found == allowed else None
            allowed = found
        whole, seen = changed is None, board.rows.now()
        rows, gone = _rows(board, board.cache.pool_keys() if changed is None else changed, allowed)
        if whole or rows or gone:
            yield "pools", {"at": board.wall(), "whole": whole, "rows": rows, "gone": gone}
        else:
            yield None


def _rows(board: Board, keys: list[NamespacedName], allowed: frozenset[str]) -> tuple[list[Row], list[str]]:
    """Of those that are there, and which are not."""
    shown = [(key, board.cache.pool(key)) for key in keys if key.namespace in allowed]
    return [pool_row(pool) for _, pool in shown if pool], [str(key) for key, pool in shown if not pool]


async def one_pool(board: Board, enter: Enter, key: NamespacedName) -> AsyncGenerator[Event | None]:
    """``pool`` (first with its history), and ``agents`` and ``sessions``: rows, and how many there are in all.

    ``sessions`` says ``hidden`` to whom they are not listed. Ends with RefusedError when the pool is gone.
    """
    agents, sessions = Delta(), Delta()
    seen, shown = None, Row()
    epoch = board.wall() - asyncio.get_running_loop().time()
    async for _ in _looks():
        clients, caller = await enter()
        listed = await clients.may_list_inside(caller, key)
        pool, now = board.cache.pool(key), (board.contents.of(key), listed)
        if pool is None or now == seen:
            yield None
            continue
        inside = clients.inside(key, listed=listed)
        first, seen = seen is None, now
        if (row := pool_detail(pool)) != shown:
            shown = row
            history = {"history": board.history(key).columns()} if first else {}
            yield "pool", {"at": board.wall(), "pool": row, **history}
        pods, running = board.cache.labelled_pods(key), inside.sessions or []
        news = agents.news(agent_rows(pods, inside.agents, epoch=epoch, most=MOST_ROWS))
        yield "agents", {"whole": first, "total": len({*pods, *inside.agents}), **news}
        news = sessions.news(session_rows(running, epoch=epoch, most=MOST_ROWS))
        yield "sessions", {"whole": first, "total": len(running), "hidden": not listed, **news}


async def _looks() -> AsyncIterator[float]:
    """The monotonic time, as often as is to be looked."""
    loop = asyncio.get_running_loop()
    end = loop.time() + STREAM_SECONDS
    while (now := loop.time()) < end:
        yield now
        await asyncio.sleep(TICK)
