"""Clients over gRPC, a real API server behind it: its tokens, its RBAC; what is refused changes nothing and is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
import pytest
from structlog.testing import capture_logs

from app.broker.rbac import AUDIENCE, Rbac
from app.kube.access import review_access
from app.kube.client import Client
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from app.settings import Clients
from tests.broker.wire import Plane, agent, serving
from tests.broker.world import Pools, execution
from tests.support.cluster import Cluster
from tests.support.limits import refusals

RESOURCES = {
    "get": "agentpools",
    "list": "agentpools",
    "watch": "agentpools",
    "create": "agentpools/session",
    "delete": "agentpools/session",
}
"""What there is to be allowed: a verb, and on what."""
Code = grpc.StatusCode
Metadata = tuple[tuple[str, str], ...]
Call = Callable[[Plane, str, Metadata], Awaitable[object]]


async def _watch(plane: Plane, pool: str, metadata: Metadata) -> object:
    stream = plane.pools.WatchPoolStatus(velda_pb2.WatchPoolStatusRequest(pool=pool), metadata=metadata)
    first = await stream.read()
    stream.cancel()
    return first


def _session(plane: Plane, pool: str, metadata: Metadata) -> Awaitable[object]:
    mine = "elsewhere" not in pool and "/" in pool
    request = velda_pb2.SessionRequest(instance_id=1, session_id="s" if mine else "new", pool=pool)
    return plane.broker.RequestSession(request, metadata=metadata, timeout=20)


CALLS: Mapping[str, tuple[str, Call]] = {
    "ListPools": ("list", lambda p, _, m: p.pools.ListPools(velda_pb2.ListPoolsRequest(), metadata=m)),
    "GetPool": ("get", lambda p, pool, m: p.pools.GetPool(velda_pb2.GetPoolRequest(pool=pool), metadata=m)),
    "WatchPoolStatus": ("watch", _watch),
    "RequestSession": ("create", _session),
    "SetTag": (
        "create",
        lambda p, _, m: p.broker.SetTag(
            velda_pb2.SetTagRequest(instance_id=1, session_id="s", tags={"a": "b"}), metadata=m
        ),
    ),
    "KillSession": (
        "delete",
        lambda p, _, m: p.broker.KillSession(velda_pb2.KillSessionRequest(instance_id=1, session_id="s"), metadata=m),
    ),
}


class Users:
    """Service accounts of a namespace with a pool ``cpu``: ``only-VERB``, ``but-VERB`` and ``nobody``."""

    def __init__(self, cluster: Cluster) -> None:
        self.namespace = cluster.namespace()
        self.pool = NamespacedName(self.namespace, "cpu")
        rights = {f"only-{verb}": {verb} for verb in RESOURCES}
        rights |= {f"but-{verb}": set(RESOURCES) - {verb} for verb in RESOURCES}
        items = [item for name, verbs in rights.items() for item in self._granted(name, verbs)]
        items.append(self._object("v1", "ServiceAccount", "nobody"))
        document = {"apiVersion": "v1", "kind": "List", "items": items}
        cluster.kubectl("apply", "--filename=-", input=json.dumps(document))

    async def known(self, client: Client) -> None:
        """Wait until the API server goes by the last of the bindings."""
        user = {"username": f"system:serviceaccount:{self.namespace}:but-delete"}
        what = {"group": "velda.io", "resource": "agentpools", "namespace": self.namespace}
        while not (await review_access(client, user=user, verb="get", **what))[0]:  # noqa: ASYNC110  it has no event
            await asyncio.sleep(0.02)

    async def token(self, client: Client, name: str, **spec: Any) -> str:
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token: str = msgspec.json.decode(await client.create(path, body))["status"]["token"]
        return token

    def _granted(self, name: str, verbs: set[str]) -> list[dict[str, Any]]:
        api = "rbac.authorization.k8s.io"
        rules = [{"apiGroups": ["velda.io"], "resources": [RESOURCES[verb]], "verbs": [verb]} for verb in verbs]
        role = {"apiGroup": api, "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        return [
            self._object("v1", "ServiceAccount", name),
            self._object(f"{api}/v1", "Role", name, rules=rules),
            self._object(f"{api}/v1", "RoleBinding", name, roleRef=role, subjects=[subject]),
        ]

    def _object(self, version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


@pytest.fixture(scope="module")
def users(cluster: Cluster) -> Users:
    return Users(cluster)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with cluster.client() as client:
        yield client


@asynccontextmanager
async def broker(client: Client, users: Users) -> AsyncIterator[Plane]:
    """With pools in two namespaces, and a session ``s`` that runs in the users' one."""
    pools = Pools(users.pool, NamespacedName("elsewhere", "gpu"))
    async with (
        serving(pools, access=Rbac(client, Clients())) as plane,
        agent(plane, pool=str(users.pool), running=(execution("s", pool=str(users.pool)),)),
    ):
        await plane.seen(users.pool, sessions=1)
        await users.known(client)
        yield plane


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


