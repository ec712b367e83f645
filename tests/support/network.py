"""Loopback ranges for stages that run at the same time: each takes one of 16, and the kernel gives it back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.process import StageError

_RANGES = 16


@dataclass(frozen=True)
class LoopbackRange:
    """127.80.0.0/16 … for pods and 127.96.0.0/16 … for Services."""

    number: int

    @property
    def pod_cidr(self) -> str:
        return f"127.{80 + self.number}.0.1/16"

    @property
    def service_cidr(self) -> str:
        return f"127.{96 + self.number}.0.0/16"

    @property
    def first_service(self) -> str:
        return f"127.{96 + self.number}.0.1"


@contextmanager
def take_range() -> Iterator[LoopbackRange]:
    """Raises StageError when 16 stages run already."""
    for number in range(_RANGES):
        with socket.socket(socket.AF_UNIX) as lock:
            try:
                lock.bind(f"\0velda-stage-{number}")
            except OSError:
                continue
            yield LoopbackRange(number)
            return
    raise StageError(f"{_RANGES} stages run on this machine already")
