"""Whoever is not the agent that it says it is: refused with a status, a log line and a count, and nothing changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from app.broker import identity, services
from app.broker.reports import Reports
from app.kube.access import review_token
from app.kube.errors import ApiUnreachable
from app.proto import velda_pb2
from tests.broker.pods import AUDIENCE, Authority, Home
from tests.broker.wire import Plane, Tls, WireAgent, agent, serving
from tests.broker.world import CPU, Pools, execution
from tests.support.cluster import Cluster
from tests.support.limits import refusals
from tests.support.relay import SourceRelay

DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(autouse=True)
def fresh_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "reports", Reports())
    monkeypatch.setattr(identity, "PATIENCE", 0.05)


@pytest.fixture(scope="module")
def home(cluster: Cluster) -> Home:
    return Home(cluster)


@asynccontextmanager
async def asking(home: Home, authentication: Any = "token") -> AsyncIterator[Plane]:
    """A broker that asks the real API server about tokens."""
    async with home.cluster.client() as client:

        async def review(token: str) -> Mapping[str, Any] | None:
            return await review_token(client, token, [AUDIENCE])

        async with serving(home.pools, authentication=authentication, review=review) as plane:
            yield plane


async def refused(plane: Plane, worker: WireAgent, *, pool: str = "cpu", reason: str) -> tuple[grpc.StatusCode, str]:
    """The status; the rest is looked at here."""
    before = refusals(reason), _state(plane)
    claim = velda_pb2.AgentIdentity(agent_id=worker.name, pool=pool)
    with capture_logs() as lines:
        await worker.say(agent_identity=claim, current_executions=[execution("stolen")])
        status = await worker.ended()
    await worker.vanish()
    assert (refusals(reason), _state(plane)) == (before[0] + 1, before[1])
    (line,) = [line for line in lines if line["event"] == "refused"]
    assert (line["pool"], line["agent"], line["reason"]) == (pool, worker.name, reason)
    assert line["peer"]
    assert line["error"] == status[1]
    return status


def _state(plane: Plane) -> Any:
    agents = [plane.registry.pool_agents(info.key) for info in plane.server._pools.pools()]
    return agents, plane.registry.list(instance_id=1)


@pytest.fixture
def pools() -> Pools:
    pools = Pools(CPU)
    pools.add_pod(CPU, "a")
    pools.add_pod(CPU, "b", ip="127.0.0.2")
    return pools


async def test_a_pool_that_is_none_or_not_the_pods_own(pools: Pools) -> None:
    gpu = CPU._replace(name="gpu")
    pools.info[gpu] = Pools(gpu).info[gpu]
    async with serving(pools, authentication="pod") as plane, agent(plane, running=(execution("own"),)):
        status = await refused(plane, WireAgent(plane.port, "a"), pool="nope", reason="unknown_pool")
        assert status == (grpc.StatusCode.NOT_FOUND, 'there is no pool "nope"')
        status = await refused(plane, WireAgent(plane.port, "a"), pool="gpu", reason="not_a_worker")
        assert status == (DENIED, 'pool "gpu" has no pod "a" with an address')


async def test_the_name_of_somebody_elses_pod(pools: Pools) -> None:
    async with serving(pools, authentication="pod") as plane, agent(plane, running=(execution("own"),)):
        code, details = await refused(plane, WireAgent(plane.port, "b"), reason="not_a_worker")
        assert code is DENIED
        assert "default/b has the address 127.0.0.2, the connection comes from 127.0.0.1" in details


async def test_the_right_name_from_a_wrong_address_also_while_the_agent_is_there(pools: Pools, tmp_path: Path) -> None:
    async with serving(pools, authentication="pod") as plane:

        async def target() -> tuple[str, int]:
            return "127.0.0.1", plane.port

        relay = SourceRelay(tmp_path / "relay", target=target, source="127.0.0.2")
        async with agent(plane, running=(execution("own"),)) as rightful, relay.listening() as dial:
            code, details = await refused(plane, WireAgent(dial, "a"), reason="not_a_worker")
            assert code is DENIED
            assert "has the address 127.0.0.1, the connection comes from 127.0.0.2" in details
            await rightful.say()
            own = WireAgent(dial, "b")
            await own.join()
            await own.vanish()


async def test_names_of_any_length_and_kind_leave_short_lines(pools: Pools) -> None:
    async with serving(pools, authentication="pod") as plane:
        worker = WireAgent(plane.port, "\x1b[2J\n" + "x" * 100_000)
        with capture_logs() as lines:
            await worker.say(agent_identity=velda_pb2.AgentIdentity(agent_id=worker.name, pool="cpu\r\n"))
            assert (await worker.ended())[0] is grpc.StatusCode.INVALID_ARGUMENT
        await worker.vanish()
        (line,) = [line for line in lines if line["event"] == "refused"]
        assert line["pool"] == "cpu??"
        assert line["agent"].startswith("?[2J?xxx")
        assert max(map(len, map(str, line.values()))) < 200


async def test_a_pod_is_admitted_by_its_own_token_from_any_address(home: Home) -> None:
    name = home.pod(ip="10.9.9.9")
    async with asking(home) as plane:
        worker = WireAgent(plane.port, name, token=home.token(name))
        await worker.join()
        await plane.seen(home.pool, connected=1)
        await worker.vanish()


async def test_tokens_that_prove_nothing(home: Home) -> None:
    name = home.pod()
    other, gone = home.pod(), home.pod()
    own, orphan = home.token(name), home.token(gone)
    home.delete(gone)
    async with asking(home) as plane:
        rightful = WireAgent(plane.port, name, token=own)
        await rightful.join()
        for token in (
            "",
            "nonsense",
            "x" * 7000,
            home.expired(own),
            home.token(name, audience="velda-apiserver"),
            home.unbound_token(),
            own[:-4] + "AAAA",
            orphan,
        ):
            code, details = await refused(plane, WireAgent(plane.port, name, token=token), reason="unauthenticated")
            assert code is UNAUTHENTICATED
            assert "/var/run/secrets/velda.io/agent/token" in details or "the token is not valid" in details
        status = await refused(plane, WireAgent(plane.port, name, token=home.token(other)), reason="not_a_worker")
        assert status == (DENIED, f"the token is not that of pod {home.namespace}/{name}")
        await rightful.say()
        await rightful.vanish()


async def test_the_token_of_a_pod_that_was_deleted_and_made_again(home: Home) -> None:
    name = home.pod()
    stale = home.token(name)
    home.delete(name)
    home.pod(name=name)
    async with asking(home) as plane:
        code, _ = await refused(plane, WireAgent(plane.port, name, token=stale), reason="unauthenticated")
        assert code is UNAUTHENTICATED
    home.pools.add_pod(home.pool, name, uid="another uid")
    async with asking(home) as plane:
        fresh = WireAgent(plane.port, name, token=home.token(name))
        assert (await refused(plane, fresh, reason="not_a_worker"))[0] is DENIED


async def test_where_the_address_is_enough_a_token_makes_it_stronger_and_a_bad_one_is_refused(home: Home) -> None:
    name = home.pod()
    async with asking(home, "pod") as plane:
        bad = WireAgent(plane.port, name, token="nonsense")
        assert (await refused(plane, bad, reason="unauthenticated"))[0] is UNAUTHENTICATED
        by_address = WireAgent(plane.port, name)
        await by_address.join()
        by_token = WireAgent(plane.port, name, token=home.token(name))
        await by_token.join()
        assert (await by_address.ended())[0] is grpc.StatusCode.ABORTED
        code, details = await refused(plane, WireAgent(plane.port, name), reason="weaker_proof")
        assert code is DENIED
        assert details == f"agent {name} of pool {home.pool} is authenticated by ADDRESS, and before by TOKEN"
        await by_token.say()
        await by_token.vanish()


async def test_a_token_that_cannot_be_checked_is_no_proof_and_may_be_tried_again(pools: Pools) -> None:
    async def review(token: str) -> None:
        raise ApiUnreachable("no answer")

    async with serving(pools, authentication="token", review=review) as plane:
        code, details = await refused(plane, WireAgent(plane.port, "a", token="secret"), reason="not_checked")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "secret" not in details


async def test_a_pod_that_goes_while_its_token_is_checked_is_refused(pools: Pools) -> None:
    async def review(token: str) -> Mapping[str, Any]:
        pools.add_pod(CPU, "a", terminating=True)
        about = {"pod-name": ["a"], "pod-uid": ["uid of a"]}
        extra = {f"authentication.kubernetes.io/{key}": value for key, value in about.items()}
        return {"username": "system:serviceaccount:default:default", "extra": extra}

    async with serving(pools, authentication="token", review=review) as plane:
        code, details = await refused(plane, WireAgent(plane.port, "a", token="t"), reason="not_a_worker")
        assert (code, details) == (DENIED, "pod default/a is being deleted or has ended")


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


async def test_certificates_of_others_or_for_others(pools: Pools, ours: Authority) -> None:
    """Of a CA that TLS trusts for another purpose; one that it does not trust at all never gets to speak."""
    cluster, foreign = Authority(), Authority()
    tls = Tls(ours.server, ours.pair.certificate, ours.pair.certificate + cluster.pair.certificate)
    async with serving(pools, authentication="mtls", tls=tls) as plane:
        rightful = WireAgent(plane.port, "a", credentials=ours.client(ours))
        await rightful.join(running=(execution("own"),))
        for credentials, reason, code in (
            (cluster.client(ours), "unauthenticated", UNAUTHENTICATED),
            (ours.client(ours, name="b", uid="uid of b"), "not_a_worker", DENIED),
            (ours.client(ours, uid="uid of an older a"), "not_a_worker", DENIED),
        ):
            worker = WireAgent(plane.port, "a", credentials=credentials)
            assert (await refused(plane, worker, reason=reason))[0] is code
        before = _state(plane)
        for stranger in (foreign.client(ours), grpc.ssl_channel_credentials(ours.pair.certificate), None):
            await _never_connected(WireAgent(plane.port, "a", credentials=stranger))
        assert _state(plane) == before
        await rightful.say()
        await rightful.vanish()


async def test_where_tls_asks_for_no_certificate_none_counts(pools: Pools, ours: Authority) -> None:
    async with serving(pools, authentication="mtls", tls=Tls(ours.server, ours.pair.certificate)) as plane:
        worker = WireAgent(plane.port, "a", credentials=ours.client(ours))
        code, details = await refused(plane, worker, reason="unauthenticated")
        assert code is UNAUTHENTICATED
        assert "pod default/a must show the certificate that it has at /var/run/secrets/velda.io/certificate" in details


async def test_an_agent_speaks_to_no_other_server(pools: Pools, ours: Authority) -> None:
    async with serving(pools, authentication="mtls", tls=Tls(Authority().server, b"", ours.pair.certificate)) as plane:
        await _never_connected(WireAgent(plane.port, "a", credentials=ours.client(ours)))


async def _never_connected(worker: WireAgent) -> None:
    assert (await worker.ended())[0] is grpc.StatusCode.UNAVAILABLE
    await worker.vanish()
