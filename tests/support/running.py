"""What every stage gives to the process that runs it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stage that is up: how to use it, and a coroutine that ends only when a part of it fails."""

    description: dict[str, str]
    watch: Callable[[], Coroutine[Any, Any, None]]


Start = Callable[[Path, AsyncExitStack], Coroutine[Any, Any, Running]]
