"""An image as its registry's directory keeps it, and a container of it by crun alone, on this machine's network."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.process import bound

_UNIFIED = "/sys/fs/cgroup/unified"
_WITHOUT = f"! umount {_UNIFIED} 2>/dev/null || mount -t tmpfs crun {_UNIFIED}"
_ALONE = ("unshare", "--mount", "sh", "-c", f'{_WITHOUT}; exec "$@"', "sh")
"""crun takes no machine with both versions of cgroups; what it leaves where version 2 was goes with it."""
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True)
class Image:
    """``digest`` is the image's id; ``config`` what it says of user, entry point and environment."""

    digest: str
    config: dict[str, Any]
    layers: tuple[Path, ...]

    @classmethod
    def read(cls, registry: Path, name: str) -> Image:
        """``name`` as in ``docker pull``, with its tag."""
        repository, _, tag = name.partition(":")
        root = registry / "docker" / "registry" / "v2"
        link = root / "repositories" / repository / "_manifests" / "tags" / tag / "current" / "link"
        manifest = json.loads(_blob(root, link.read_text()).read_bytes())
        digest = manifest["config"]["digest"]
        config = json.loads(_blob(root, digest).read_bytes())
        return cls(digest, config, tuple(_blob(root, layer["digest"]) for layer in manifest["layers"]))

    def unpack(self, directory: Path) -> Path:
        """The root file system, for every user; the layers take nothing away from those below."""
        directory.chmod(0o755)
        for layer in self.layers:
            subprocess.run(["tar", "--extract", f"--directory={directory}", f"--file={layer}"], check=True)
        assert not list(directory.rglob(".wh.*"))
        return directory


@dataclass(frozen=True, kw_only=True)
class Container:
    """As one may ask Docker for it; always with a read-only root, no capability and no new privileges."""

    arguments: Sequence[str]
    user: tuple[int, int]
    environment: Mapping[str, str] = field(default_factory=dict)
    binds: Mapping[Path, str] = field(default_factory=dict)

    def bundle(self, image: Image, root: Path) -> dict[str, Any]:
        """config.json of the OCI runtime specification."""
        own = dict(pair.split("=", 1) for pair in image.config["config"]["Env"])
        uid, gid = self.user
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
            *({"destination": f"/dev/{name}", "source": f"/dev/{name}", "options": ["bind"]} for name in _DEVICES),
            *(
                {"destination": target, "source": str(source), "options": ["bind", "ro"]}
                for source, target in self.binds.items()
            ),
        ]
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(root), "readonly": True},
            "process": {
                "user": {"uid": uid, "gid": gid},
                "args": [*image.config["config"]["Entrypoint"], *self.arguments],
                "env": [f"{name}={value}" for name, value in {**own, **self.environment}.items()],
                "cwd": image.config["config"].get("WorkingDir") or "/",
                "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable")},
                "noNewPrivileges": True,
            },
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }

    @contextlib.contextmanager
    def running(self, image: Image, root: Path, directory: Path) -> Iterator[subprocess.Popen[str]]:
        """What it says comes on stderr; signals reach it."""
        (directory / "config.json").write_text(json.dumps(self.bundle(image, root)))
        state, name = f"--root={directory / 'state'}", f"velda-{uuid.uuid4().hex[:8]}"
        command = ["crun", state, "--cgroup-manager=disabled", "run", f"--bundle={directory}", name]
        with subprocess.Popen(bound(*_ALONE, *command), stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                subprocess.run(["crun", state, "delete", "--force", name], check=False, capture_output=True)
                process.kill()


def _blob(root: Path, digest: str) -> Path:
    algorithm, _, value = digest.strip().partition(":")
    return root / "blobs" / algorithm / value[:2] / value / "data"
