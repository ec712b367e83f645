"""The metrics as Prometheus gets them: by the chart's ServiceMonitor, of a server that scales a pool."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.chart.support import pick, render
from tests.e2e.product import NAMESPACE, Product, Sessions, pool
from tests.support.tools import tool

pytestmark = pytest.mark.e2e

NAME = "velda-apiserver"


@pytest.fixture
async def scrape(velda: Product) -> AsyncIterator[httpx.AsyncClient]:
    """What Prometheus makes of the ServiceMonitor's endpoint; the account is the one that the chart makes for it."""
    manifests = render("serviceMonitor.enabled=true")
    (endpoint,) = pick(manifests, "ServiceMonitor", NAME)["spec"]["endpoints"]
    made = [item for item in manifests if item["metadata"]["name"] == f"{NAME}-metrics"]
    velda.kubectl("apply", "--filename=-", input=yaml.safe_dump_all(made))
    credentials = endpoint["authorization"]["credentials"]
    where, key = ("secret", credentials["name"], f"--namespace={NAMESPACE}"), credentials["key"]
    velda.kubectl("wait", "/".join(where[:2]), where[2], f"--for=jsonpath={{.data.{key}}}", "--timeout=240s")
    token = base64.b64decode(velda.stage.get(*where)["data"][key]).decode()
    ca = endpoint["tlsConfig"]["ca"]["configMap"]
    bundle = velda.stage.get("configmap", ca["name"], f"--namespace={NAMESPACE}")["data"][ca["key"]]
    socket = velda.stage.address(f"{NAME}-webhook", 443, namespace=NAMESPACE).removeprefix("unix:")
    transport = httpx.AsyncHTTPTransport(uds=socket, verify=ssl.create_default_context(cadata=bundle))
    url, headers = f"https://{endpoint['tlsConfig']['serverName']}", {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as client:
        yield client
    velda.kubectl("delete", "--ignore-not-found", "--filename=-", input=yaml.safe_dump_all(made))


async def leaders(scrape: httpx.AsyncClient) -> str:
    """The leader's metrics: each connection gets one of the replicas."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = await scrape.get("/metrics", headers={"Connection": "close"})
        answer.raise_for_status()
        if "\nvelda_leader 1.0\n" in answer.text:
            return answer.text
    raise AssertionError("no replica leads")


def values(text: str, **labels: str) -> Mapping[str, float]:
    """Of the series with exactly these labels, by name."""
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples if sample.labels == labels}


def faults(text: str) -> str:
    """What promtool has against the metrics."""
    command = [str(tool("promtool")), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == bool(done.stdout + done.stderr)
    return f"{done.stdout}{done.stderr}"


async def test_what_is_scraped_is_what_was_done_and_promtool_finds_no_fault_with_it(
    velda: Product, sessions: Sessions, scrape: httpx.AsyncClient
) -> None:
    namespace = velda.namespace()
    before = values(await leaders(scrape))
    velda.apply(pool("counted"), namespace=namespace)
    velda.wait("counted", namespace=namespace, idleReplicas=1)
    session = await sessions.run(f"{namespace}/counted")
    velda.wait("counted", namespace=namespace, runningReplicas=1, idleReplicas=1)
    text = await leaders(scrape)
    told = {
        "velda_pool_size": 2,
        "velda_pool_running_workers": 1,
        "velda_pool_idle_workers": 1,
        "velda_pool_idle_capacity": 1,
        "velda_pool_pending_sessions": 0,
        "velda_pool_max_replicas": 5,
        "velda_pool_min_idle": 1,
        "velda_pool_ready": 1,
        "velda_pool_stalled": 0,
        "velda_pool_scale_up_total": 2,
        "velda_pool_scale_down_total": 0,
        "velda_pool_sessions_requested_total": 1,
        "velda_pool_sessions_started_total": 1,
    }
    assert told.items() <= values(text, pool_namespace=namespace, pool="counted").items()
    after = values(text)
    assert after["velda_time_to_idle_seconds_count"] >= before["velda_time_to_idle_seconds_count"] + 2
    assert after["velda_time_to_session_seconds_count"] == before["velda_time_to_session_seconds_count"] + 1
    assert after["velda_reconcile_queue_seconds_count"] > before["velda_reconcile_queue_seconds_count"]
    assert after["velda_ready"] == 1
    assert values(text, method="POST")["velda_api_request_seconds_count"] > 0
    assert values(text, kind="leaf")["velda_certificate_expiry_timestamp_seconds"] > time.time()
    assert faults(text) == ""
    await sessions.end(session)
    velda.kubectl("delete", "agentpool", "counted", f"--namespace={namespace}", "--timeout=240s")
    async with asyncio.timeout(30):
        text = await leaders(scrape)
        while namespace in text:
            await asyncio.sleep(0.1)  # the pool goes before the leader has heard of it, and a scrape has no event
            text = await leaders(scrape)
