"""The HTTPS server as the service runs it."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from app import service
from app.settings import Limits
from certs.serving import Serving
from tests.support.process import free_port

API_SERVER_IDLE = 90
"""Seconds after which an API server closes a connection that it does not use (source: client-go, http.Transport)."""


async def test_an_idle_connection_is_the_api_servers_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    real = uvicorn.Config

    def config(*args: Any, **options: Any) -> uvicorn.Config:
        given.update(options)
        return real(*args, **options)

    monkeypatch.setattr(uvicorn, "Config", config)
    async with service._serving(FastAPI(), "127.0.0.1", free_port(), Serving().context, Limits()):
        assert given["timeout_keep_alive"] > API_SERVER_IDLE


def test_answers_do_not_wait_for_the_peers_acknowledgement() -> None:
    with service._listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_the_start_has_made_is_left_out_of_later_collections() -> None:
    held = [[number] for number in range(1000)]
    try:
        service._settle_heap()
        left = {id(thing) for thing in gc.get_objects()}
        assert not any(id(thing) in left for thing in held)
        assert gc.get_freeze_count() > len(held)
    finally:
        gc.unfreeze()
