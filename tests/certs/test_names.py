"""Which names the certificate carries."""

from __future__ import annotations

from pathlib import Path

import pytest

from certs.names import cluster_domain, serving_names


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("nameserver 10.0.0.1\nsearch velda.svc.corp.example svc.corp.example corp.example\n", "corp.example"),
        ("search lan example.org\n", "cluster.local"),
        ("", "cluster.local"),
    ],
)
def test_the_clusters_domain_is_what_kubelet_says(tmp_path: Path, text: str, domain: str) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(text)
    assert cluster_domain(resolver) == domain


def test_without_a_resolver_it_is_the_default(tmp_path: Path) -> None:
    assert cluster_domain(tmp_path / "none") == "cluster.local"


def test_this_machines_names_are_served_only_outside_of_a_cluster() -> None:
    inside = serving_names("hook", namespace="velda", in_cluster=True)
    assert inside[0] == "hook.velda.svc"
    assert inside[1].startswith("hook.velda.svc.")
    assert serving_names("hook", namespace="velda", in_cluster=False) == (*inside, "localhost", "127.0.0.1")
