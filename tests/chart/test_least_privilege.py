"""The server may do what it does, and nothing else.

To take each right away and see something fail would need as many releases as there are rights. The same is shown by
one: while it goes through all that a release lives through, the API server's audit log notes every request of its
account. None of them is forbidden: no right lacks. And each right of the rendered roles has been needed by one of them
that no other right allows: without it, that request would have failed. Rights that no request shows have their reason.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.chart.support import NAMESPACE, Manifest, render
from tests.e2e.product import Product, Sessions, pool
from tests.support.cluster import Fleet
from tests.support.plane import AUDIT_LOG

pytestmark = pytest.mark.e2e

NAME = "velda-apiserver"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"
WITHIN = 60.0
"""Seconds in which the last requests are in the log."""


class Right(NamedTuple):
    """``namespace`` and ``name`` are empty where they do not matter; as a request's, they are its own."""

    verb: str
    group: str
    resource: str
    name: str
    namespace: str

    def allows(self, request: Right) -> bool:
        return request[:3] == self[:3] and self.name in ("", request.name) and self.namespace in ("", request.namespace)


UNSEEN = {
    ("get", "velda.io", "agentpools"): "for `velda-apiserver explain` in the server's pod",
    (
        "update",
        "velda.io",
        "agentpools/finalizers",
    ): "asked for by OwnerReferencesPermissionEnforcement, where it is on",
}


def rights(manifests: Sequence[Manifest], account: str) -> list[Right]:
    """All that the release's own roles grant to the account, one by one."""
    roles = {_place(item): item["rules"] for item in manifests if item["kind"] in ("Role", "ClusterRole")}
    bindings = [item for item in manifests if any(one["name"] == account for one in item.get("subjects", ()))]
    return [
        Right(verb, group, resource, name, binding["metadata"].get("namespace", ""))
        for binding in bindings
        for rule in roles.get(_place(binding), ())
        for group, resource, verb, name in itertools.product(
            rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [""])
        )
    ]


def _place(item: Manifest) -> tuple[str, str]:
    """What a role and its binding have in common, as the chart makes them."""
    named = item["roleRef"] if "roleRef" in item else item["metadata"]
    return named["name"], item["metadata"].get("namespace", "")


def requests(log: Path) -> Iterator[tuple[Right, int]]:
    """Of the account, with their status codes. An apply that makes its object needs the right to create as well."""
    for line in log.read_text().splitlines():
        event: dict[str, Any] = json.loads(line)
        target = event.get("objectRef")
        if event["user"]["username"] != ACCOUNT or not target:
            continue
        resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
        code = event["responseStatus"]["code"]
        request = Right(
            event["verb"], target.get("apiGroup", ""), resource, target.get("name", ""), target.get("namespace", "")
        )
        yield request, code
        if (request.verb, code) == ("patch", 201):
            yield request._replace(verb="create"), code


async def live(product: Product) -> None:
    """All that a release does in its life, once."""
    product.install("--set=certificates.overlapSeconds=1")
    namespace = product.namespace()
    manifest = pool("cpu")
    product.apply(manifest, namespace=namespace)
    product.wait("cpu", namespace=namespace, idleReplicas=1)
    async with Sessions(product.broker, token=product.user("least")) as sessions:
        session = await sessions.run(f"{namespace}/cpu")
        product.wait("cpu", namespace=namespace, runningReplicas=1)
        await sessions.end(session)
    manifest["spec"]["template"]["metadata"]["labels"]["version"] = "2"
    product.apply(manifest, namespace=namespace)
    product.wait("cpu", namespace=namespace, outdatedReplicas=0, updatedReplicas=1)
    product.kubectl("annotate", "secret", f"{NAME}-tls", "velda.io/rotate=ca", f"-n={NAMESPACE}")
    product.restart()
    product.kubectl("delete", "agentpool", "cpu", f"-n={namespace}", "--timeout=240s")


@pytest.fixture
def product(fleet: Fleet) -> Iterator[Product]:
    product = Product(fleet)
    yield product
    product.uninstall()


async def test_every_right_is_needed_and_none_lacks(product: Product) -> None:
    log = product.stage.directory / "logs" / AUDIT_LOG
    began = log.stat().st_size if log.exists() else 0
    await live(product)
    granted, deadline = rights(render(), NAME), time.monotonic() + WITHIN
    while True:
        made = list(requests(log))
        unused = [right for right in granted if not any(right.allows(request) for request, _ in made)]
        unused = [right for right in unused if right[:3] not in UNSEEN]
        if not unused or time.monotonic() > deadline:
            break
        await asyncio.sleep(1)  # nothing tells when a log that is written in batches is whole
    assert log.stat().st_size > began
    assert not unused, "\n".join(map(str, unused))
    assert [(request, code) for request, code in made if code in (401, 403)] == []
    beyond = {request for request, _ in made if not any(right.allows(request) for right in granted)}
    assert beyond <= {Right("get", "", "configmaps", "extension-apiserver-authentication", "kube-system")}
