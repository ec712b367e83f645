"""Only the pod itself may join under its name."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from app.broker import identity
from app.broker.agents import Strength
from app.broker.identity import Admitted, Gatekeeper, peer_address
from app.broker.refusal import Reason, RefusedError
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from tests.broker.world import CPU, Pools

TEAM = NamespacedName("team", "cpu")


@pytest.fixture
def pools() -> Pools:
    return Pools(CPU)


async def admit(
    pools: Pools,
    *,
    agent_id: str = "a",
    pool: str = "cpu",
    peer: str = "ipv4:10.0.0.1:5000",
    authentication: Literal["pod", "none"] = "pod",
    ip_address: str = "",
) -> Admitted:
    agent = velda_pb2.AgentIdentity(agent_id=agent_id, pool=pool, ip_address=ip_address)
    return await Gatekeeper(pools, authentication=authentication).admit(agent, peer)


async def refusal(pools: Pools, **arguments: str) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        await admit(pools, **arguments)  # type: ignore[arg-type]
    return refused.value


@pytest.mark.parametrize("pool", ["cpu", "default/cpu"])
async def test_a_pod_from_its_own_address_is_admitted(pools: Pools, pool: str) -> None:
    pools.add_pod(CPU, "a", ip="10.0.0.1")
    assert await admit(pools, pool=pool, ip_address="6.6.6.6") == Admitted(CPU, "a", "10.0.0.1", Strength.ADDRESS)


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.1:5000", "ipv6:%5Bfd00::2%5D:5000"])
async def test_a_pod_may_dial_from_each_of_its_addresses(pools: Pools, peer: str) -> None:
    pools.add_pod(CPU, "a", ip="10.0.0.1", more_ips=("fd00::2",))
    assert await admit(pools, peer=peer) == Admitted(CPU, "a", "10.0.0.1", Strength.ADDRESS)
    why = await refusal(pools, peer="ipv6:%5Bfd00::3%5D:5000")
    assert "default/a has the address 10.0.0.1 or fd00::2, the connection comes from fd00::3" in why.message


async def test_the_hosts_address_is_a_weaker_proof(pools: Pools) -> None:
    pools.add_pod(CPU, "a", ip="10.0.0.1", host_network=True)
    assert (await admit(pools)).strength is Strength.HOST_ADDRESS


async def test_a_connection_without_an_address_is_refused(pools: Pools) -> None:
    pools.add_pod(CPU, "a", ip="10.0.0.1", more_ips=("",))
    assert "the connection comes from unix:" in (await refusal(pools, peer="unix:")).message


@pytest.mark.parametrize("name", [{"agent_id": ""}, {"agent_id": "a" * 254}, {"pool": "p" * 508}])
async def test_what_cannot_be_a_name_is_refused(pools: Pools, name: dict[str, str]) -> None:
    why = await refusal(pools, **name)
    assert why.reason is Reason.BAD_REQUEST
    assert len(why.message) < 200


async def test_a_pod_from_another_address_is_refused(pools: Pools) -> None:
    pools.add_pod(CPU, "a", ip="10.0.0.1")
    why = await refusal(pools, peer="ipv4:10.0.0.2:5000")
    assert why.reason is Reason.NOT_A_WORKER
    assert "default/a has the address 10.0.0.1, the connection comes from 10.0.0.2" in why.message


async def test_a_terminating_pod_is_refused(pools: Pools) -> None:
    pools.add_pod(CPU, "a", ip="10.0.0.1", terminating=True)
    assert "default/a is being deleted or has ended" in (await refusal(pools)).message


async def test_a_name_that_is_no_pod_is_refused_after_a_while(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "PATIENCE", 0.01)
    pools.add_pod(CPU, "b", ip="10.0.0.1")
    why = await refusal(pools)
    assert why.reason is Reason.NOT_A_WORKER
    assert 'pool "cpu" has no pod "a"' in why.message


async def test_an_agent_that_is_quicker_than_the_watch_waits_for_its_pod_and_for_its_address(pools: Pools) -> None:
    keeper = Gatekeeper(pools, authentication="pod")
    agent = velda_pb2.AgentIdentity(agent_id="a", pool="cpu")
    admission = asyncio.create_task(keeper.admit(agent, "ipv4:10.0.0.1:5000"))
    for ip in ["", "10.0.0.1"]:
        await asyncio.sleep(0)
        assert not admission.done()
        pools.add_pod(CPU, "a", ip=ip)
        keeper.pod_changed(CPU, "other")
        keeper.pod_changed(CPU, "a")
    assert await admission == Admitted(CPU, "a", "10.0.0.1", Strength.ADDRESS)
    assert keeper._waiting == {}


async def test_an_unknown_pool_is_named(pools: Pools) -> None:
    why = await refusal(pools, pool="nope")
    assert (why.reason, why.message) == (Reason.UNKNOWN_POOL, 'there is no pool "nope"')


async def test_an_agent_must_say_who_it_is(pools: Pools) -> None:
    assert (await refusal(pools, agent_id="")).reason is Reason.BAD_REQUEST


async def test_the_pod_tells_which_of_two_pools_is_meant() -> None:
    pools = Pools(CPU, TEAM)
    pools.add_pod(TEAM, "a", ip="10.0.0.1")
    assert (await admit(pools)).pool == TEAM
    pools.add_pod(CPU, "a", ip="10.0.0.1")
    assert (await refusal(pools)).reason is Reason.AMBIGUOUS_POOL
    assert (await admit(pools, pool="default/cpu")).pool == CPU


async def test_without_authentication_every_agent_is_believed_if_its_pool_is_clear() -> None:
    pools = Pools(CPU)
    assert await admit(pools, authentication="none") == Admitted(CPU, "a", "10.0.0.1")
    assert (await admit(pools, authentication="none", ip_address="10.9.9.9")).address == "10.9.9.9"
    two = Pools(CPU, TEAM)
    assert (await refusal(two, authentication="none")).reason is Reason.AMBIGUOUS_POOL
    two.add_pod(TEAM, "a", ip="")
    assert (await admit(two, authentication="none")).pool == TEAM


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("ipv6:[fd00::2]:5000", "fd00::2"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5000", "10.0.0.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::1"),
        ("unix:/tmp/socket", None),
        ("ipv4:nonsense", None),
        ("", None),
    ],
)
def test_the_address_of_a_peer(peer: str, address: str | None) -> None:
    found = peer_address(peer)
    assert (str(found) if found else None) == address
