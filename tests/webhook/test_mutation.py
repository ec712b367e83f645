"""The patch leads exactly to what the controller would have made, and there is none where nothing lacks."""

from __future__ import annotations

import json
from typing import Any

import jsonpatch
import pytest

from app.core.injection import inject
from app.core.proofs import TokenProof
from app.settings import Agents
from app.webhook.review import Answer, MalformedError
from tests.webhook.questions import PODS, Api, admission, pool, question


def pod(**metadata: Any) -> dict[str, Any]:
    labels = {"velda.io/pool": "cpu"}
    containers = [{"name": "sidecar"}, {"name": "agent", "image": "x", "args": ["-v"]}]
    return {"metadata": {"name": "a", "labels": labels, **metadata}, "spec": {"containers": containers}}


async def decide(value: Any, *, agentpools: bool = False, **request: Any) -> Answer:
    asked = question(value, **{"resource": PODS, **request})
    return await admission(Api(), mutate_agentpools=agentpools).mutate(asked)


def patched(value: Any, answer: Answer) -> Any:
    assert answer.allowed
    return jsonpatch.apply_patch(value, json.loads(answer.patch or b"[]"))


async def test_a_labelled_pod_is_injected() -> None:
    answer = await decide(pod())
    assert answer.patch_type == "JSONPatch"
    assert patched(pod(), answer) == inject(pod(), pool="cpu", config_map="velda-config")


async def test_a_labelled_pod_gets_what_agents_prove_themselves_by() -> None:
    agents = Agents(authentication="token", token_audience="a", token_seconds=700)
    answer = await admission(Api(), agents=agents).mutate(question(pod(), resource=PODS))
    assert patched(pod(), answer) == inject(pod(), pool="cpu", config_map="velda-config", proof=TokenProof("a", 700))


async def test_a_pod_that_has_no_name_yet() -> None:
    value = pod(generateName="a-")
    del value["metadata"]["name"]
    assert patched(value, await decide(value)) == inject(value, pool="cpu", config_map="velda-config")


async def test_the_pods_annotation_names_the_config_map() -> None:
    value = pod(annotations={"velda.io/config-map": "mine"})
    assert patched(value, await decide(value))["spec"]["volumes"][0]["configMap"] == {"name": "mine"}


@pytest.mark.parametrize(
    ("value", "request_"),
    [
        (inject(pod(), pool="cpu", config_map="velda-config"), {}),
        (pod(labels={"app": "x"}), {}),
        (pod(labels=None), {}),
        (pod(labels={"velda.io/pool": ""}), {}),
        (pod(), {"operation": "UPDATE", "old": pod()}),
        (pod(), {"operation": "CONNECT", "subResource": "exec"}),
        ({"metadata": {"labels": {"velda.io/pool": "cpu"}}, "spec": {"containers": "none"}}, {}),
        ({"spec": None}, {}),
        (pool(), {"resource": {"group": "velda.io", "version": "v1", "resource": "agentpools"}}),
    ],
)
async def test_no_patch(value: Any, request_: dict[str, Any]) -> None:
    answer = await decide(value, **request_)
    assert (answer.allowed, answer.patch, answer.patch_type) == (True, b"", "")


@pytest.mark.parametrize("value", [None, [], "pod"])
async def test_an_object_that_is_no_pod_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        await decide(value)


AGENTPOOLS = {"group": "velda.io", "version": "v1", "resource": "agentpools"}


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
async def test_agent_pools_are_injected_where_the_settings_say_so(operation: str) -> None:
    value = pool(annotations={"velda.io/config-map": "mine"})
    answer = await decide(value, agentpools=True, resource=AGENTPOOLS, operation=operation)
    result = patched(value, answer)
    assert result["spec"]["template"] == inject(value["spec"]["template"], pool="cpu", config_map="mine")
    assert {**result, "spec": value["spec"]} == value
    again = await decide(result, agentpools=True, resource=AGENTPOOLS, operation=operation)
    assert again.patch == b""


async def test_an_agent_pool_that_is_not_good_is_left_to_validation() -> None:
    value = {**pool(), "spec": {"template": {"spec": {"containers": "x"}}}}
    answer = await decide(value, agentpools=True, resource=AGENTPOOLS)
    assert (answer.allowed, answer.patch) == (True, b"")
