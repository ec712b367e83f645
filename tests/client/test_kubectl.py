"""The real kubectl, on a pool that a real server keeps: get, describe, and our plugin."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.client.serving import Place
from tests.support.tools import tool

SCRIPTS = Path(sys.executable).parent
"""Where installing the project puts kubectl-velda."""


async def kubectl(place: Place, *args: str, code: int = 0) -> str:
    """As a user who has installed the project runs it; what it printed."""
    environment = {
        **os.environ,
        **place.environment,
        "KUBECONFIG": str(place.cluster.kubeconfig),
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    command = [str(tool("kubectl")), *args]
    run = asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120)
    done = await run
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout)


BLOCKED = (
    "velda-apiserver The pool takes sessions: ",
    "CreateFailed",
    "exceeded quota: none",
    "next try in",
    "1 session waits, 0 slots are idle or on their way, minIdle is 0",
    "Type: Ready",
    "Type: Stalled",
    "Rule: backOff",
    "Cause: quota",
    "Next Time:",
)
"""What ``kubectl describe`` says of a pool to which the quota allows no agent."""


async def test_get_and_describe_explain_each_decision(served: Place) -> None:
    where = f"--namespace={served.namespace}"
    async with served.agent("cpu"):
        await kubectl(served, "wait", "agentpool/cpu", where, "--for=condition=Ready", "--timeout=60s")
        first = await served.run("session", "run", "cpu")
        assert first.code == 0
        served.forbid_pods()
        second = await served.start("session", "run", "cpu")
        await second.says("still waiting")
        for field, value in (("pendingSessions", "1"), ("lastError.cause", "quota")):
            await kubectl(
                served, "wait", "ap/cpu", where, f"--for=jsonpath={{.status.{field}}}={value}", "--timeout=60s"
            )
        await _until_told(served, where, "CreateFailed")
        await _until_says(served, BLOCKED, "describe", "ap", "cpu", where)
        wide = await _until_says(served, ("backOff", "exceeded quota"), "get", "ap", where, "-o", "wide")
        row = await kubectl(served, "get", "ap", where)
        second.process.terminate()
        await second.done()
    _every_line_of_a_reconcile_has_its_id(served)
    assert row.split()[:8] == ["NAME", "AGENTS", "IDLE", "RUNNING", "PENDING", "QUEUED", "READY", "AGE"]
    heads, values = [line.split() for line in wide.splitlines()]
    assert heads[7:] == ["MIN", "MAX", "IDLE", "SLOTS", "UNKNOWN", "RULE", "REASON", "AGE"]
    assert values[:6] == ["cpu", "0", "0", "0", "0", "1"]


def _every_line_of_a_reconcile_has_its_id(served: Place) -> None:
    said = served.log.read_text()
    lines = [line for text in said.splitlines() if (line := json.loads(text)).get("pool")]
    refused = [line for line in lines if line["event"] == "no agent"]
    assert refused
    for line in refused:
        assert (line["pool"], line["namespace"]) == (f"{served.namespace}/cpu", served.namespace)
        assert re.fullmatch("[0-9a-f]{8}", line["reconcile_id"])
    assert (served.directory / "session-user.token").read_text() not in said


async def _until_told(place: Place, where: str, reason: str) -> None:
    """Until there is an event of that reason."""
    about = f"--field-selector=involvedObject.name=cpu,reason={reason}"
    for _ in range(100):
        if await kubectl(place, "get", "events", where, about, "-o", "name"):
            return
        await asyncio.sleep(0.2)  # kubectl cannot wait for an object that has no name yet
    pytest.fail(f"no event {reason}")


async def _until_says(place: Place, words: Sequence[str], *args: str) -> str:
    """Until kubectl prints all the words; each time that the back-off ends, a try is under way for a moment."""
    for _ in range(60):
        said = await kubectl(place, *args)
        if not (missing := [word for word in words if word not in " ".join(said.split())]):
            return said
        await asyncio.sleep(0.2)  # kubectl waits for no text
    pytest.fail(f"{missing} not in {said}")


async def test_the_plugin(served: Place) -> None:
    assert f"{SCRIPTS}/kubectl-velda" in await kubectl(served, "plugin", "list", code=0)
    assert (await kubectl(served, "velda", "pool", "list", "-o", "name")) == "cpu\n"
    async with served.agent("cpu"):
        session = (await kubectl(served, "velda", "session", "run", "cpu", "-o", "name")).strip()
        assert session in await kubectl(served, "velda", "session", "list")
        await kubectl(served, "velda", "session", "kill", session)
    assert "has 0 agents" in await kubectl(served, "velda", "explain", f"{served.namespace}/cpu")
    (bad := served.directory / "bad.yaml").write_text("apiVersion: velda.io/v1\nkind: AgentPool\n")
    assert "bad.yaml:1:1: error: spec: Required value" in await kubectl(served, "velda", "check", str(bad), code=1)
    assert "Usage: kubectl velda pool" in await kubectl(served, "velda", "pool", "--help")


async def test_its_completion(place: Place) -> None:
    async def offered(*words: str) -> list[str]:
        return (await kubectl(place, "__complete", "velda", *words)).splitlines()

    assert await offered("") == ["explain", "check", "pool", "session", ":4"]
    assert await offered("session", "k") == ["kill", ":4"]
    assert await offered("pool", "list", "-o", "") == ["table", "wide", "json", "name", ":4"]
    assert "--release-namespace" in await offered("pool", "list", "--")
    assert await offered("check", "") == [":0"], "the shell offers files"
