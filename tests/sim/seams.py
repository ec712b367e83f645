"""Where chance, the wall clock and the log come into app: replaced for as long as a simulated world lives."""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from app.kube.errors import ApiError

PACKAGES = ("app.broker", "app.controller", "app.kube")


class Quiet:
    """A logger that only minds what the product calls an exception nobody expected."""

    def __init__(self, on_exception: Callable[[str], None]) -> None:
        self._on_exception = on_exception
        self.debug = self.info = self.warning = self.error = _nothing

    def exception(self, event: str, **_: object) -> None:
        """An error of the API server that a reconcile raises is one of its ways: it is tried again."""
        error = sys.exc_info()[1]
        if not isinstance(error, ApiError):
            self._on_exception(f"{event}: {error!r}")


@contextmanager
def replaced(
    *,
    rng: random.Random,
    wall: Callable[[], float],
    on_exception: Callable[[str], None],
    named: Callable[[str], None],
) -> Iterator[None]:
    """App draws from ``rng`` and reads ``wall``; ``named`` hears of each name's suffix when it is chosen."""

    def token_hex(size: int) -> str:
        suffix = f"{rng.getrandbits(8 * size):0{2 * size}x}"
        named(suffix)
        return suffix

    stand_ins = (
        ("log", None, Quiet(on_exception)),
        ("random", random, rng),
        ("secrets", secrets, SimpleNamespace(token_hex=token_hex)),
        ("time", time, SimpleNamespace(time=wall)),
    )
    before: list[tuple[ModuleType, str, Any]] = []
    for module in [module for name, module in sys.modules.items() if name.startswith(PACKAGES)]:
        for name, real, stand_in in stand_ins:
            found = module.__dict__.get(name)
            if found is not None and (real is None or found is real):
                before.append((module, name, found))
                setattr(module, name, stand_in)
    try:
        yield
    finally:
        for module, name, real in before:
            setattr(module, name, real)


def _nothing(event: str, **_: object) -> None:
    pass
