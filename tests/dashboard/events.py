"""A reader of the dashboard's streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

PATIENCE = 30.0
"""Seconds for what must come."""


class Reader:
    """One stream. ``comments`` counts the lines that say no more than that the server is there."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.comments = 0
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        """The next event: its name and data. StopAsyncIteration at the end."""
        name = ""
        while True:
            line = await asyncio.wait_for(anext(self._lines), PATIENCE)
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                return name, json.loads(value)
            elif value:
                self.comments += 1

    async def until(self, name: str) -> Any:
        """The data of the next event of that name."""
        while True:
            found, data = await self.next()
            if found == name:
                return data


@asynccontextmanager
async def reading(http: httpx.AsyncClient, path: str) -> AsyncIterator[Reader]:
    async with http.stream("GET", f"/dashboard/{path}") as answer:
        yield Reader(answer)
