"""Which cluster a configuration leads to, and with which credentials."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.kube import endpoint as module
from app.kube.config import connect
from app.kube.endpoint import ServiceAccount
from app.settings import Kubernetes, SettingsError
from certs.authority import issue_authority
from tests.kube.faults import FaultServer, answer, failure

SETTINGS = Kubernetes(namespace="velda")


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


def write_kubeconfig(path: Path, *, user: Any, **cluster: Any) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    (path / "kubeconfig").write_text(yaml.safe_dump(document))


async def authorization(faults: FaultServer) -> str:
    async with await connect(SETTINGS) as client:
        await client.get("/version")
    return faults.seen[-1].headers.get("Authorization", "")


@pytest.fixture
async def server(faults: FaultServer) -> FaultServer:
    async def handler(_: Any) -> Any:
        return answer({})

    faults.handler = handler
    return faults


async def test_a_token(server: FaultServer, tmp_path: Path) -> None:
    write_kubeconfig(tmp_path, user={"token": "s3cret"}, server=server.url)
    assert await authorization(server) == "Bearer s3cret"


async def test_a_name_and_a_password(server: FaultServer, tmp_path: Path) -> None:
    write_kubeconfig(tmp_path, user={"username": "me", "password": "pw"}, server=server.url + "/")
    assert await authorization(server) == "Basic bWU6cHc="


async def test_an_exec_plugin_is_run_again_when_its_token_is_refused(faults: FaultServer, tmp_path: Path) -> None:
    async def handler(request: Any) -> Any:
        return answer({}) if request.headers["Authorization"] == "Bearer token-2" else failure(401)

    faults.handler = handler
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        f"echo run >> {tmp_path}/runs\n"
        'echo "{\\"apiVersion\\":\\"client.authentication.k8s.io/v1\\",\\"kind\\":\\"ExecCredential\\",'
        f'\\"status\\":{{\\"token\\":\\"token-$(grep -c run {tmp_path}/runs)\\"}}}}"\n'
    )
    plugin.chmod(stat.S_IRWXU)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}
    write_kubeconfig(tmp_path, user={"exec": command}, server=faults.url)
    assert await authorization(faults) == "Bearer token-2"


@pytest.mark.parametrize(
    ("user", "cluster", "said"),
    [
        ({"token": "t"}, {"server": "https://127.0.0.1:1", "certificate-authority": "missing.crt"}, "missing.crt"),
        (
            {"token": "t"},
            {"server": "https://127.0.0.1:1", "certificate-authority-data": "bm90IGEgY2VydA=="},
            "no certificate",
        ),
        ({}, {"server": "https://127.0.0.1:1"}, "neither a token nor a client certificate"),
        ({"exec": {"apiVersion": "v1", "command": "/no/such/plugin"}}, {"server": "https://127.0.0.1:1"}, "neither"),
    ],
)
async def test_a_context_that_cannot_be_used_names_the_file(
    tmp_path: Path, user: Any, cluster: dict[str, str], said: str
) -> None:
    write_kubeconfig(tmp_path, user=user, **cluster)
    with pytest.raises(SettingsError, match=r"the current context of .*/kubeconfig cannot be used") as raised:
        await connect(SETTINGS)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", [None, "", "[", "current-context: here\n"])
async def test_a_kubeconfig_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(SettingsError, match="kubeconfig"):
        await connect(SETTINGS)


async def test_what_a_context_says_of_the_way(tmp_path: Path) -> None:
    write_kubeconfig(
        tmp_path,
        user={"token": "t"},
        server="https://127.0.0.1:6443",
        **{"tls-server-name": "kubernetes", "proxy-url": "http://127.0.0.1:3128", "insecure-skip-tls-verify": True},
    )
    found = await module.from_kubectl_context()
    assert (found.server_name, found.proxy) == ("kubernetes", "http://127.0.0.1:3128")
    assert not found.tls.check_hostname


def mount(directory: Path, *, token: str, authority: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "token").write_text(token + "\n")
    (directory / "ca.crt").write_text(authority)


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    return issue_authority(now=datetime.now(UTC)).certificate.decode()


async def test_in_a_cluster_the_service_account_is_used(
    tmp_path: Path, authority: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", tmp_path / "sa")
    assert not module.in_cluster()
    mount(tmp_path / "sa", token="one", authority=authority)
    assert module.in_cluster()


async def test_a_renewed_token_is_read_and_the_connections_stay(tmp_path: Path, authority: str) -> None:
    source = ServiceAccount(tmp_path / "sa")
    mount(tmp_path / "sa", token="one", authority=authority)
    first = await source()
    mount(tmp_path / "sa", token="two", authority=authority)
    second = await source()
    assert (first.server, first.authorization) == ("https://127.0.0.1:6443", "Bearer one")
    assert second.authorization == "Bearer two"
    assert second.tls is first.tls
    assert second.expires is not None


async def test_a_new_authority_is_trusted(tmp_path: Path, authority: str) -> None:
    source = ServiceAccount(tmp_path / "sa")
    mount(tmp_path / "sa", token="one", authority=authority)
    first = await source()
    mount(tmp_path / "sa", token="one", authority=authority + authority)
    assert (await source()).tls is not first.tls


async def test_a_service_account_that_cannot_be_read(tmp_path: Path, authority: str) -> None:
    source = ServiceAccount(tmp_path / "sa")
    with pytest.raises(SettingsError, match="service account"):
        await source()
    for unusable in ("not a certificate", "", "\n"):
        mount(tmp_path / "sa", token="one", authority=unusable)
        with pytest.raises(SettingsError, match="service account"):
            await source()


async def test_an_address_of_ipv6(tmp_path: Path, authority: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    mount(tmp_path / "sa", token="one", authority=authority)
    assert (await ServiceAccount(tmp_path / "sa")()).server == "https://[fd00::1]:6443"
