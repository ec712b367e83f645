"""What is shown of many namespaces: how their rights are asked for, with an API server that answers as a test says."""

from __future__ import annotations

import asyncio

import pytest

from app.broker.access import Caller, Credentials, Right
from app.broker.bounds import Bounds
from app.broker.clients import ASKED_AT_ONCE, Clients
from app.broker.refusal import Reason, RefusedError
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from app.settings import Limits
from tests.broker.world import World, execution

ADA = Caller(username="ada")
MANY = 200


class Rights:
    """Who may list in some namespaces, and is told so when the test lets it."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.asked: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def identify(self, credentials: Credentials) -> Caller:
        return ADA

    async def allows(self, caller: Caller, right: Right) -> bool:
        assert right.verb == "list"
        self.asked.append(right.namespace)
        await self.answering.wait()
        return right.namespace in self.allowed


def clients(world: World, rights: Rights) -> Clients:
    return Clients(world.registry, world.pools, rights, Bounds(Limits()))


def spread() -> World:
    """A pool in each of many namespaces."""
    return World(*(NamespacedName(f"ns-{number}", "cpu") for number in range(MANY)))


async def listed(of: Clients) -> list[str]:
    answer = await of.list_sessions(ADA, velda_pb2.ListSessionsRequest(instance_id=1))
    return [session.session_id for session in answer.sessions]


async def pools(of: Clients, namespace: str = "") -> list[str]:
    answer = await of.list_pools(ADA, velda_pb2.ListPoolsRequest(namespace=namespace))
    return [pool.description for pool in answer.pools]


async def test_rights_are_asked_for_where_there_are_sessions_alone() -> None:
    world, rights = spread(), Rights("ns-3", "ns-4")
    for number in (3, 5):
        world.join(f"agent-{number}", execution(f"s-{number}"), pool=NamespacedName(f"ns-{number}", "cpu"))
    assert await listed(clients(world, rights)) == ["s-3"]
    assert rights.asked[0] == ""
    assert sorted(rights.asked[1:]) == ["ns-3", "ns-5"]


async def test_nothing_is_asked_where_there_is_nothing_to_show() -> None:
    world, rights = spread(), Rights()
    assert await listed(clients(world, rights)) == []
    assert rights.asked == []


async def test_many_namespaces_are_asked_about_at_one_time_but_not_all() -> None:
    rights = Rights("ns-7", "ns-150")
    rights.answering.clear()
    asking = asyncio.create_task(pools(clients(spread(), rights)))
    while not rights.asked:  # noqa: ASYNC110  turns of the loop, no time
        await asyncio.sleep(0)
    rights.answering.set()  # for all namespaces at once
    rights.answering = asyncio.Event()
    while len(rights.asked) < 1 + ASKED_AT_ONCE:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(rights.asked) == 1 + ASKED_AT_ONCE
    rights.answering.set()
    assert await asking == ["ns-150/cpu", "ns-7/cpu"]
    assert len(rights.asked) == 1 + MANY


async def test_who_may_list_everywhere_is_asked_about_once() -> None:
    rights = Rights("")
    assert len(await pools(clients(spread(), rights))) == MANY
    assert rights.asked == [""]


async def test_a_namespace_that_is_named_needs_no_pool() -> None:
    world, rights = spread(), Rights("ns-1", "empty")
    assert await pools(clients(world, rights), "ns-1") == ["ns-1/cpu"]
    assert await pools(clients(world, rights), "empty") == []
    for named, where in (("ns-2", 'in the namespace "ns-2"'), ("unheard-of", 'in the namespace "unheard-of"')):
        with pytest.raises(RefusedError) as raised:
            await pools(clients(world, rights), named)
        assert raised.value.reason is Reason.FORBIDDEN
        assert raised.value.message == f'user "ada" may not list agentpools.velda.io {where}'
    with pytest.raises(RefusedError, match="in all namespaces; name one whose pools you may list"):
        await pools(clients(World(NamespacedName("other", "cpu")), rights))
