"""Where the control plane's binaries come from: KUBEBUILDER_ASSETS, PATH, the cache, else a Go build with progress.

The Go modules beside this file pin every version. What is built is kept outside the checkout, keyed by those module
files, so that a fresh clone on the same machine starts at once. Whoever needs only the control plane never waits for
the node's tools: they are a set of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools.go import build

HERE = Path(__file__).parent
KUBERNETES_VERSION = "v1.36.3"
_STRIPPED = "-s -w"
_VERSIONED = " ".join(
    [_STRIPPED]
    + [
        f"-X k8s.io/component-base/version.{variable}={value}"
        for variable, value in (("gitVersion", KUBERNETES_VERSION), ("gitMajor", "1"), ("gitMinor", "36"))
    ]
)


class ToolError(Exception):
    """A binary is neither there nor can it be built; the text says what to do."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Binaries that one ``go build`` makes from one module: file name → package."""

    module: str
    packages: dict[str, str]
    ldflags: str = _STRIPPED
    tags: str = ""

    @property
    def directory(self) -> Path:
        """The cache directory; its name changes with the module's files and the flags."""
        digest = hashlib.sha256((self.ldflags + self.tags).encode())
        for path in sorted((HERE / self.module).iterdir()):
            digest.update(path.read_bytes())
        return cache_root() / f"{self.module}-{digest.hexdigest()[:16]}"


CONTROL_PLANE = (
    Batch(
        module="addons",
        packages={
            "etcd": "go.etcd.io/etcd/server/v3",
            "helm": "helm.sh/helm/v4/cmd/helm",
            "kwok": "sigs.k8s.io/kwok/cmd/kwok",
        },
    ),
    Batch(
        module="kubernetes",
        packages={
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        },
        ldflags=_VERSIONED,
    ),
)
NODE = (
    Batch(
        module="kubernetes",
        packages={name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kube-proxy")},
        ldflags=_VERSIONED,
    ),
    Batch(module="coredns", packages={"coredns": "github.com/coredns/coredns"}),
)
LOAD = (Batch(module="load", packages={"velda-load": "velda.io/apiserver/tests/support/tools/load"}),)
"""Agents and clients by the thousand, of our own source, for the bench."""
PROMETHEUS = (
    Batch(
        module="prometheus",
        packages={"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
        tags="remove_all_sd",  # every cloud's client library, for service discovery
    ),
)
GITOPS = (Batch(module="gitops", packages={"velda-gitops": "velda.io/apiserver/tests/support/tools/gitops"}),)
"""What GitOps tools say of objects, by their own libraries."""


def cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "velda-tools"


def tool(name: str) -> Path:
    """The path of a binary, built if need be; raises ToolError."""
    if name == "kubectl":
        return _kubectl()
    batch = _batch_of(name)
    found = _find(name, batch)
    if found is None:
        _build(batch)
        found = batch.directory / name
    return found


def missing(batches: tuple[Batch, ...]) -> list[str]:
    """Names of what would have to be built now."""
    return [name for batch in batches for name in batch.packages if _find(name, batch) is None]


def build_missing(batches: tuple[Batch, ...]) -> None:
    """``provide``, with a word about it before."""
    if absent := missing(batches):
        print(f"Building {', '.join(absent)} into {cache_root()}: once per machine, 12 minutes when nothing is cached")
        provide(batches)


def provide(batches: tuple[Batch, ...]) -> None:
    """Build whatever of ``batches`` is missing."""
    for batch in batches:
        for name in batch.packages:
            tool(name)


def _batch_of(name: str) -> Batch:
    for batch in (*CONTROL_PLANE, *NODE, *LOAD, *GITOPS, *PROMETHEUS):
        if name in batch.packages:
            return batch
    raise ToolError(f"no tool is called {name}")


def _find(name: str, batch: Batch) -> Path | None:
    candidates = [os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH"), str(batch.directory)]
    for path in filter(None, candidates):
        found = shutil.which(name, path=path)
        if found is not None:
            return Path(found).resolve()
    return None


def _kubectl() -> Path:
    """The locked one beside this Python first: its version is the one that tests were written against."""
    for path in (str(Path(sys.executable).parent), os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH")):
        found = shutil.which("kubectl", path=path) if path else None
        if found is not None:
            return Path(found)
    raise ToolError("kubectl is missing: `make setup` installs it into the environment")


def _build(batch: Batch) -> None:
    """Build into a directory aside and move each binary into place, so that nobody ever runs half a file."""
    directory = batch.directory
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / ".lock"), tempfile.TemporaryDirectory(dir=directory) as aside:
        _sweep(directory, keep=Path(aside))
        packages = {name: package for name, package in batch.packages.items() if not (directory / name).exists()}
        if not packages:
            return
        try:
            build(HERE / batch.module, packages, ldflags=batch.ldflags, tags=batch.tags, output=Path(aside))
        except OSError as error:
            raise ToolError(f"cannot build {', '.join(packages)}: {error}") from error
        for name in packages:
            os.replace(Path(aside) / name, directory / name)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(directory: Path, *, keep: Path) -> None:
    """Remove what a builder left that was killed; we hold the lock, so nobody else builds here."""
    for path in directory.iterdir():
        if path.is_dir() and path != keep:
            shutil.rmtree(path)
