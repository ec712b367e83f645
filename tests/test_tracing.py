"""The spans of a real server: what belongs together is one trace, and nothing secret is told."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.proto import velda_pb2, velda_pb2_grpc
from tests.client.serving import SESSION_USER, Place
from tests.obs.collector import Collector, attributes, collecting
from tests.support.cluster import Cluster

NEW_YEAR = "2026-01-01T00:00:00Z"


@pytest.fixture
async def place(cluster: Cluster, tmp_path: Path) -> AsyncIterator[tuple[Place, Collector]]:
    """With settings that name a collector."""
    cluster.install_crd()
    async with collecting() as collector:
        place = Place(cluster, tmp_path)
        settings = yaml.safe_load(place.config.read_text()) | {"tracing": {"endpoint": collector.address}}
        place.config.write_text(yaml.safe_dump(settings))
        yield place, collector


async def review(place: Place) -> None:
    """Have an AgentPool admitted that is being deleted, so that nobody is asked about it."""
    manifest = {
        "metadata": {"name": "going", "namespace": place.namespace, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    }
    resource = {"group": "velda.io", "version": "v1", "resource": "agentpools"}
    request = {"uid": "u", "operation": "UPDATE", "resource": resource, "object": manifest, "oldObject": manifest}
    request |= {"name": "going", "namespace": place.namespace, "userInfo": {}}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    trust = ssl.create_default_context(cafile=str(place.directory / "ca.crt"))
    trust.check_hostname = False
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        (await client.post(f"{place.url}/validate", content=json.dumps(body))).raise_for_status()


async def run_session(place: Place, pool: str, token: str) -> None:
    """One that an agent takes."""
    async with place.agent(pool, "nobody's"), grpc.aio.insecure_channel(place.broker) as channel:
        broker = velda_pb2_grpc.BrokerServiceStub(channel)
        request = velda_pb2.SessionRequest(pool=pool, instance_id=1, session_id="traced")
        await broker.RequestSession(request, timeout=30, metadata=(("authorization", f"Bearer {token}"),))


async def test_what_the_server_does_is_told_to_the_collector(place: tuple[Place, Collector]) -> None:
    at, collector = place
    pool, token = at.pool(), at.user("traced", SESSION_USER).read_text().strip()
    async with at.server():
        await review(at)
        await run_session(at, pool, token)
        patch = json.dumps({"spec": {"autoscaler": {"minIdle": 1}}})
        at.cluster.kubectl("patch", "agentpool", "cpu", f"-n={at.namespace}", "--type=merge", f"--patch={patch}")
        at.cluster.kubectl("wait", "pods", "--for=create", "--selector=velda.io/pool=cpu", f"-n={at.namespace}")
    assert collector.services == {"velda-apiserver"}

    def one(name: str, **wanted: str) -> Span:
        found = [span for span in collector.spans if span.name == name and wanted.items() <= attributes(span).items()]
        assert found, f"{name} {wanted} is none of {sorted(collector.names)}"
        return found[0]

    created = one("POST", **{"url.path": f"/api/v1/namespaces/{at.namespace}/pods"})
    assert attributes(created)["http.response.status_code"] == 201
    cause = collector.parent(created)
    assert cause
    assert (cause.name, attributes(cause)["velda.pool"]) == ("reconcile", pool)
    assert attributes(cause)["velda.create"] == 1
    assert not cause.parent_span_id
    session = one("session", **{"velda.session": "traced", "velda.pool": pool})
    parts = [span.name for span in collector.spans if span.parent_span_id == session.span_id]
    assert sorted(parts) == ["queue", "start"]
    admission = one("admission validate", **{"velda.object": f"{at.namespace}/going"})
    assert (admission.kind, attributes(admission)["velda.code"]) == (Span.SPAN_KIND_SERVER, 200)
    assert token not in str(collector.spans)
