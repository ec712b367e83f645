"""velda-config.yaml: the documentation's files are taken, each mistake is told with file, line and key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import Identity, SettingsError, load, parse

BASIC = 'provisioners:\n  - kubernetes:\n      namespace: "velda"\n'
GKE = f"""{BASIC}      gke:
        project: "my-gcp-project"
        location: "us-central1"
        cluster_name: "velda-cluster"
"""


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
        ("provisioners: []\n", "f:1: provisioners: "),
        ("", "f:1: provisioners: Field required"),
        ("provisioners: [\n", "f:2: not valid YAML"),
        (BASIC + "log:\n  level: info\nlog:\n  level: debug\n", "f:6: log: the key is there twice"),
        ("- a\n", "f:1: document: "),
        ("\x00", "f:1: not valid YAML"),
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


@given(st.text())
def test_any_text_is_taken_or_refused_and_nothing_else(text: str) -> None:
    said = "f:"
    try:
        parse(text, "f")
    except SettingsError as error:
        said = str(error)
    assert said.startswith("f:")


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
