"""Certificates by cert-manager: what the chart renders for it, held against cert-manager's own CRDs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import parse
from tests.chart.support import NAMESPACE, Manifest, pick, render
from tests.support.cluster import Cluster
from tests.support.tools.source import source

NAME = "velda-apiserver"
ENABLED = "certificates.certManager.enabled=true"
ISSUER = "certificates.certManager.issuerRef"
OTHERS = (ENABLED, f"{ISSUER}.name=corporate", f"{ISSUER}.kind=ClusterIssuer")
KINDS = ("certificates", "issuers")


@pytest.fixture(scope="module")
def home(cluster: Cluster) -> Iterator[Cluster]:
    """With cert-manager's CRDs and the release's namespace."""
    crds = source("certmanager", "github.com/cert-manager/cert-manager") / "deploy" / "crds"
    with cluster.with_crds({f"{kind}.cert-manager.io": crds / f"cert-manager.io_{kind}.yaml" for kind in KINDS}):
        cluster.kubectl("create", "namespace", NAMESPACE, check=False)
        yield cluster


def certificate(manifests: list[Manifest]) -> Manifest:
    return pick(manifests, "Certificate", NAME)


@pytest.mark.parametrize("values", [(ENABLED,), OTHERS], ids=["a CA of its own", "an issuer of others"])
def test_cert_manager_takes_every_manifest(home: Cluster, values: tuple[str, ...]) -> None:
    manifests = [item for item in render(*values) if item["apiVersion"] == "cert-manager.io/v1"]
    assert certificate(manifests)
    home.dry_run(*manifests)


def test_a_mistake_would_be_found(home: Cluster) -> None:
    wrong = certificate(render(ENABLED))
    wrong["spec"]["dnsName"] = wrong["spec"].pop("dnsNames")
    done = home.dry_run(wrong, check=False)
    assert done.returncode
    assert "dnsName" in done.stderr


def test_the_certificate_is_what_the_server_reads_and_webhooks_are_told() -> None:
    manifests = render(ENABLED)
    settings = parse(pick(manifests, "ConfigMap", f"{NAME}-config")["data"]["velda-config.yaml"], "velda-config.yaml")
    spec = certificate(manifests)["spec"]
    assert settings.webhook.certificates == "cert-manager"
    assert spec["secretName"] == settings.webhook.certificate_secret
    assert f"{settings.webhook.service}.{NAMESPACE}.svc" in spec["dnsNames"]
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        annotations = pick(manifests, kind, NAME)["metadata"]["annotations"]
        assert annotations == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/{NAME}"}
        assert "annotations" not in pick(render(), kind, NAME)["metadata"]


def test_an_own_authority_signs_unless_another_issuer_is_named() -> None:
    own = render(ENABLED)
    assert certificate(own)["spec"]["issuerRef"]["name"] == pick(own, "Issuer", NAME)["metadata"]["name"]
    assert (
        pick(own, "Certificate", f"{NAME}-ca")["spec"]["secretName"]
        == pick(own, "Issuer", NAME)["spec"]["ca"]["secretName"]
    )
    others = render(*OTHERS)
    assert not [item for item in others if item["kind"] == "Issuer"]
    assert certificate(others)["spec"]["issuerRef"] == {
        "name": "corporate",
        "kind": "ClusterIssuer",
        "group": "cert-manager.io",
    }


def test_the_server_may_not_write_the_secret() -> None:
    manifests = render(ENABLED)
    assert not [item for item in manifests if item["kind"] == "Secret"]
    rules = [rule for item in manifests if item["kind"] in ("Role", "ClusterRole") for rule in item["rules"]]
    assert {verb for rule in rules if "secrets" in rule["resources"] for verb in rule["verbs"]} == {
        "get",
        "list",
        "watch",
    }


def test_without_it_nothing_is_cert_managers() -> None:
    assert not [item for item in render() if item["apiVersion"].startswith("cert-manager.io/")]
