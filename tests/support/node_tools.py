"""``python -m tests.support.node_tools``: gets ready what the node stage needs, or says why it cannot run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import cgroups, debian, images, isolation, tools
from tests.support.process import StageError

_PACKAGES = {
    "containerd": "containerd",
    "crun": "crun",
    "docker-registry": "docker-registry",
    "buildah": "buildah",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
}
"""Program → Debian package."""
CNI = Path("/usr/lib/cni")
_CNI_PACKAGE = "containernetworking-plugins"


_PROBES = {
    "a bridge device": ["ip", "link", "add", "probe", "type", "bridge"],
    "iptables with NAT": ["iptables", "--wait", "--table", "nat", "--list"],
    "addresses of a whole range": ["ip", "route", "add", "local", "10.77.0.0/16", "dev", "lo"],
}
"""What the kernel must allow in a network namespace → a command that needs it."""


@functools.cache
def obstacle() -> str:
    """Why this machine cannot be a node; empty when it can."""
    if not _is_root():
        return "it needs root"
    if absent := missing_packages():
        return f"Debian packages are missing: {' '.join(absent)}"
    if reason := isolation.obstacle():
        return reason
    for what, command in _PROBES.items():
        tried = subprocess.run(["unshare", "--net", *command], capture_output=True, text=True, check=False)
        if tried.returncode:
            return f"the kernel does not allow {what} ({tried.stderr.strip()})"
    return "" if cgroups.writable() else "there is no cgroup tree to write to"


def _is_root() -> bool:
    """Of the machine, not of a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def missing_packages() -> list[str]:
    absent = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    return absent if (CNI / "bridge").exists() else [*absent, _CNI_PACKAGE]


def main() -> int:
    """Exit 0 also where there can be no node: its tests are skipped with the same reason."""
    try:
        if _is_root() and debian.can_install() and (absent := missing_packages()):
            debian.install(absent, purpose="the node stage")
        if reason := obstacle():
            print(f"No node stage here: {reason}. The fleet stage is used alone.")
            return 0
        tools.build_missing(tools.NODE)
        images.registry_directory()
    except (StageError, tools.ToolError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
