"""What is written into webhook configurations, on a real API server."""

from __future__ import annotations

import msgspec
import pytest

from app.kube.errors import ApiError
from certs import publish
from tests.certs.world import Bench


async def test_every_webhook_carries_the_bundle_and_nothing_else_changes(bench: Bench) -> None:
    path = bench.configurations[0]
    before = await publish.read(bench.client, path)
    assert {(hook.host, hook.bundle) for hook in before.hooks} == {(bench.name, b"")}
    assert await publish.publish(bench.client, before, bundle=b"-----BEGIN CERTIFICATE-----")
    after = await publish.read(bench.client, path)
    assert {hook.bundle for hook in after.hooks} == {b"-----BEGIN CERTIFICATE-----"}
    for webhook in after.manifest["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    assert after.manifest["webhooks"] == before.manifest["webhooks"]


async def test_a_late_writer_takes_nothing_back(bench: Bench) -> None:
    seen = await publish.read(bench.client, bench.configurations[0])
    await (await bench.replica()).manager.ensure()
    published = await bench.published()
    assert not await publish.publish(bench.client, seen, bundle=b"stale")
    assert await bench.published() == published


async def test_one_that_is_gone_is_not_made_anew(bench: Bench) -> None:
    seen = await publish.read(bench.client, bench.configurations[0])
    await bench.delete_configurations()
    assert not await publish.publish(bench.client, seen, bundle=b"any")
    with pytest.raises(ApiError) as gone:
        await publish.read(bench.client, bench.configurations[0])
    assert gone.value.not_found


@pytest.mark.parametrize(
    ("client_config", "host"),
    [
        ({"service": {"name": "hook", "namespace": "velda"}}, "hook.velda.svc"),
        ({"url": "https://10.0.0.1:8443/validate"}, "10.0.0.1"),
        ({"url": "https://velda.example.com/validate", "caBundle": "!"}, "velda.example.com"),
        ({}, ""),
    ],
)
def test_the_host_is_the_one_that_the_api_server_calls(client_config: dict[str, object], host: str) -> None:
    manifest = msgspec.json.decode(msgspec.json.encode({"webhooks": [{"clientConfig": client_config}]}))
    assert publish.Configuration("/any/path", manifest).hooks == [publish.Hook(host, b"")]
