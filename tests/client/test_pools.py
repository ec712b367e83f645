"""pool list and watch, against a real server."""

from __future__ import annotations

import json

from tests.client.serving import Place


async def test_list(served: Place) -> None:
    served.pool("gpu")
    names = (await served.run("pool", "list", "-o", "name")).out.split()
    assert sorted(names) == ["cpu", "gpu"]
    rows = (await served.run("pool", "list")).out.splitlines()
    assert rows[0].split() == ["NAME", "NAMESPACE", "ALLOCATION", "ERROR"]
    assert [row.split() for row in sorted(rows[1:])] == [[name, served.namespace, "-"] for name in ("cpu", "gpu")]
    assert (await served.run("pool", "list", "-o", "wide")).out.splitlines()[0].split()[-1] == "SINCE"
    found = (await served.run("pool", "list", "-o", "json", "-n", served.namespace)).json
    assert [pool["description"] for pool in found["pools"]] == [f"{served.namespace}/{name}" for name in ("cpu", "gpu")]
    done = await served.run("pool", "list", "-n", "another")
    assert (done.code, done.out) == (3, "")
    assert 'may not list agentpools.velda.io in the namespace "another"' in done.error


async def test_list_a_namespace_that_has_no_pool_yet(place: Place) -> None:
    async with place.server():
        done = await place.run("pool", "list", "-o", "json", "-n", place.namespace)
        assert (done.code, done.json) == (0, {"pools": []})
        done = await place.run("pool", "list")
        assert done.code == 3
        assert "name one whose pools you may list" in done.error


async def test_watch_until_the_pool_is_gone(served: Place) -> None:
    served.forbid_pods()
    name = f"{served.namespace}/cpu"
    watching = await served.start("pool", "watch", name, "-o", "json")
    first = json.loads(await watching.prints())
    assert (first["pool"], first["autoscalerStatus"]["lastAllocationError"]) == (name, "")
    waiting = await served.start("session", "run", "cpu")
    assert "quota" in json.loads(await watching.prints())["autoscalerStatus"]["lastAllocationError"]
    (row,) = (await served.run("pool", "list", "-o", "wide")).out.splitlines()[1:]
    assert "quota" in row
    plain = await served.start("pool", "watch", name)
    assert f"  {name}  " in (line := await plain.prints())
    assert "quota" in line
    served.cluster.kubectl("delete", "agentpool", "cpu", f"--namespace={served.namespace}")
    for command in (watching, plain):
        done = await command.done()
        assert (done.code, done.error) == (1, f'velda-apiserver: there is no pool "{name}"\n')
    assert (await waiting.done()).code == 1


async def test_a_watch_goes_on_with_the_next_server(place: Place) -> None:
    name = place.pool()
    async with place.server():
        watching = await place.start("pool", "watch", name)
        assert "no allocation error" in await watching.prints()
    await watching.says("trying again")
    async with place.server():
        place.cluster.kubectl("delete", "agentpool", "cpu", f"--namespace={place.namespace}")
        done = await watching.done()
    assert (done.code, done.out) == (1, "")
