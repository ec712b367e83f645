"""The systemd unit, by a systemd of its own: installed, started, restarted and hardened as docs/install.md says."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.documented import documented
from tests.support import machine, outside
from tests.support.cluster import Cluster
from tests.support.machine import Machine
from tests.support.running import CHECKOUT

UNIT = "velda-apiserver"
FILE = CHECKOUT / "deploy" / "systemd" / "velda-apiserver.service"
CONFIG = "/etc/velda/velda-config.yaml"
SPEC = {
    "autoscaler": {"minIdle": 1, "maxIdle": 1, "maxReplicas": 1},
    "template": {
        "metadata": {"labels": {"app": "shell"}},
        "spec": {"containers": [{"name": "agent", "image": "veldaio/agent:latest"}]},
    },
}
QUICK = "[Service]\nWatchdogSec=5\nRestartSec=0\n"
"""The watchdog's half minute, and the pause between two starts, made short."""
MOST_EXPOSURE = 15
"""Of the 100 that systemd-analyze gives a unit without any hardening."""


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> str:
    cluster.install_crd()
    return cluster.namespace()


@pytest.fixture(scope="module")
def host(cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With the service running, installed by the documentation's own commands."""
    if reason := machine.obstacle():
        pytest.skip(f"no machine for systemd here: {reason}")
    with machine.booted(tmp_path_factory.mktemp("systemd")) as host:
        install, start, _ = documented("systemd")
        host.write("/root/.kube/config", cluster.kubeconfig.read_text())
        host.write(f"/etc/systemd/system/{UNIT}.service.d/quick.conf", QUICK)
        for command in install:
            host.run("sh", "-ec", command)
        host.write(CONFIG, yaml.safe_dump(outside.configuration(namespace=namespace)))
        for command in start:
            host.run("sh", "-ec", command)
        yield host


def until(value: Callable[[], object], wanted: object, *, seconds: float = 30) -> None:
    """systemd tells nobody of what it has noticed."""
    deadline = time.monotonic() + seconds
    while (found := value()) != wanted:
        assert time.monotonic() < deadline, f"{found!r} is not {wanted!r}"
        time.sleep(0.1)


def test_systemd_finds_nothing_wrong_with_the_unit_and_little_that_it_could_do(tmp_path: Path) -> None:
    if not machine.SYSTEMD.exists():
        pytest.skip("systemd is not installed")
    unit = tmp_path / FILE.name
    unit.write_text(FILE.read_text().replace("/opt/velda/venv/bin/velda-apiserver", "/bin/true"))
    for check in (["verify", "--man=no"], ["security", "--offline=true", f"--threshold={MOST_EXPOSURE}"]):
        done = subprocess.run(["systemd-analyze", *check, str(unit)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_it_is_up_once_systemctl_start_returns_and_makes_the_pools_pods(
    host: Machine, cluster: Cluster, namespace: str
) -> None:
    assert host.show(UNIT, "ActiveState") == "active"
    assert host.run("systemctl", "is-enabled", UNIT).stdout.strip() == "enabled"
    leads(host)
    pool = {"apiVersion": "velda.io/v1", "kind": "AgentPool", "metadata": {"name": "shell"}, "spec": SPEC}
    cluster.kubectl("apply", f"--namespace={namespace}", "--filename=-", input=json.dumps(pool))
    cluster.kubectl("wait", "agentpool/shell", f"--namespace={namespace}", "--for=jsonpath={.status.replicas}=1")


def test_it_has_no_rights_that_it_does_not_need(host: Machine) -> None:
    status = dict(line.split(":\t", 1) for line in host.run("cat", f"/proc/{pid(host)}/status").stdout.splitlines())
    uid = host.run("id", "--user", UNIT).stdout.strip()
    assert (status["Uid"].split(), status["NoNewPrivs"], status["Seccomp"]) == ([uid] * 4, "1", "2")
    assert {int(status[kind], 16) for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert host.show(UNIT, "MemoryDenyWriteExecute") == "yes"
    stranger = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    assert host.run(*stranger, "cat", "/etc/velda/kubeconfig", check=False).returncode == 1


def test_restart_takes_the_context_that_is_current_then(host: Machine) -> None:
    before = pid(host)
    host.run("sh", "-ec", documented("systemd")[2][1])
    leads(host)
    assert pid(host) != before
    good = host.run("cat", "/etc/velda/kubeconfig").stdout
    document = yaml.safe_load(good)
    cluster_name = document["contexts"][0]["context"]["cluster"]
    document["contexts"].append({"name": "nobody", "context": {"cluster": cluster_name, "user": "nobody"}})
    host.write("/etc/velda/kubeconfig", yaml.safe_dump({**document, "current-context": "nobody"}))
    assert host.run("systemctl", "restart", UNIT, check=False).returncode == 1
    assert "the current context of /etc/velda/kubeconfig cannot be used" in host.log()
    host.write("/etc/velda/kubeconfig", good)
    host.run("systemctl", "restart", UNIT)
    leads(host)


def test_reload_reads_the_log_levels_again(host: Machine) -> None:
    before = pid(host)
    configuration = yaml.safe_load(host.run("cat", CONFIG).stdout)
    host.write(CONFIG, yaml.safe_dump({**configuration, "log": {"level": "debug"}}))
    host.run("sh", "-ec", documented("systemd")[2][0])
    until(lambda: '"log levels changed"' in host.log(), True)
    assert pid(host) == before


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_one_that_ends_or_hangs_is_started_again(host: Machine, signal: str) -> None:
    leads(host)
    before, restarts = pid(host), int(host.show(UNIT, "NRestarts"))
    host.run("kill", f"-{signal}", before)
    until(lambda: int(host.show(UNIT, "NRestarts")), restarts + 1)
    leads(host)
    assert pid(host) != before


def test_it_stops_in_order_and_gives_up_the_lease(host: Machine, cluster: Cluster, namespace: str) -> None:
    host.run("systemctl", "stop", UNIT)
    assert (host.show(UNIT, "Result"), host.show(UNIT, "ExecMainStatus")) == ("success", "0"), host.log()
    assert not cluster.get("lease", "velda-apiserver", f"--namespace={namespace}")["spec"].get("holderIdentity")


def leads(host: Machine) -> None:
    until(lambda: host.show(UNIT, "StatusText"), "leading")


def pid(host: Machine) -> str:
    return host.show(UNIT, "MainPID")
