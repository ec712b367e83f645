"""The images of the node stage, built from our Dockerfile by buildah and kept in a registry's directory.

No public base image can be had everywhere, so the base is made from Debian's packages. The directory is keyed by all
that goes into the images: unchanged sources cost nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.support.process import StageError, die_with_parent, free_port
from tests.support.running import CHECKOUT
from tests.support.tools import cache_root

_SUITE = "bookworm"
_BASE_PACKAGES = "python3,libstdc++6"
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
_RECIPE = hashlib.sha256(repr((_SUITE, _BASE_PACKAGES, _EXCLUDED)).encode()).hexdigest()[:12]
_BASE, _UV, _PAUSE = f"localhost/velda-base:{_RECIPE}", "localhost/velda-uv", "localhost/velda-pause"
_IMAGE_FILES = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock")
_SOURCES = ("app", "certs", "crd")
_KEPT = 3
_STORAGE_LIMIT = 6 << 30
PAUSE = "docker.io/library/pause:1"


def registry_directory() -> Path:
    """A docker-registry's storage with server, agent and pause image of the present sources; builds what is missing."""
    root = cache_root() / "images"
    directory = root / f"registry-{_digest()}"
    if not directory.exists():
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / ".lock"):
            if not directory.exists():
                _Builder(root).build(directory)
    directory.touch()
    return directory


def rebuilt() -> str:
    """The id of the server's image, built once more from nothing but base and packages."""
    root = cache_root() / "images"
    with _lock(root / ".lock"):
        return _Builder(root).again()


def server_image() -> str:
    """Under the name and the tag that the chart asks for (its appVersion is the project's version)."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return f"veldaio/velda-apiserver:{project['version']}"


def _digest() -> str:
    digest = hashlib.sha256(f"{_RECIPE} {server_image()}".encode())
    files = [CHECKOUT / name for name in _IMAGE_FILES]
    for source in _SOURCES:
        files += sorted(path for path in (CHECKOUT / source).rglob("*") if "__pycache__" not in path.parts)
    for path in files:
        if path.is_file():
            digest.update(f"{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class _Builder:
    """All of buildah's state is below ``root``; one at a time works there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._storage = root / "storage"
        self._temporary = root / "tmp"
        self._temporary.mkdir(exist_ok=True)

    def build(self, directory: Path) -> None:
        print("Building the server's and the agent's image (about a minute; base and packages are cached)", flush=True)
        self._forget_old()
        self._provide_base()
        self._provide_uv()
        for target in ("server", "agent"):
            self._bud(CHECKOUT, f"localhost/velda-{target}", "--layers", *_options(target))
        self._from_text(_PAUSE, f'FROM {_BASE}\nENTRYPOINT ["sleep", "infinity"]\n')
        aside = directory.with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        with serving(aside) as address:
            self._push("localhost/velda-server", address, server_image())
            self._push("localhost/velda-agent", address, "veldaio/agent:latest")
            self._push(_PAUSE, address, PAUSE.removeprefix("docker.io/"))
        aside.rename(directory)

    def again(self) -> str:
        self._provide_base()
        self._provide_uv()
        (identity := self._temporary / "again").unlink(missing_ok=True)
        self._bud(
            CHECKOUT, "localhost/velda-again", "--layers", "--no-cache", f"--iidfile={identity}", *_options("server")
        )
        return identity.read_text().strip()

    def _forget_old(self) -> None:
        """A cache that grows for ever is a leak."""
        if self._storage.exists() and _size(self._storage) > _STORAGE_LIMIT:
            self._buildah("rmi", "--all", "--force")
        known = sorted(self._root.glob("registry-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in known[_KEPT - 1 :]:
            shutil.rmtree(path)

    def _provide_base(self) -> None:
        if self._buildah("images", "--quiet", "--filter", f"reference={_BASE}"):
            return
        if shutil.which("mmdebstrap") is None:
            raise StageError("the base image needs mmdebstrap (make node-tools installs it as root)")
        print(f"Making the base image from Debian {_SUITE}'s packages: {_BASE_PACKAGES}", flush=True)
        context = self._temporary / "base"
        context.mkdir(exist_ok=True)
        excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
        include = f"--include={_BASE_PACKAGES}"
        self._run("mmdebstrap", "--variant=essential", include, *excluded, _SUITE, str(context / "base.tar"))
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        self._bud(context, _BASE)
        shutil.rmtree(context)

    def _provide_uv(self) -> None:
        """An image that is only the uv binary which this environment uses; what is on PATH may be a mere wrapper."""
        uv = os.environ.get("UV") or self._run("uv", "run", "--no-project", "printenv", "UV")
        context = self._temporary / "uv"
        context.mkdir(exist_ok=True)
        shutil.copy(uv, context / "uv")
        (context / "Dockerfile").write_text("FROM scratch\nCOPY uv /uv\n")
        self._bud(context, _UV, "--layers")
        shutil.rmtree(context)

    def _from_text(self, tag: str, dockerfile: str) -> None:
        context = self._temporary / "text"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(dockerfile)
        self._bud(context, tag)
        shutil.rmtree(context)

    def _bud(self, context: Path, tag: str, *options: str) -> None:
        """chroot isolation: no container runtime is needed, and the network is the machine's, with its CAs.

        No time but the epoch gets into the image: who builds the same again gets the same digest.
        """
        fixed = ("--isolation=chroot", "--volume=/etc/ssl/certs:/etc/ssl/certs:ro", "--timestamp=0")
        self._buildah("bud", *fixed, *options, f"--tag={tag}", str(context))

    def _push(self, image: str, address: str, name: str) -> None:
        quick = ("--disable-compression", "--tls-verify=false")
        self._buildah("push", *quick, image, f"docker://{address}/{name}")

    def _buildah(self, command: str, *arguments: str) -> str:
        state = (f"--root={self._storage}", f"--runroot={self._root / 'run'}", "--storage-driver=overlay")
        return self._run("unshare", "--mount", "buildah", *state, command, *arguments)

    def _run(self, *command: str) -> str:
        """In a mount namespace of its own, so that what it mounts ends with it."""
        environment = {**os.environ, "TMPDIR": str(self._temporary)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, preexec_fn=die_with_parent
        )
        if done.returncode:
            last = "\n".join((done.stderr or done.stdout).splitlines()[-20:])
            raise StageError(f"{' '.join(command[:6])} … failed:\n{last}")
        return done.stdout.strip()


def _options(target: str) -> tuple[str, ...]:
    return (f"--target={target}", f"--build-arg=BASE={_BASE}", f"--build-arg=UV={_UV}")


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[str]:
    """A registry on loopback that keeps its images in ``directory``; yields host:port."""
    port = free_port()
    directory.mkdir()
    configuration = directory.with_suffix(".yml")
    configuration.write_text(registry_configuration(directory, port))
    with subprocess.Popen(
        ["docker-registry", "serve", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509  one prctl call, nothing that could deadlock
    ) as process:
        try:
            _await_answer(f"http://127.0.0.1:{port}/v2/")
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            configuration.unlink()


def registry_configuration(directory: Path, port: int) -> str:
    document = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    return yaml.safe_dump(document)


def _await_answer(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise StageError(f"docker-registry does not answer: {error}") from error
            time.sleep(0.05)


def _size(directory: Path) -> int:
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
