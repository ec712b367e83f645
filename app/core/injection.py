"""What every agent needs and no user should have to write: velda.yaml at /run/velda, its pool's name, and its proof."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from app.core.proofs import (
    TOKEN_DIRECTORY,
    CertificateProof,
    Proof,
    certificate_volume,
    directory_of,
    init_container,
    token_volume,
)
from app.model.meta import CONFIG_MAP_ANNOTATION

MOUNT_PATH = "/run/velda"
CONFIG_FILE = f"{MOUNT_PATH}/velda.yaml"
VOLUME = "velda-config"
TOKEN_VOLUME = "velda-token"  # noqa: S105  a volume's name
CERTIFICATE_VOLUME = "velda-certificate"
AGENT_CONTAINER = "agent"
POOL_FLAG = "--pool"


def inject(pod: Mapping[str, Any], *, pool: str, config_map: str, proof: Proof | None = None) -> dict[str, Any]:
    """The pod with the ConfigMap mounted in its agent container, ``--pool`` in its arguments, and what it is to prove
    itself by, where they lack.

    ``pod`` is a Pod or a PodTemplateSpec whose shape is known to be right; it is not changed, and what comes back
    shares its unchanged parts. Its own config-map annotation goes before ``config_map``. A second call changes nothing.
    """
    spec = pod["spec"]
    containers = list(spec["containers"])
    index = agent_index(containers)
    container, volumes = containers[index], list(spec.get("volumes") or [])
    injected = {**spec, "containers": containers}
    if not config_mounts(container):
        annotations = (pod.get("metadata") or {}).get("annotations") or {}
        volume = _ensure_volume(volumes, annotations.get(CONFIG_MAP_ANNOTATION) or config_map)
        container = _mounted(container, volume, MOUNT_PATH)
    if not named_pools(container):
        container = {**container, "args": [*(container.get("args") or []), f"{POOL_FLAG}={pool}"]}
    if proof and not _mounts_at(container, directory_of(proof)):
        if isinstance(proof, CertificateProof):
            token = _add_volume(volumes, TOKEN_VOLUME, token_volume(proof.token))
            volume = _add_volume(volumes, CERTIFICATE_VOLUME, certificate_volume())
            added = init_container(
                proof,
                container,
                config_directory=MOUNT_PATH,
                config_volume=config_mounts(container)[0][1],
                token=token,
                certificate=volume,
            )
            injected["initContainers"] = [added, *(spec.get("initContainers") or [])]
            if not _mounts_at(container, TOKEN_DIRECTORY):
                container = _mounted(container, token, TOKEN_DIRECTORY)  # for another one, when the CA has changed
        else:
            volume = _add_volume(volumes, TOKEN_VOLUME, token_volume(proof))
        container = _mounted(container, volume, directory_of(proof))
    containers[index] = container
    if volumes:
        injected["volumes"] = volumes
    return {**pod, "spec": injected}


def _mounted(container: Mapping[str, Any], volume: str, path: str) -> dict[str, Any]:
    mount = {"name": volume, "mountPath": path, "readOnly": True}
    return {**container, "volumeMounts": [*(container.get("volumeMounts") or []), mount]}


def agent_index(containers: Sequence[Mapping[str, Any]]) -> int:
    """Which container is the agent: the one of that name, or else the first."""
    return next((i for i, container in enumerate(containers) if container.get("name") == AGENT_CONTAINER), 0)


def named_pools(container: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Each argument that names a pool, as (``args[1]``, name): ``--pool=x`` or ``--pool x``; None if the name lacks."""
    lists = ((key, container.get(key)) for key in ("command", "args"))
    words = [
        (f"{key}[{i}]", word)
        for key, values in lists
        for i, word in enumerate(values if isinstance(values, list) else ())
        if isinstance(word, str)
    ]
    found: list[tuple[str, str | None]] = []
    for i, (path, word) in enumerate(words):
        if word.startswith(f"{POOL_FLAG}="):
            found.append((path, word.removeprefix(f"{POOL_FLAG}=") or None))
        elif word == POOL_FLAG:
            found.append(words[i + 1] if i + 1 < len(words) else (path, None))
    return found


def config_mounts(container: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The (index, volume) of each mount of the container that brings velda.yaml, whatever it comes from."""
    mounts = enumerate(container.get("volumeMounts") or [])
    return [(i, str(mount.get("name", ""))) for i, mount in mounts if _brings_config(mount.get("mountPath"))]


def _brings_config(path: Any) -> bool:
    return _normal(path) in (MOUNT_PATH, CONFIG_FILE)


def _mounts_at(container: Mapping[str, Any], path: str) -> bool:
    return any(_normal(mount.get("mountPath")) == path for mount in container.get("volumeMounts") or [])


def _normal(path: Any) -> str:
    return posixpath.normpath("/" + path.lstrip("/")) if isinstance(path, str) else ""


def _ensure_volume(volumes: list[Any], config_map: str) -> str:
    """The name of a volume with the whole ConfigMap, appended if there is none."""
    for volume in volumes:
        source = volume.get("configMap") or {}
        if source.get("name") == config_map and not source.get("items"):
            return str(volume["name"])
    return _add_volume(volumes, VOLUME, {"configMap": {"name": config_map}})


def _add_volume(volumes: list[Any], name: str, source: Mapping[str, Any]) -> str:
    """Append it under ``name``, or under a free name like it, which is returned."""
    taken = {volume.get("name") for volume in volumes}
    names = (name, *(f"{name}-{i}" for i in range(2, len(volumes) + 3)))
    name = next(name for name in names if name not in taken)
    volumes.append({"name": name, **source})
    return name
