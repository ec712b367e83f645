"""Injection: adds what lacks, keeps everything else, and changes nothing the second time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.injection import inject
from app.core.proofs import CertificateProof, Proof, TokenProof, directory_of

VOLUME = {"name": "velda-config", "configMap": {"name": "velda-config"}}
MOUNT = {"name": "velda-config", "mountPath": "/run/velda", "readOnly": True}


def pod(container: dict[str, Any] | None = None, *more: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "agent", **(container or {})}, *more], **spec}}


def injected(value: dict[str, Any]) -> dict[str, Any]:
    return inject(value, pool="cpu", config_map="velda-config")


def test_a_bare_pod_gets_volume_mount_and_argument() -> None:
    assert injected(pod()) == pod({"volumeMounts": [MOUNT], "args": ["--pool=cpu"]}, volumes=[VOLUME])


def test_the_documented_pod_is_left_alone() -> None:
    mine = {"volumeMounts": [{"name": "velda-config", "mountPath": "/run/velda"}], "args": ["--pool=cpu"]}
    assert injected(pod(mine, volumes=[VOLUME])) == pod(mine, volumes=[VOLUME])


@pytest.mark.parametrize(
    ("container", "args"),
    [
        ({"args": ["-v"]}, ["-v", "--pool=cpu"]),
        ({"command": ["/agent"]}, ["--pool=cpu"]),
        ({"args": ["--pool=x"]}, ["--pool=x"]),
        ({"args": ["--pool", "x"]}, ["--pool", "x"]),
        ({"args": ["--pools=x"]}, ["--pools=x", "--pool=cpu"]),
        ({"command": ["/agent", "--pool=x"]}, None),
        ({"command": ["/agent", "--pool"], "args": ["x"]}, ["x"]),
    ],
)
def test_the_argument_is_appended_when_none_names_a_pool(container: dict[str, Any], args: list[str] | None) -> None:
    result = injected(pod(container))["spec"]["containers"][0]
    assert result.get("args") == args
    assert result.get("command") == container.get("command")


def test_the_container_named_agent_is_the_agent() -> None:
    sidecar = {"name": "sidecar", "image": "x"}
    value = {"spec": {"containers": [sidecar, {"name": "agent"}]}}
    first, second = injected(value)["spec"]["containers"]
    assert first == sidecar
    assert second["args"] == ["--pool=cpu"]


def test_without_that_name_the_first_is() -> None:
    value = {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    first, second = injected(value)["spec"]["containers"]
    assert first["volumeMounts"] == [MOUNT]
    assert second == {"name": "b"}


@pytest.mark.parametrize("path", ["/run/velda", "/run/velda/", "//run//velda", "/run/velda/velda.yaml"])
def test_what_is_mounted_there_already_stays(path: str) -> None:
    mount = {"name": "mine", "mountPath": path}
    volumes = [{"name": "mine", "emptyDir": {}}]
    result = injected(pod({"volumeMounts": [mount]}, volumes=volumes))["spec"]
    assert result["volumes"] == volumes
    assert result["containers"][0]["volumeMounts"] == [mount]


def test_a_mount_in_another_container_does_not_count() -> None:
    other = {"name": "b", "volumeMounts": [{"name": "velda-config", "mountPath": "/run/velda"}]}
    result = injected(pod(None, other, volumes=[VOLUME]))["spec"]
    assert result["volumes"] == [VOLUME]
    assert result["containers"][0]["volumeMounts"] == [MOUNT]


def test_a_volume_of_that_config_map_is_used_again() -> None:
    volume = {"name": "config", "configMap": {"name": "velda-config"}}
    result = injected(pod(volumes=[volume]))["spec"]
    assert result["volumes"] == [volume]
    assert result["containers"][0]["volumeMounts"][0]["name"] == "config"


@pytest.mark.parametrize(
    "taken",
    [
        {"name": "velda-config", "emptyDir": {}},
        {"name": "velda-config", "configMap": {"name": "other"}},
        {"name": "velda-config", "configMap": {"name": "velda-config", "items": [{"key": "a", "path": "a"}]}},
    ],
)
def test_a_name_that_is_taken_is_avoided(taken: dict[str, Any]) -> None:
    also = {"name": "velda-config-2", "emptyDir": {}}
    result = injected(pod(volumes=[taken, also]))["spec"]
    assert result["volumes"] == [taken, also, {**VOLUME, "name": "velda-config-3"}]
    assert result["containers"][0]["volumeMounts"][0]["name"] == "velda-config-3"


def test_the_pods_own_annotation_names_the_config_map() -> None:
    value = {**pod(), "metadata": {"annotations": {"velda.io/config-map": "mine"}}}
    assert injected(value)["spec"]["volumes"] == [{"name": "velda-config", "configMap": {"name": "mine"}}]


TOKEN = TokenProof(audience="velda-agents", seconds=3600)
TOKEN_VOLUME = {
    "name": "velda-token",
    "projected": {
        "sources": [{"serviceAccountToken": {"audience": "velda-agents", "expirationSeconds": 3600, "path": "token"}}]
    },
}
TOKEN_MOUNT = {"name": "velda-token", "mountPath": "/var/run/secrets/velda.io/agent", "readOnly": True}
CERTIFICATE = CertificateProof(token=TOKEN, image="velda:1", url="https://velda/agents/v1/certificate")
CERTIFICATE_MOUNT = {"name": "velda-certificate", "mountPath": "/var/run/secrets/velda.io/certificate"}


def proved(value: dict[str, Any], proof: Proof) -> dict[str, Any]:
    return inject(value, pool="cpu", config_map="velda-config", proof=proof)


def test_a_token_is_mounted_in_the_agents_container_alone() -> None:
    sidecar = {"name": "sidecar"}
    result = proved(pod(None, sidecar, automountServiceAccountToken=False), TOKEN)["spec"]
    assert result["volumes"] == [VOLUME, TOKEN_VOLUME]
    assert result["containers"][0]["volumeMounts"] == [MOUNT, TOKEN_MOUNT]
    assert result["containers"][1] == sidecar
    assert result["automountServiceAccountToken"] is False
    assert "initContainers" not in result


@pytest.mark.parametrize("proof", [TOKEN, CERTIFICATE])
def test_a_proof_that_the_pod_brings_itself_stays(proof: Proof) -> None:
    mount = {"name": "mine", "mountPath": f"/{directory_of(proof)}/"}
    result = proved(pod({"volumeMounts": [mount]}, volumes=[{"name": "mine", "emptyDir": {}}]), proof)["spec"]
    assert result["containers"][0]["volumeMounts"] == [mount, MOUNT]
    assert "initContainers" not in result


def test_a_certificate_is_got_before_all_else_by_the_agents_user_within_its_resources() -> None:
    agent = {
        "securityContext": {"runAsUser": 7, "privileged": True},
        "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": 1}, "limits": {"memory": "1Gi"}},
    }
    taken = {"name": "velda-token", "emptyDir": {}}
    result = proved(pod(agent, initContainers=[{"name": "first"}], volumes=[taken]), CERTIFICATE)["spec"]
    init, first = result["initContainers"]
    assert first == {"name": "first"}
    assert (init["name"], init["image"]) == ("velda-certificate", "velda:1")
    assert init["args"] == [
        "agent-certificate",
        "--url=https://velda/agents/v1/certificate",
        "--ca=/run/velda/ca.crt",
        "--token=/var/run/secrets/velda.io/agent/token",
        "--directory=/var/run/secrets/velda.io/certificate",
    ]
    assert init["securityContext"] == {
        "runAsUser": 7,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert init["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    assert init["volumeMounts"] == [MOUNT, {**TOKEN_MOUNT, "name": "velda-token-2"}, CERTIFICATE_MOUNT]
    token, certificate = {**TOKEN_MOUNT, "name": "velda-token-2"}, {**CERTIFICATE_MOUNT, "readOnly": True}
    assert result["containers"][0]["volumeMounts"] == [MOUNT, token, certificate]
    assert result["volumes"] == [
        taken,
        VOLUME,
        {**TOKEN_VOLUME, "name": "velda-token-2"},
        {"name": "velda-certificate", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]


def test_an_agent_without_resources_gets_an_init_container_without() -> None:
    (init,) = proved(pod(), CERTIFICATE)["spec"]["initContainers"]
    assert "resources" not in init


NAMES = st.sampled_from(["velda-config", "velda-config-2", "velda-config-3", "data", "agent"])
SOURCES = st.sampled_from([{"emptyDir": {}}, {"configMap": {"name": "velda-config"}}, {"configMap": {"name": "x"}}])
VOLUMES = st.lists(
    st.builds(lambda name, source: {"name": name, **source}, NAMES, SOURCES), max_size=4, unique_by=lambda v: v["name"]
)
PATHS = st.sampled_from(["/run/velda", "/data", "/run/velda/x"])
MOUNTS = st.lists(st.builds(lambda name, path: {"name": name, "mountPath": path}, NAMES, PATHS), max_size=3)
WORDS = st.lists(st.sampled_from(["--pool", "--pool=x", "--pool=", "x", "-v"]), max_size=4)


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    def container() -> dict[str, Any]:
        parts = {"image": st.text(), "args": WORDS | st.none(), "command": WORDS, "volumeMounts": MOUNTS | st.none()}
        return {"name": draw(NAMES), **{key: draw(part) for key, part in parts.items() if draw(st.booleans())}}

    spec: dict[str, Any] = {"containers": [container() for _ in range(draw(st.integers(1, 3)))]}
    if draw(st.booleans()):
        spec["volumes"] = draw(VOLUMES)
    return {"metadata": {"labels": draw(st.dictionaries(st.text(), st.text()))}, "spec": spec}


@given(value=pods(), proof=st.sampled_from([None, TOKEN, CERTIFICATE]))
def test_idempotent_and_keeps_everything(value: dict[str, Any], proof: Proof | None) -> None:
    before = copy.deepcopy(value)
    once = inject(value, pool="cpu", config_map="velda-config", proof=proof)
    assert value == before
    assert inject(once, pool="cpu", config_map="velda-config", proof=proof) == once
    volumes = once["spec"].get("volumes") or []
    assert len({volume["name"] for volume in volumes}) == len(volumes)
    assert _stripped(once) == _stripped(value)
    assert volumes[: len(value["spec"].get("volumes") or [])] == (value["spec"].get("volumes") or [])


def _stripped(value: dict[str, Any]) -> dict[str, Any]:
    """The pod without what injection may extend."""
    extended = ("args", "volumeMounts")
    containers = [{k: v for k, v in c.items() if k not in extended} for c in value["spec"]["containers"]]
    spec = {key: part for key, part in value["spec"].items() if key not in ("volumes", "initContainers")}
    return {**value, "spec": {**spec, "containers": containers}}
