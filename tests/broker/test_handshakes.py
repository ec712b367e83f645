"""Handshakes that fail inside gRPC are counted and told, though no call of theirs ever comes."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from structlog.testing import capture_logs

from app.broker import handshakes as module
from app.broker import server, services
from app.broker.handshakes import SETTLED, UNSETTLED, Handshakes
from tests.broker import wire
from tests.broker.pods import Authority
from tests.broker.wire import Tls, WireAgent, serving
from tests.broker.world import CPU, Pools
from tests.support.clock import Clock
from tests.support.limits import refusals


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def handshakes(clock: Clock) -> Handshakes:
    return Handshakes(clock)


def test_what_no_call_followed_has_failed_once_there_was_time_for_one(handshakes: Handshakes, clock: Clock) -> None:
    for _ in range(3):
        handshakes.begins()
    handshakes.called("ipv4:10.0.0.1:1")
    clock.now = SETTLED - 0.1
    assert handshakes.failed() == 0
    handshakes.begins()
    clock.now = SETTLED
    assert handshakes.failed() == 2
    assert handshakes.failed() == 0
    clock.now += SETTLED
    assert handshakes.failed() == 1


def test_a_second_call_of_a_connection_is_nobodys_handshake(handshakes: Handshakes, clock: Clock) -> None:
    handshakes.begins()
    handshakes.called("ipv4:10.0.0.1:1")
    handshakes.begins()
    handshakes.called("ipv4:10.0.0.1:1")
    clock.now = SETTLED
    assert handshakes.failed() == 1


def test_a_flood_is_bounded(handshakes: Handshakes, clock: Clock) -> None:
    for _ in range(UNSETTLED + 10):
        handshakes.begins()
    clock.now = SETTLED
    assert handshakes.failed() == UNSETTLED


async def test_a_foreign_certificate_and_none_are_counted_and_told(
    handshakes: Handshakes, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in (server, services, wire):
        monkeypatch.setattr(user, "handshakes", handshakes)
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    ours, foreign, pools = Authority(), Authority(), Pools(CPU)
    pools.add_pod(CPU, "a")

    before = refusals("handshake")
    tls = Tls(ours.server, ours.pair.certificate, ours.pair.certificate)
    with capture_logs() as lines:
        async with serving(pools, authentication="mtls", tls=tls) as plane, asyncio.timeout(20):
            rightful = WireAgent(plane.port, "a", credentials=ours.client(ours))
            await rightful.join()
            strangers = (foreign.client(ours), grpc.ssl_channel_credentials(ours.pair.certificate))
            for stranger in strangers:
                worker = WireAgent(plane.port, "a", credentials=stranger)
                assert (await worker.ended())[0] is grpc.StatusCode.UNAVAILABLE
                await worker.vanish()
            assert refusals("handshake") == before
            clock.now = SETTLED
            while refusals("handshake") < before + len(strangers):  # noqa: ASYNC110  a count has no event
                await asyncio.sleep(0.01)
            await rightful.vanish()
    told = [line for line in lines if line.get("reason") == "handshake"]
    assert len(told) == refusals("handshake") - before
    assert {(line["call"], line["peer"]) for line in told} == {("TLS handshake", "unknown")}
