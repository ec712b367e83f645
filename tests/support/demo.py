"""``make demo``: the product's story in the terminal, each step with what it proves.

On the node stage where the machine allows it (real containers), else on the fleet stage (the same server as a local
process, an agent for every worker pod). With ``CLUSTER=current`` on the cluster of the current kubectl context.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from rich.console import Console
from rich.rule import Rule

from app.obs.progress import SOON, waiting
from app.proto import velda_pb2
from tests.e2e.product import EXAMPLES, NAMESPACE, Product, Sessions
from tests.support import isolation, node_tools
from tests.support.cluster import Fleet, Isolated, NodeStage, stage_process
from tests.support.process import StageError, free_port
from tests.support.stage import prepare
from tests.support.tools import ToolError, tool

POOLS = {"cpu-pool": 3, "gpu-pool": 1, "shell": 1}
"""The documentation's pools, with the agents that each has when nothing happens."""
USER = "ada"
DENIED = 2.5
"""Seconds after which the server asks again for a right that it was told there is not."""
BURST = 3
DECAY = 2
console = Console(highlight=False, soft_wrap=True)


class CurrentCluster(Isolated):
    """The user's own; the broker is reached by a port that kubectl forwards."""


def main() -> int:
    try:
        with _cluster() as cluster:
            started = time.monotonic()
            real = set(POOLS) if isinstance(cluster, Fleet | NodeStage) else {"shell"}
            asyncio.run(_story(Product(cluster), real=real))
            console.print(f"\n[green]All of it in {time.monotonic() - started:.0f} s, and nothing is left.[/]")
    except (StageError, ToolError, AssertionError, grpc.aio.AioRpcError, TimeoutError) as error:
        console.print(f"[red]The demo failed:[/] {error}")
        return 1
    return 0


@contextlib.contextmanager
def _cluster() -> Iterator[Isolated]:
    if os.environ.get("CLUSTER") == "current":
        console.print("On the cluster of the current kubectl context; the image must be one that it can pull.")
        kubeconfig = Path(os.environ.get("KUBECONFIG", "~/.kube/config").split(":")[0]).expanduser()
        yield CurrentCluster(kubeconfig=kubeconfig, directory=kubeconfig.parent)
        return
    stage: str
    kind: type[Isolated]
    obstacle = node_tools.obstacle()
    if not obstacle:
        stage, kind = "node", NodeStage
        console.print(
            "On a one-node Kubernetes with real containers, and fake nodes for what this machine is too small for."
        )
    elif reason := isolation.obstacle():
        raise StageError(f"neither stage can run here: {obstacle}; {reason}")
    else:
        stage, kind = "fleet", Fleet
        console.print(f"No real containers here ({obstacle}): the server is a local process, agents are tasks.")
    prepare(stage)
    with contextlib.ExitStack() as stack:
        with waiting(f"waiting for the {stage} stage to be up", after=SOON):
            description = stack.enter_context(stage_process(stage))
        yield kind(kubeconfig=Path(description["kubeconfig"]), directory=Path(description["directory"]))


async def _story(product: Product, *, real: set[str]) -> None:
    installed = False
    try:
        _install(product)
        installed = True
        _refuse(product)
        _apply(product, real)
        with _broker(product) as target:
            async with Sessions(target, token=await _enter(product, target)) as sessions:
                await _burst(product, sessions)
        _delete(product)
    finally:
        if installed:
            _uninstall(product)


def _install(product: Product) -> None:
    _step(
        "Install", "helm install: CRD, webhooks with their own certificate, controller, broker; --wait means it serves"
    )
    existing = product.kubectl("get", "agentpools", "--all-namespaces", check=False)
    if existing.returncode == 0 and existing.stdout.strip():
        raise StageError("this cluster has AgentPools already: the demo installs and removes the CRD, so it stops here")
    _show(f"helm install velda chart/ --namespace {NAMESPACE} --create-namespace --wait")
    product.install()
    _kubectl(product, "get", "pods,services", f"--namespace={NAMESPACE}")


def _refuse(product: Product) -> None:
    _step("A bad pool", "is refused at kubectl apply, with every field that is wrong, before anything runs")
    text = (EXAMPLES / "shell.yaml").read_text(encoding="utf-8")
    bad = text.replace("--pool=shell", "--pool=sheII").replace("veldaio/agent:latest", "Veldaio/agent latest")
    _show("kubectl apply -f bad-pool.yaml")
    done = product.kubectl("apply", "-f", "-", input=bad, check=False)
    assert done.returncode != 0, "the bad pool was taken"
    console.print(done.stderr.strip(), style="yellow", markup=False)


def _apply(product: Product, real: set[str]) -> None:
    _step(
        "The documentation's pools", "exactly as it writes them; worker pods appear and their agents join by themselves"
    )
    for name in ("velda-config", *POOLS):
        _kubectl(product, "apply", "-f", str((EXAMPLES / f"{name}.yaml").relative_to(EXAMPLES.parent)))
    for name, agents in POOLS.items():
        if name in real:
            product.wait(name, namespace="default", idleReplicas=agents, timeout=90)
    _kubectl(product, "get", "pods", "-o", "wide", "--namespace=default")
    _kubectl(product, "get", "ap", "--namespace=default")


