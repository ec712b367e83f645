"""A machine for systemd: this one's files under an overlay, processes of its own, systemd as the first of them.

What is written there is written in memory and goes with it; the network is this machine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support import cgroups, isolation
from tests.support.process import StageError, bound
from tests.support.running import CHECKOUT

SYSTEMD = Path("/lib/systemd/systemd")
_NAMESPACES = ("mount", "pid", "ipc", "uts")
_BOOT_TIMEOUT = 30.0
_HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd")
"""Where systemd keeps its groups of processes: version 2, or 1."""
_BOOT = """
set -eu
top=$1; checkout=$2; cgroup=$3; systemd=$4
echo 0 > "$cgroup/cgroup.procs"
mount --make-rprivate /
mount -t tmpfs machine "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" machine "$top/root"
cd "$top/root"
mkdir -p ".$checkout"
mount --bind "$checkout" ".$checkout"
mount --rbind /dev dev
mount --rbind /sys sys
mount -o remount,bind,ro sys
mount -t proc proc proc
mount -t tmpfs run run
mkdir -p run/lock run/before
case $cgroup in
    */systemd/*) # version 1: that hierarchy alone, and no controllers for systemd to mount, which others would notice
        mount -t tmpfs cgroup sys/fs/cgroup
        mkdir sys/fs/cgroup/systemd
        mount --bind "$cgroup" sys/fs/cgroup/systemd
        grep '^#' /proc/cgroups > run/cgroups
        mount --bind run/cgroups proc/cgroups ;;
    *) mount --bind "$cgroup" sys/fs/cgroup ;;
esac
rm -rf etc/systemd/system etc/fstab
mkdir -p etc/systemd/system/service.d
cd etc/systemd/system
printf '[Service]\\nStandardOutput=append:/run/services.log\\nStandardError=inherit\\n' > service.d/log.conf
printf '[Unit]\\nDefaultDependencies=no\\n' > machine.target
cd "$top/root"
pivot_root . run/before
umount --lazy /run/before
exec unshare --cgroup env --ignore-environment container=velda "PATH=$PATH" \\
    "$systemd" --unit=machine.target --log-target=console systemd.legacy_systemd_cgroup_controller=yes
"""
"""$1: a directory for it; $2: the checkout; $3: its cgroup; $4: systemd."""


def obstacle() -> str:
    """Why there can be no such machine here; empty when there can."""
    if os.geteuid() != 0 or not cgroups.writable():
        return "it needs root, and cgroups to write to"
    if not any(Path(path, "cgroup.procs").exists() for path in _HIERARCHIES):
        return "there is no hierarchy of cgroups for systemd"
    return isolation.obstacle() or ("" if SYSTEMD.exists() else "systemd is not installed")


class Machine:
    """Commands run in it as root, as at its terminal."""

    def __init__(self, pid: int, log: Path) -> None:
        self._enter = [
            "nsenter",
            f"--target={pid}",
            *(f"--{name}" for name in _NAMESPACES),
            "--cgroup",
            f"--wdns={CHECKOUT}",
            "--",
        ]
        self._log = log

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """With ``check`` a failure raises AssertionError with what was said."""
        words = [*self._enter, *map(str, command)]
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()}")
        return done

    def write(self, path: str, text: str) -> None:
        words = [*self._enter, "sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', path]
        subprocess.run(words, input=text, text=True, check=True)

    def show(self, unit: str, field: str) -> str:
        return self.run("systemctl", "show", unit, f"--property={field}", "--value").stdout.strip()

    def log(self) -> str:
        """What systemd and its services have said."""
        return self._log.read_text(errors="replace") + self.run("cat", "/run/services.log", check=False).stdout


@contextlib.contextmanager
def booted(directory: Path) -> Iterator[Machine]:
    """For as long as the context lasts."""
    name = f"machine-{os.getpid()}"
    cgroup = next(source for source, hierarchy in cgroups.make(name) if hierarchy in _HIERARCHIES)
    (top := directory / "machine").mkdir()
    log = directory / "machine.log"
    unshare = ["unshare", *(f"--{kind}" for kind in _NAMESPACES), "--fork", "--kill-child"]
    command = bound(*unshare, "sh", "-c", _BOOT, "boot", top, CHECKOUT, cgroup, SYSTEMD)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        machine = Machine(_first_process(process, log), log)
        _await_boot(machine, process)
        yield machine
    finally:
        process.kill()
        process.wait()
        cgroups.remove(name)
        shutil.rmtree(top, ignore_errors=True)


def _first_process(parent: subprocess.Popen[bytes], log: Path) -> int:
    """Nothing tells when unshare has forked, and when its child has become systemd."""
    deadline = time.monotonic() + _BOOT_TIMEOUT
    while time.monotonic() < deadline and parent.poll() is None:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            return int(children[0])
        time.sleep(0.05)
    raise StageError(f"the machine does not start:\n{log.read_text(errors='replace')}")


def _await_boot(machine: Machine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _BOOT_TIMEOUT
    while machine.run("systemctl", "is-system-running", check=False).stdout.strip() != "running":
        if time.monotonic() > deadline or process.poll() is not None:
            raise StageError(f"systemd does not come up:\n{machine.log()}")
        time.sleep(0.05)