def state(plane: Plane, users: Users) -> object:
    sessions = plane.registry.list(instance_id=1, service_name="", shown=lambda _: True)
    return plane.registry.pool_agents(users.pool), [session.SerializeToString() for session in sessions]


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_needs_its_verb_and_no_other(client: Client, users: Users, name: str) -> None:
    verb, call = CALLS[name]
    async with broker(client, users) as plane:
        before, count = state(plane, users), refusals("forbidden")
        with capture_logs() as lines:
            code, said = await refused(call(plane, str(users.pool), bearer(await users.token(client, f"but-{verb}"))))
        assert code is Code.PERMISSION_DENIED
        assert f'user "system:serviceaccount:{users.namespace}:but-{verb}" may not {verb} {RESOURCES[verb]}' in said
        assert state(plane, users) == before
        assert refusals("forbidden") == count + 1
        (line,) = (line for line in lines if line["event"] == "refused")
        assert (line["call"], line["reason"], line["error"]) == (name, "forbidden", said)
        assert line["peer"].startswith("ipv4:127.0.0.1:")
        assert await call(plane, str(users.pool), bearer(await users.token(client, f"only-{verb}"))) is not None


async def test_sessions_are_listed_where_pools_may_be(client: Client, users: Users) -> None:
    async with broker(client, users) as plane:

        async def listed(name: str) -> list[str]:
            request = velda_pb2.ListSessionsRequest(instance_id=1)
            answer = await plane.broker.ListSessions(request, metadata=bearer(await users.token(client, name)))
            return [session.session_id for session in answer.sessions]

        assert await listed("only-list") == ["s"]
        assert await listed("but-list") == []


async def test_who_may_list_in_one_namespace_sees_its_pools_alone(client: Client, users: Users) -> None:
    async with broker(client, users) as plane:
        metadata = bearer(await users.token(client, "only-list"))
        answer = await plane.pools.ListPools(velda_pb2.ListPoolsRequest(), metadata=metadata)
        assert [pool.name for pool in answer.pools] == ["cpu"]


@pytest.mark.parametrize("name", ["GetPool", "WatchPoolStatus", "RequestSession"])
async def test_a_pool_that_one_has_no_right_to_is_as_one_that_is_not(client: Client, users: Users, name: str) -> None:
    _, call = CALLS[name]
    async with broker(client, users) as plane:
        for user in ("nobody", "but-get", "but-watch", "but-create"):
            metadata = bearer(await users.token(client, user))
            for there, missing in (("elsewhere/gpu", "elsewhere/nope"), ("gpu", "nope")):
                code, said = await refused(call(plane, there, metadata))
                assert code is Code.PERMISSION_DENIED
                assert (code, said.replace("gpu", "nope")) == await refused(call(plane, missing, metadata))


async def test_a_session_that_one_may_not_see_is_as_one_that_is_not(client: Client, users: Users) -> None:
    async with broker(client, users) as plane:
        metadata = bearer(await users.token(client, "nobody"))
        for name in ("KillSession", "SetTag"):
            code, said = await refused(CALLS[name][1](plane, "", metadata))
            assert (code, said) == (Code.NOT_FOUND, 'instance 1 has no session "s"')


async def test_tokens_that_prove_nothing(client: Client, users: Users) -> None:
    good = await users.token(client, "only-list")
    header, payload, signature = good.split(".")
    foreign = await users.token(client, "only-list", audiences=["somebody-else"])
    async with broker(client, users) as plane:
        ours = await users.token(client, "only-list", audiences=[AUDIENCE])
        await CALLS["ListPools"][1](plane, "", bearer(ours))
        before, count = state(plane, users), refusals("unauthenticated")
        with capture_logs() as lines:
            for metadata in (
                (),
                (("authorization", "Basic YTpi"),),
                bearer("garbage"),
                bearer(f"{header}.{payload}.{signature[:-4]}AAAA"),
                bearer(foreign),
            ):
                code, said = await refused(CALLS["ListPools"][1](plane, "", metadata))
                assert code is Code.UNAUTHENTICATED
                assert "kubectl create token" in said
        assert state(plane, users) == before
        assert refusals("unauthenticated") == count + 5
        told = [line for line in lines if line["event"] == "refused"]
        assert [line["reason"] for line in told] == ["unauthenticated"] * 5
        for secret in (payload, foreign, "YTpi"):
            assert secret not in repr(lines)


async def test_a_token_ends_with_its_account(client: Client, users: Users) -> None:
    """As one that has expired; the API server makes none for less than ten minutes."""
    path = f"/api/v1/namespaces/{users.namespace}/serviceaccounts"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "gone"}}
    await client.create(path, account)
    token = await users.token(client, "gone")
    now = 0.0
    rbac = Rbac(client, Clients(), clock=lambda: now)
    async with serving(Pools(users.pool), access=rbac) as plane:
        code, _ = await refused(CALLS["ListPools"][1](plane, "", bearer(token)))
        assert code is Code.PERMISSION_DENIED
        await client.delete(f"{path}/gone")
        now = 10.0
        async with asyncio.timeout(30):
            while (await refused(CALLS["ListPools"][1](plane, "", bearer(token))))[0] is not Code.UNAUTHENTICATED:
                now += 10.0