async def _enter(product: Product, target: str) -> str:
    """A user's bearer token."""
    _step("A user", "sessions are for whom RBAC lets have them: a role, and a token by kubectl; without, there is a no")
    _kubectl(product, "create", "serviceaccount", USER, "--namespace=default")
    token = product.kubectl("create", "token", USER, "--namespace=default").stdout.strip()
    _show(f"kubectl create token {USER} --namespace=default")
    async with Sessions(target, token=token) as sessions:
        try:
            await sessions.run("shell")
        except grpc.aio.AioRpcError as error:
            console.print(f"{error.code().name}: {error.details()}", style="yellow", markup=False)
        else:
            raise AssertionError("a session was given to a user without any right")
    role = ("--clusterrole=velda-session-user", f"--serviceaccount=default:{USER}")
    _kubectl(product, "create", "rolebinding", USER, *role, "--namespace=default")
    await asyncio.sleep(DENIED)
    return token


async def _burst(product: Product, sessions: Sessions) -> None:
    _step(
        "A burst of sessions",
        f"{BURST} at once on the shell pool: the idle agent takes one, the others wait for new agents",
    )
    began = time.monotonic()
    requests = [sessions.request("shell", timeout=60) for _ in range(BURST)]
    running: list[velda_pb2.ExecutionStatus] = []
    for request in asyncio.as_completed(requests):
        session = await request
        running.append(session)
        where = f"{session.ssh_connection.host}:{session.ssh_connection.port}"
        console.print(f"  session {session.session_id[:8]} runs at {where} after {time.monotonic() - began:.2f} s")
    await asyncio.to_thread(
        product.wait, "shell", namespace="default", runningReplicas=BURST, idleReplicas=1, timeout=60
    )
    _kubectl(product, "get", "ap", "shell", "--namespace=default")
    _step(
        "Idle decay",
        f"the sessions end; what minIdle does not need goes one by one (idleDecaySecond shortened to {DECAY})",
    )
    patch = f'{{"spec": {{"autoscaler": {{"idleDecaySecond": {DECAY}}}}}}}'
    _kubectl(product, "patch", "agentpool", "shell", "--namespace=default", "--type=merge", "-p", patch)
    for session in running:
        await sessions.end(session)
    await asyncio.to_thread(product.wait, "shell", namespace="default", replicas=1, idleReplicas=1, timeout=60)
    _kubectl(product, "get", "events", "--namespace=default", "--field-selector=involvedObject.name=shell", *_EVENTS)


_EVENTS = ("-o", "custom-columns=REASON:.reason,COUNT:.count,MESSAGE:.message", "--sort-by=.lastTimestamp")


def _delete(product: Product) -> None:
    _step("Delete", "kubectl delete ends sessions and agents in order; no pod and no finalizer is left")
    _kubectl(product, "delete", "agentpool", "--all", "--namespace=default", "--timeout=60s")
    left = product.stage.get("pods", "--namespace=default", "--selector=velda.io/pool")["items"]
    assert left == [], "worker pods are left"
    _kubectl(product, "get", "pods", "--namespace=default", "--selector=velda.io/pool")


def _uninstall(product: Product) -> None:
    for kind in ("rolebinding", "serviceaccount"):
        product.kubectl("delete", kind, USER, "--namespace=default", "--ignore-not-found")
    _step("Uninstall", "no webhook configuration, no CRD, nothing in the way")
    product.kubectl("delete", "-f", str(EXAMPLES / "velda-config.yaml"), "--ignore-not-found")
    _show(f"helm uninstall velda --namespace {NAMESPACE}")
    product.stage.helm("uninstall", "velda", f"--namespace={NAMESPACE}", "--wait", "--timeout=90s")
    product.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
    kinds = "customresourcedefinitions,validatingwebhookconfigurations,mutatingwebhookconfigurations,clusterroles"
    names = [item["metadata"]["name"] for item in product.stage.get(kinds)["items"]]
    assert [name for name in names if "velda" in name] == [], "something of the release is left"


@contextlib.contextmanager
def _broker(product: Product) -> Iterator[str]:
    """What gRPC dials."""
    if not isinstance(product.stage, CurrentCluster):
        yield product.broker
        return
    port = free_port()
    command = [str(tool("kubectl")), "port-forward", f"-n={NAMESPACE}", "service/velda-apiserver", f"{port}:50051"]
    environment = {**os.environ, "KUBECONFIG": str(product.stage.kubeconfig)}
    forward = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        forward.stdout.readline()  # it says so once it listens
        yield f"127.0.0.1:{port}"
    finally:
        forward.terminate()
        forward.wait()


def _kubectl(product: Product, *args: str) -> None:
    _show(f"kubectl {' '.join(args)}")
    done = product.kubectl(*args)
    console.print((done.stdout or done.stderr).rstrip(), markup=False)


def _step(title: str, proof: str) -> None:
    console.print()
    console.print(Rule(title, align="left", style="cyan"))
    console.print(f"[dim]{proof}[/]")


def _show(command: str) -> None:
    console.print(f"[bold]$ {command}[/]")


if __name__ == "__main__":
    sys.exit(main())
