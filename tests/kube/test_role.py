"""The leader's label, on pods of a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from app.kube import paths
from app.kube import role as module
from app.kube.client import Client
from app.kube.role import LEADER, ROLE_LABEL, LeaderLabel
from app.model.meta import NamespacedName
from app.model.pod import Pod
from tests.kube.faults import FaultServer, answer, failure, silence
from tests.support.cluster import Cluster


class Release:
    """The replicas' pods in a namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    async def create(self, *names: str, role: str = "") -> None:
        for name in names:
            meta = {"name": name, "labels": {"app": "velda", **({ROLE_LABEL: role} if role else {})}}
            spec = {"containers": [{"name": "server", "image": "none"}], "schedulerName": "none"}
            await self.client.create(paths.pods(self.namespace), {"metadata": meta, "spec": spec})

    def label(self, pod: str | None) -> LeaderLabel:
        return LeaderLabel(self.client, namespace=self.namespace, pod=pod)

    async def role(self, pod: str) -> str:
        body = await self.client.get(paths.pod(NamespacedName(self.namespace, pod)))
        labels = msgspec.json.decode(body, type=Pod).metadata
        assert labels.label("app") == "velda"
        return labels.label(ROLE_LABEL)


@pytest.fixture
async def release(cluster: Cluster) -> AsyncIterator[Release]:
    async with cluster.client() as client:
        yield Release(client, cluster.namespace())


async def test_the_label_comes_and_goes_with_the_term(release: Release) -> None:
    await release.create("a", "b")
    label = release.label("a")
    await label.take()
    assert (await release.role("a"), await release.role("b")) == (LEADER, "")
    await label.drop()
    assert await release.role("a") == ""


async def test_a_label_left_behind_is_taken_away(release: Release) -> None:
    await release.create("dead", role=LEADER)
    await release.create("b")
    await release.label("b").take()
    assert (await release.role("dead"), await release.role("b")) == ("", LEADER)


async def test_a_pod_that_is_gone_is_no_obstacle(release: Release) -> None:
    label = release.label("never there")
    await label.take()
    await label.drop()


async def test_nothing_is_done_outside_a_cluster(faults: FaultServer, client: Client) -> None:
    label = LeaderLabel(client, namespace="ns", pod=None)
    await label.take()
    await label.drop()
    assert not faults.seen


async def test_it_is_tried_until_it_stands(
    faults: FaultServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    answers = [failure(503), answer({}), failure(500), answer({}), answer({"items": []})]

    async def handle(_: object) -> object:
        return answers.pop(0)

    faults.handler = handle  # type: ignore[assignment]
    await LeaderLabel(client, namespace="ns", pod="a").take()
    assert [seen.method for seen in faults.seen] == ["PATCH", "PATCH", "GET", "PATCH", "GET"]


async def test_what_is_forbidden_is_not_tried_for_ever(faults: FaultServer, client: Client) -> None:
    async def handle(_: object) -> object:
        return failure(403, "Forbidden", "pods is forbidden")

    faults.handler = handle  # type: ignore[assignment]
    await LeaderLabel(client, namespace="ns", pod="a").take()
    assert len(faults.seen) == 1


async def test_a_term_s_end_does_not_wait_for_a_server_that_is_silent(
    faults: FaultServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DROP_TIMEOUT", 0.05)
    faults.handler = silence
    await asyncio.wait_for(LeaderLabel(client, namespace="ns", pod="a").drop(), 20)
