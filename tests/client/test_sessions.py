"""session run, list and kill, against a real server."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from tests.client.serving import Done, Place, other_authority


async def listed(place: Place) -> list[dict[str, Any]]:
    done = await place.run("session", "list", "-o", "json")
    assert done.code == 0, done.error
    found = done.json["sessions"]
    assert isinstance(found, list)
    return found


async def until_listed(place: Place, *statuses: str) -> list[dict[str, Any]]:
    """Poll: nothing tells a client of sessions."""
    async with asyncio.timeout(30):
        found = await listed(place)
        while [session["status"] for session in found] != list(statuses):
            await asyncio.sleep(0.05)
            found = await listed(place)
    return found


async def test_run_list_and_kill(served: Place) -> None:
    async with served.agent("cpu") as agent:
        options = ("--label=l", "--tag=owner=me", "--tag=note=a=b", "--priority=-3", "--service=web")
        done = await served.run("session", "run", "cpu", "--session-id=mine", *options)
        assert done.code == 0, done.error
        heads, cells = (line.split() for line in done.out.splitlines())
        assert heads == ["SESSION", "HOST", "PORT"]
        assert cells == ["mine", "127.0.0.1", str(agent.sessions["mine"].port)]
        assert agent.sessions["mine"].request.priority == -3

        (session,) = await listed(served)
        assert (session["sessionId"], session["status"]) == ("mine", "STATUS_RUNNING")
        assert (session["labels"], session["tags"]) == (["l"], {"owner": "me", "note": "a=b"})
        wide = (await served.run("session", "list", "-o", "wide")).out.splitlines()
        user = f"system:serviceaccount:{served.namespace}:session-user"
        assert wide[0].split() == ["SESSION", "POOL", "STATUS", "SERVICE", "USER", "ADDRESS", "LABELS", "TAGS"]
        pool = session["pool"]
        assert wide[1].split() == ["mine", pool, "RUNNING", "web", user, "127.0.0.1", "l", "note=a=b,owner=me"]
        assert (await served.run("session", "list")).out.split()[5:] == wide[1].split()[:5]
        assert (await served.run("session", "list", "-o", "name")).out == "mine\n"
        assert (await served.run("session", "list", "--service=other", "-o", "name")).out == ""
        assert (await served.run("session", "list", "--instance-id=2", "-o", "name")).out == ""

        done = await served.run("session", "kill", "mine")
        assert (done.code, done.out) == (0, 'session "mine" is told to end\n')
        await until_listed(served)


async def test_a_service_has_one_session_unless_a_new_one_is_asked_for(served: Place) -> None:
    async with served.agent("cpu"), served.agent("cpu", "b"), served.agent("cpu", "c"):
        first = await served.run("session", "run", "cpu", "--service=web", "-o", "name")
        assert (await served.run("session", "run", "cpu", "--service=web", "-o", "name")).out == first.out
        other = await served.run("session", "run", "cpu", "--service=web", "--new", "-o", "json")
        assert other.json["sessionId"] != first.out.strip()
        assert other.json["status"] == "STATUS_RUNNING"
        assert other.json["sshConnection"]["host"] == "127.0.0.1"
        done = await served.run("session", "kill", "--service=web", "--force")
        assert (done.code, done.out) == (0, 'service "web" is told to end\n')
        await until_listed(served)


async def test_who_waits_is_told_why_until_an_agent_comes(served: Place) -> None:
    served.forbid_pods()
    waiting = await served.start("session", "run", f"{served.namespace}/cpu", "--session-id=s")
    await waiting.says(f"waiting for an agent of pool {served.namespace}/cpu")
    await waiting.says("quota")
    assert [(session["sessionId"], session["status"]) for session in await listed(served)] == [("s", "STATUS_QUEUEING")]
    async with served.agent("cpu"):
        done = await waiting.done()
    assert (done.code, done.out.split()[3]) == (0, "s")


async def test_ctrl_c_gives_up_the_place_in_the_queue(served: Place) -> None:
    waiting = await served.start("session", "run", "cpu")
    await until_listed(served, "STATUS_QUEUEING")
    waiting.process.send_signal(signal.SIGINT)
    done = await waiting.done()
    assert (done.code, done.out) == (130, "")
    assert "Traceback" not in done.error
    await until_listed(served)


async def test_so_does_the_end_of_the_time(served: Place) -> None:
    done = await served.run("session", "run", "cpu", "--timeout=2")
    assert (done.code, done.out) == (4, "")
    assert 'pool "cpu": no agent took the session within 2 s' in done.error
    await until_listed(served)


async def test_a_queued_request_outlives_the_server(place: Place) -> None:
    place.pool()
    async with place.server():
        waiting = await place.start("session", "run", "cpu", "-o", "json")
        (session,) = await until_listed(place, "STATUS_QUEUEING")
    await waiting.says("trying again")
    async with place.server(), place.agent("cpu") as agent:
        done = await waiting.done()
        assert (done.code, done.json["sessionId"]) == (0, session["sessionId"])
        assert list(agent.sessions) == [session["sessionId"]]
        await until_listed(place, "STATUS_RUNNING")


def refused(done: Done, code: int, *words: str) -> None:
    assert (done.code, done.out) == (code, "")
    (line,) = (line for line in done.error.splitlines() if not line.startswith(("waiting for", "still waiting for")))
    for word in ("velda-apiserver: ", *words):
        assert word in line


async def test_what_is_not_there(served: Place) -> None:
    refused(await served.run("session", "run", f"{served.namespace}/gpu"), 1, f'no pool "{served.namespace}/gpu"')
    done = await served.run("session", "kill", "one", "two")
    assert (done.code, done.out) == (1, "")
    assert [f'"{name}"' in done.error for name in ("one", "two")] == [True, True]
    assert await listed(served) == []


async def test_without_the_right(served: Place) -> None:
    viewer = {"VELDA_TOKEN_FILE": str(served.directory / "viewer.token")}
    words = ("may not create agentpools/session.velda.io", "cpu")
    refused(await served.run("session", "run", f"{served.namespace}/cpu", **viewer), 3, *words)
    assert await listed(served) == []
    assert (await served.run("session", "list", **viewer)).code == 0


async def test_with_a_token_that_is_none(served: Place, tmp_path: Path) -> None:
    (path := tmp_path / "bad").write_text("s3cret\n")
    done = await served.run("session", "run", "cpu", f"--token-file={path}")
    refused(done, 3, "kubectl create token")
    assert "s3cret" not in done.error + served.log.read_text()
    assert await listed(served) == []


async def test_with_the_certificate_of_the_kubeconfig(served: Place) -> None:
    kubeconfig = f"--kubeconfig={served.cluster.kubeconfig}"
    async with served.agent("cpu"):
        done = await served.run("session", "run", "cpu", kubeconfig, VELDA_TOKEN_FILE="")
    assert done.code == 0, done.error


async def test_a_server_that_is_not_verified_gets_no_token(served: Place, tmp_path: Path) -> None:
    done = await served.run("session", "list", f"--ca={other_authority(served.cluster, tmp_path / 'other.crt')}")
    refused(done, 4, served.url, "--ca")
    assert "request refused" not in served.log.read_text()


async def test_where_nobody_listens(place: Place) -> None:
    (place.directory / "ca.crt").write_text("")
    refused(await place.run("session", "list"), 2, "--ca", "ca.crt")
    place.environment["VELDA_CA"] = ""
    refused(await place.run("session", "list"), 4, place.url, "does not answer")
    done = await place.run("session", "run", "cpu", "--timeout=1")
    assert done.code == 4
    assert "trying again" in done.error
    refused(await place.run("session", "list", "--server=https://no-such-host.invalid"), 4, "no-such-host.invalid")
