"""The whole process with a GKE provisioner: Google on loopback names a real API server, and its tokens open it."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from tests.kube.google import Google
from tests.support import outside
from tests.support.cluster import Cluster
from tests.support.process import bound
from tests.support.running import CHECKOUT

GKE = {"project": "my-gcp-project", "location": "us-central1", "cluster_name": "velda-cluster"}
NAMESPACE = "velda"
RIGHTS = CHECKOUT / "crd" / "velda-rbac.yaml"


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """With the documentation's rights: the API server takes this account's tokens as Google's takes Google's."""
    cluster.install_crd()
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    cluster.kubectl("apply", f"--filename={RIGHTS}")
    yield NAMESPACE
    cluster.kubectl("delete", f"--filename={RIGHTS}", "--wait=false")


@pytest.fixture
async def google(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Google]:
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = kubeconfig.get("certificate-authority-data") or _encoded(kubeconfig["certificate-authority"])
    tokens = [cluster.kubectl("create", "token", "velda-apiserver", f"-n={namespace}").stdout.strip() for _ in range(2)]
    endpoint = kubeconfig["server"].removeprefix("https://")
    async with Google(tmp_path, tokens=tokens, endpoint=endpoint, authority=authority) as google:
        yield google


def _encoded(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()


async def _serve(google: Google, config: Path) -> asyncio.subprocess.Process:
    environment = {**os.environ, **google.environment, "KUBECONFIG": "/no/such/file", "HOME": "/no/such/home"}
    command = bound(sys.executable, "-m", "app", "serve", f"--config={config}")
    return await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, env=environment, stderr=asyncio.subprocess.PIPE)


async def test_it_leads_in_the_cluster_that_google_names_and_renews_its_token(
    google: Google, namespace: str, tmp_path: Path
) -> None:
    configuration = outside.configuration(namespace=namespace, gke=GKE)
    process = await _serve(google, outside.write(tmp_path / "velda-config.yaml", configuration))
    assert process.stderr is not None
    async with asyncio.timeout(60):
        said = b""
        while b'"leading"' not in said:
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line
        await google.renewed.wait()
        process.send_signal(signal.SIGTERM)
        said += await process.stderr.read()
    assert await process.wait() == 0, said.decode()
    assert b"forbidden" not in said
    assert all(token.encode() not in said for token in google.shown)


async def test_a_project_that_is_anothers_stops_the_start_in_words(google: Google, tmp_path: Path) -> None:
    configuration = outside.configuration(namespace="velda", gke={**GKE, "project": "other"})
    process = await _serve(google, outside.write(tmp_path / "velda-config.yaml", configuration))
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 2
    assert said.decode().startswith("provisioners[0].kubernetes.gke: https://127.0.0.1:")
    assert "HTTP 403: Permission denied on resource /v1/projects/other/" in said.decode()
    assert "(project other: these credentials need container.clusters.get" in said.decode()
