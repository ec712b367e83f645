"""``python -m tests.support.inside STAGE DIRECTORY DOOR [IMAGES]``: the stage itself, until its stdin closes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tests.support import fleet_stage, node_stage, plane_stage
from tests.support.process import StageError
from tests.support.running import Context, Start
from tests.support.tools import ToolError

_STARTS: dict[str, Start] = {"fleet": fleet_stage.start, "node": node_stage.start, "plane": plane_stage.start}
T = TypeVar("T")


def main(stage: str, directory: str, door: str, images: str = "") -> int:
    """Prints the stage's description as one line of JSON once it is up."""
    try:
        asyncio.run(_live(_STARTS[stage], Path(directory), socket.socket(fileno=int(door)), Path(images)))
    except BaseExceptionGroup as group:
        errors, rest = group.split((StageError, ToolError))
        if rest is not None or errors is None:
            raise
        print(f"error: {_first(errors)}", file=sys.stderr)
        return 1
    except (StageError, ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _live(start: Start, directory: Path, door: socket.socket, images: Path) -> None:
    told = asyncio.create_task(_end_of_stdin())
    async with contextlib.AsyncExitStack() as stack:
        running = await _unless(told, start(Context(directory=directory, stack=stack, door=door, images=images)))
        if running is not None:
            print(json.dumps(running.description), flush=True)
            await _unless(told, running.watch())


async def _unless(told: asyncio.Task[None], work: Coroutine[Any, Any, T]) -> T | None:
    """The result of ``work``, or None when we are told to end before."""
    task = asyncio.create_task(work)
    await asyncio.wait({told, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait({task})
    return None


async def _end_of_stdin() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
