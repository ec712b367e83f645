"""velda-config.yaml: the documentation's files are taken, each mistake is told with file, line and key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.proofs import CertificateProof, TokenProof
from app.settings import MOST_MISTAKES, Identity, SettingsError, load, parse

BASIC = 'provisioners:\n  - kubernetes:\n      namespace: "velda"\n'
GKE = f"""{BASIC}      gke:
        project: "my-gcp-project"
        location: "us-central1"
        cluster_name: "velda-cluster"
"""
TWO_CLUSTERS = (
    f"{GKE}  - kubernetes:\n      namespace: velda\n      gke: {{project: p, location: l, cluster_name: c}}\n"
)


def test_the_documentations_files() -> None:
    assert parse(BASIC, "f").kubernetes.watched == ("velda",)
    gke = parse(GKE, "f").kubernetes.gke
    assert gke is not None
    assert (gke.project, gke.location, gke.cluster_name) == ("my-gcp-project", "us-central1", "velda-cluster")


def test_one_namespace_a_list_or_all() -> None:
    several = BASIC.replace('namespace: "velda"', "namespaces: [a, b, a]")
    assert parse(several, "f").kubernetes.watched == ("a", "b")
    assert parse(BASIC.replace('namespace: "velda"', "all_namespaces: true"), "f").kubernetes.watched == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASIC + "      names_pace: x\n", "f:4: provisioners[0].kubernetes.names_pace: unknown key"),
        (BASIC.replace('"velda"', "7"), "f:3: provisioners[0].kubernetes.namespace: Input should be a valid string"),
        (BASIC + "server:\n  port: 99999\n", "f:5: server.port: "),
        (BASIC + 'server:\n  port: "8443"\n', "f:5: server.port: Input should be a valid integer"),
        (BASIC + "log:\n  level: loud\n", "f:5: log.level: "),
        (BASIC + "      namespaces: [a]\n", "f:2: provisioners[0].kubernetes: set exactly one of namespace"),
        (BASIC + "leader_election:\n  renew_deadline: 20\n", "f:4: leader_election: must hold: lease_duration > renew"),
        (BASIC + "agents:\n  authentication: mtls\n", "f:4: agents: authentication mtls needs image, "),
        (
            BASIC + "agents: {authentication: mtls, image: i, certificate_url: 'http://x'}\n",
            "f:4: agents: authentication ",
        ),
        (
            BASIC + "agents: {authentication: mtls, image: i, certificate_url: 'https://x'}\n"
            "webhook: {certificates: cert-manager}\n",
            "f:1: document: agents.authentication mtls needs a CA of ours: ",
        ),
        (
            BASIC + "agents:\n  authentication: password\n",
            "f:5: agents.authentication: Input should be 'pod', 'token', ",
        ),
        (BASIC + "agents:\n  token_seconds: 599\n", "f:5: agents.token_seconds: "),
        ("provisioners: []\n", "f:1: provisioners: "),
        (
            BASIC + "  - aws: {}\n",
            "f:4: provisioners[1].kubernetes: Field required\nf:4: provisioners[1].aws: ",
        ),
        (TWO_CLUSTERS, "f:1: provisioners: it names 2 clusters, and one process serves one: start a velda-apiserver"),
        (
            BASIC + "  - kubernetes:\n      namespace: other\n",
            "f:1: provisioners: all of them name the same cluster: keep one, with all its namespaces in namespaces: ",
        ),
        (GKE.replace("location", "region"), "f:4: provisioners[0].kubernetes.gke.location: Field required\nf:6: "),
        ("", "f:1: provisioners: Field required"),
        ("provisioners: [\n", "f:2: not valid YAML"),
        (BASIC + "log:\n  level: info\nlog:\n  level: debug\n", "f:6: log: the key is there twice"),
        ("- a\n", "f:1: document: "),
        ("\x00", "f:1: not valid YAML"),
        (f"{BASIC}server: {{port: {'9' * 5000}}}\n", "f:1: not valid YAML: Exceeds the limit"),
        (BASIC + "server: {host: 2001-99-99}\n", "f:1: not valid YAML: month must be in 1..12"),
        (BASIC + "server: {port: !!bool abc}\n", "f:1: not valid YAML: "),
        (BASIC + "server: {host: !!timestamp abc}\n", "f:1: not valid YAML: "),
        (BASIC + 'server: {host: "\\UFFFFFFFF"}\n', "f:1: not valid YAML: "),
        (BASIC + "? [a]\n: b\n", "f:4: not valid YAML: found unhashable key"),
        (BASIC + "log: !!python/object/apply:os.system [id]\n", "f:4: not valid YAML: could not determine"),
        ("[" * 10_000, "f:1: nested too deeply"),
        (f"{BASIC}log: {'[' * 900}{']' * 900}\n", "f:1: nested too deeply"),
        ("#" * (1 << 20) + BASIC, "f:1: longer than 1048576 characters"),
        ("&a {provisioners: *a}\n", "f:1: provisioners: "),
        (f"{BASIC}broker: &a {{names: [*a]}}\n", "f:4: broker.names[0]: "),
        (f"{BASIC}leader_election: {{lease_duration: .nan}}\n", "f:4: leader_election"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse(text, "f")
    assert str(error.value).startswith(said)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        parse(BASIC + "server:\n  port: 0\n  hots: x\n", "f")
    assert len(str(error.value).splitlines()) == 2


def test_a_bomb_of_aliases_costs_nothing_and_is_refused() -> None:
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    with pytest.raises(SettingsError) as error:
        parse(f"{BASIC}a0: &a0 [x, x, x]\n{layers}broker: {{names: *a29}}\n", "f")
    assert "f:32: broker.names[0]: Input should be a valid string" in str(error.value).splitlines()


def test_so_many_mistakes_are_told_and_no_more() -> None:
    with pytest.raises(SettingsError) as error:
        parse(BASIC + "".join(f"key{i}: 1\n" for i in range(1000)), "f")
    assert len(str(error.value).splitlines()) == MOST_MISTAKES


@given(st.text())
def test_any_text_is_taken_or_refused_and_nothing_else(text: str) -> None:
    said = "f:"
    try:
        parse(text, "f")
    except SettingsError as error:
        said = str(error)
    assert said.startswith("f:")


def test_what_worker_pods_get_to_prove_themselves_by_and_when_the_broker_speaks_tls() -> None:
    for authentication in ("pod", "none"):
        settings = parse(f"{BASIC}agents: {{authentication: {authentication}}}\n", "f")
        assert (settings.agents.proof, settings.broker_tls) == (None, False)
    token = parse(f"{BASIC}agents: {{authentication: token, token_seconds: 600}}\nbroker: {{tls: true}}\n", "f")
    assert token.agents.proof == TokenProof(audience="velda-agents", seconds=600)
    assert token.broker_tls
    keys = "{authentication: mtls, image: i, certificate_url: 'https://x/y', token_audience: a}"
    mtls = parse(f"{BASIC}agents: {keys}\n", "f")
    assert mtls.agents.proof == CertificateProof(token=TokenProof("a", 3600), image="i", url="https://x/y")
    assert mtls.broker_tls


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "binary.yaml")


def test_the_start_stops_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "velda-config.yaml"
    file.write_text(BASIC + "servr: {}\n")
    command = [sys.executable, "-m", "app", "serve", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"{file}:4: servr: unknown key\n"


def test_who_we_are_comes_from_the_downward_api() -> None:
    assert Identity.from_environment({"POD_NAME": "a", "POD_NAMESPACE": ""}) == Identity(pod_name="a", namespace=None)
