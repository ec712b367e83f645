"""The image: what is in it, that a second build gives the same one, and that it runs as the try-out runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.deploy.documented import documented
from tests.support import images, node_tools, outside
from tests.support.cluster import Cluster
from tests.support.oci import Container, Image
from tests.support.running import CHECKOUT

COMPOSE = CHECKOUT / "deploy" / "compose"
MOST_OURS = 125 << 20
"""Bytes of our own files, beside the base image's."""
SHELLS = ("sh", "bash", "dash", "rbash")
USER = (1234, 1235)


@pytest.fixture(scope="module")
def image() -> Image:
    if reason := node_tools.obstacle():
        pytest.skip(f"images are made for the node stage, and there is none here: {reason}")
    return Image.read(images.registry_directory(), images.server_image())


@pytest.fixture(scope="module")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its files, without any shell."""
    directory = image.unpack(tmp_path_factory.mktemp("root"))
    for place in ("bin", "usr/bin"):
        for shell in SHELLS:
            (directory / place / shell).unlink(missing_ok=True)
    return directory


@pytest.mark.node
def test_it_is_small_lists_its_packages_and_is_of_one_age(root: Path) -> None:
    ours = [path for path in (root / "opt" / "velda").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in ours) < MOST_OURS
    assert {path.stat().st_mtime for path in ours} == {0.0}
    assert not [path for path in ours if path.stat().st_mode & 0o022]
    listed = json.loads((root / "opt" / "velda" / "sbom.cdx.json").read_text())
    assert {"serialNumber", "timestamp"}.isdisjoint({*listed, *listed["metadata"]})


@pytest.mark.node
def test_a_second_build_gives_the_same_image(image: Image) -> None:
    assert images.rebuilt() == image.digest


@pytest.mark.node
def test_the_try_out_runs_read_only_without_a_shell_and_stops_in_order(
    image: Image, root: Path, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.install_crd()
    namespace = cluster.namespace()
    config = yaml.safe_load((COMPOSE / "velda-config.yaml").read_text())
    config = {**outside.configuration(namespace=namespace), "agents": config["agents"]}
    files = {
        tmp_path / "kubeconfig": "/run/kubeconfig",
        outside.write(tmp_path / "velda-config.yaml", config): "/etc/velda/velda-config.yaml",
        COMPOSE / "velda.yaml": "/etc/velda/velda.yaml",
    }
    (tmp_path / "kubeconfig").write_text(cluster.kubectl("config", "view", "--minify", "--flatten", "--raw").stdout)
    for file in files:
        if file.is_relative_to(tmp_path):
            os.chown(file, *USER)
    service = _service(USER)
    assert {Path(target) for target in files.values()} == {Path(volume["target"]) for volume in service["volumes"]}
    container = Container(arguments=service["command"], user=USER, environment=service["environment"], binds=files)
    (tmp_path / "bundle").mkdir()
    with container.running(image, root, tmp_path / "bundle") as process:
        assert process.stderr is not None
        said = ""
        while '"broker listens"' not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
        assert process.wait(timeout=30) == 0, said
    assert "Read-only file system" not in said


def test_compose_takes_the_file_and_docker_run_asks_for_the_same() -> None:
    service = _service(USER)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    ((command,), _) = documented("Docker and Compose")
    words = shlex.split(
        command.replace("$(id -u):$(id -g)", f"{USER[0]}:{USER[1]}").replace("$HOME", "/h").replace("$PWD", "/c")
    )
    flags, given = {"--rm", "--read-only"}, []
    arguments = iter(words[2:])
    for word in arguments:
        if not word.startswith("--"):
            break
        given.append((word, "" if word in flags else next(arguments)))
    assert (word, list(arguments)) == (service["image"], service["command"])
    volumes = [
        f"{volume['source'].replace(str(COMPOSE), '/c/deploy/compose')}:{volume['target']}:ro"
        for volume in service["volumes"]
    ]
    assert sorted(given) == sorted(
        [
            ("--rm", ""),
            ("--read-only", ""),
            ("--network", service["network_mode"]),
            ("--user", service["user"]),
            ("--cap-drop", "ALL"),
            ("--security-opt", *service["security_opt"]),
            ("--tmpfs", *service["tmpfs"]),
            *(("--env", f"{name}={value}") for name, value in service["environment"].items()),
            *(("--volume", volume) for volume in volumes),
        ]
    )


def test_the_documented_builds_are_those_that_tests_run() -> None:
    targets = re.findall(r"^FROM .* AS (\w+)$", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    server, agent = documented("Image")[0]
    assert server == f"docker build -t {images.server_image().partition(':')[0]} ."
    assert agent == "docker build -t veldaio/agent --target agent ."
    assert targets[-2:] == ["agent", "server"]  # the last is what docker builds when no target is named


def _service(user: tuple[int, int]) -> dict[str, Any]:
    """The try-out's service as Compose understands it, with these variables put in."""
    variables = {"VELDA_USER": f"{user[0]}:{user[1]}", "HOME": "/h"}
    text = (COMPOSE / "compose.yaml").read_text()
    for _ in range(2):  # a default may name a variable
        text = re.sub(r"\$\{(\w+)(?::-([^{}]*))?\}", lambda match: variables.get(match[1]) or match[2], text)
    PyCompose.from_yaml(text)
    service: dict[str, Any] = yaml.safe_load(text)["services"]["apiserver"]
    assert (COMPOSE / service["build"]["context"] / "Dockerfile").exists()
    volumes = [volume.split(":") for volume in service["volumes"]]
    assert all(mode == "ro" for *_, mode in volumes)
    service["volumes"] = [
        {"source": str(COMPOSE / source.removeprefix("./")) if source.startswith("./") else source, "target": target}
        for source, target, _ in volumes
    ]
    return service
