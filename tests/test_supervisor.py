"""What systemd is told, at a socket of the test's own."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.supervisor import STATUS_PERIOD, Supervisor


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def environment(systemd: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": systemd.getsockname(), **more}


def test_ready_and_stopping_with_a_line_for_systemctl_status(systemd: socket.socket) -> None:
    told = Supervisor(environment(systemd))
    told.ready("leading")
    told.stopping("stopping")
    assert systemd.recv(100) == b"READY=1\nSTATUS=leading"
    assert systemd.recv(100) == b"STOPPING=1\nSTATUS=stopping"


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0velda-test-{os.getpid()}")
        receiver.settimeout(5)
        Supervisor({"NOTIFY_SOCKET": f"@velda-test-{os.getpid()}"}).ready("leading")
        assert receiver.recv(100).startswith(b"READY=1")


async def test_signs_of_life_twice_in_the_watchdogs_period_with_what_is_so_then(systemd: socket.socket) -> None:
    status = iter(["one", "two"])
    told = Supervisor(environment(systemd, WATCHDOG_USEC="2000", WATCHDOG_PID=str(os.getpid())))
    with pytest.raises(RuntimeError):  # of the iterator's end
        await asyncio.wait_for(told.beat(lambda: next(status)), timeout=5)
    assert [systemd.recv(100) for _ in range(2)] == [b"WATCHDOG=1\nSTATUS=one", b"WATCHDOG=1\nSTATUS=two"]


@pytest.mark.parametrize(
    ("more", "period"),
    [
        ({}, STATUS_PERIOD),
        ({"WATCHDOG_USEC": "30000000"}, STATUS_PERIOD),
        ({"WATCHDOG_USEC": "1000000"}, 0.5),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, STATUS_PERIOD),
    ],
)
def test_how_often(more: dict[str, str], period: float) -> None:
    assert Supervisor({"NOTIFY_SOCKET": "/x", **more})._period == period


async def test_no_signs_of_life_without_systemd() -> None:
    await asyncio.wait_for(Supervisor({"WATCHDOG_USEC": "1000"}).beat(lambda: "leading"), timeout=5)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/no/such/socket"}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    Supervisor(environ).ready("leading")


def test_a_systemd_that_does_not_read_holds_nobody_up(systemd: socket.socket) -> None:
    told = Supervisor(environment(systemd))
    for _ in range(10_000):
        told.ready("x" * 100)
