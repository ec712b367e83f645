"""The application before what schemathesis makes of its own OpenAPI document: no 5xx, and answers as described."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

from app.api.rest import RestApi
from tests.api.serving import rest, willing_agent

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
DOCUMENT = schemathesis.openapi.from_dict(RestApi(lambda: None).openapi())
UNIMPLEMENTED = 501
"""What batch work gets: the only 5xx that a leader answers to a request of a client's making."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where a leader serves the REST API; its loop has a thread of its own."""
    started: list[str] = []
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with rest() as served, willing_agent(served, slots=4):
            loops.append(asyncio.get_running_loop())
            started.append(f"http://127.0.0.1:{served.port}/rest")
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="rest")
    thread.start()
    assert ready.wait(timeout=30)
    yield started[0]
    loops[0].call_soon_threadsafe(stop.set)
    thread.join()


@DOCUMENT.exclude(path_regex="/watch$").parametrize()
@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case: schemathesis.Case[Any], url: str) -> None:
    for part in (case.body, case.path_parameters):
        if isinstance(part, dict) and "pool" in part:
            part["pool"] = "cpu"  # no other exists
    response = case.call(base_url=url)
    assert response.status_code < 500 or response.status_code == UNIMPLEMENTED
    case.validate_response(response, checks=CHECKS)
