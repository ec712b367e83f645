"""What bad input gets: a clear answer, nothing lost, and nobody else disturbed."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest

from app.proto import velda_pb2, velda_pb2_grpc
from tests.e2e.product import NAMESPACE, Product, pool

pytestmark = pytest.mark.e2e


def test_a_bad_pool_that_got_past_the_webhook_says_so_itself_and_stops_no_other(velda: Product) -> None:
    # The webhook leaves kube-system alone.
    manifest = pool("past-the-webhook")
    manifest["spec"]["template"]["spec"]["containers"][0]["args"] = ["--pool=other"]
    velda.apply(manifest, namespace="kube-system")
    velda.condition("past-the-webhook", "Stalled", "True", namespace="kube-system")
    status = velda.status("past-the-webhook", namespace="kube-system")
    told = {condition["type"]: condition for condition in status["conditions"]}
    assert "spec.template.spec.containers[0].args[0]" in told["Stalled"]["message"]
    assert told["Ready"]["status"] == "False"
    assert velda.pods("past-the-webhook", namespace="kube-system") == []
    assert "InvalidSpec" in velda.events("past-the-webhook", namespace="kube-system")
    namespace = velda.namespace()
    velda.apply(pool("good"), namespace=namespace)
    velda.wait("good", namespace=namespace, idleReplicas=1)
    velda.kubectl("delete", "agentpool", "past-the-webhook", "-n=kube-system", "--timeout=240s")


@pytest.fixture
async def webhook(velda: Product) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the webhook Service that verifies the certificate as the API server does."""
    data = velda.stage.get("secret", "velda-apiserver-tls", f"--namespace={NAMESPACE}")["data"]
    context = ssl.create_default_context(cadata=base64.b64decode(data["ca.crt"]).decode())
    socket = velda.stage.address("velda-apiserver-webhook", 443, namespace=NAMESPACE).removeprefix("unix:")
    host = f"https://velda-apiserver-webhook.{NAMESPACE}.svc"
    transport = httpx.AsyncHTTPTransport(uds=socket, verify=context)
    async with httpx.AsyncClient(transport=transport, base_url=host) as client:
        yield client


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b'{"kind":"AdmissionReview"}', b'{"request":{"uid":7}}', b"\xff"]
)
async def test_a_malformed_review_gets_400(webhook: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/validate", "/mutate"):
        answer = await webhook.post(path, content=body)
        assert answer.status_code == 400
        assert answer.text.strip()


async def test_a_review_over_3_mib_gets_413(webhook: httpx.AsyncClient) -> None:
    answer = await webhook.post("/validate", content=b" " * (3 * 2**20 + 1))
    assert answer.status_code == 413


async def test_health_is_open_and_metrics_are_not(velda: Product, webhook: httpx.AsyncClient) -> None:
    assert (await webhook.get("/healthz")).text == "ok\n"
    assert (await webhook.get("/readyz")).text == "ok\n"
    assert (await webhook.get("/metrics")).status_code == 401
    namespace = velda.namespace()
    velda.kubectl("create", "serviceaccount", "prometheus", f"--namespace={namespace}")
    token = velda.kubectl("create", "token", "prometheus", f"--namespace={namespace}").stdout.strip()
    assert (await webhook.get("/metrics", headers={"Authorization": f"Bearer {token}"})).status_code == 403
    velda.kubectl("create", "clusterrole", f"metrics-{namespace}", "--verb=get", "--non-resource-url=/metrics")
    account = f"--serviceaccount={namespace}:prometheus"
    velda.kubectl("create", "clusterrolebinding", f"metrics-{namespace}", f"--clusterrole=metrics-{namespace}", account)
    for _ in range(50):  # the no from before is believed for seconds
        answer = await webhook.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code != 403:
            break
        await asyncio.sleep(0.2)
    assert answer.status_code == 200
    assert "velda_leader" in answer.text


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("the pod's own", grpc.StatusCode.PERMISSION_DENIED, "the connection comes from"),
        ("nobody", grpc.StatusCode.PERMISSION_DENIED, 'has no pod "nobody"'),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "agent_id"),
    ],
)
async def test_an_agent_that_lies_about_its_pod_is_refused(
    velda: Product, name: str, code: grpc.StatusCode, said: str
) -> None:
    namespace = velda.namespace()
    velda.apply(pool("p"), namespace=namespace)
    velda.wait("p", namespace=namespace, idleReplicas=1)
    (pod,) = velda.pods("p", namespace=namespace)
    agent_id = pod["metadata"]["name"] if name == "the pod's own" else name
    error = await _join(velda.broker, agent_id=agent_id, pool=f"{namespace}/p")
    assert error.code() is code
    assert said in (error.details() or "")
    assert velda.status("p", namespace=namespace)["idleReplicas"] == 1


async def test_an_agent_of_an_unknown_pool_is_refused(velda: Product) -> None:
    error = await _join(velda.broker, agent_id="a", pool="no-such-pool")
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "no-such-pool" in (error.details() or "")


async def _join(target: str, *, agent_id: str, pool: str) -> grpc.aio.AioRpcError:
    """The error that a stream with this identity ends with."""
    async with grpc.aio.insecure_channel(target) as channel:
        identity = velda_pb2.AgentIdentity(agent_id=agent_id, pool=pool)
        stream = velda_pb2_grpc.BrokerServiceStub(channel).AgentUpdate(timeout=20)
        await stream.write(velda_pb2.AgentUpdateRequest(agent_identity=identity))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stream.read()
        return error.value
