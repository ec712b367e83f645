"""Whatever is posted to the webhooks gets a well-formed answer or 400, soon, and no larger than it must be."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.validation import MOST_ERRORS
from app.settings import Agents
from app.webhook.routes import router
from tests.fuzz import documents
from tests.fuzz.mutations import NESTED, texts
from tests.webhook.questions import PODS, Api, admission, pool, review

ANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
REVIEWS = documents.reviews()
LARGEST = 3 << 20
"""Bytes of a request that the API server takes, and we."""
SECONDS = 20.0
"""A hundred times what the slowest takes: what has no end is to be found, not a slow machine."""

app = FastAPI()
app.include_router(router(admission(Api(), agents=Agents(authentication="token"), mutate_agentpools=True)))


def ask(path: str, body: bytes) -> httpx.Response:
    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://webhook") as client:
            return await client.post(path, content=body)

    began = time.monotonic()
    answer = asyncio.run(post())
    assert time.monotonic() < began + SECONDS
    return answer


def well_formed(answer: httpx.Response) -> Any:
    """The response in the review; None for a 400, which says why."""
    if answer.status_code == 400:
        assert answer.text.strip()
        return None
    assert answer.status_code == 200
    document = answer.json()
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = document["response"]
    assert response["uid"]
    if not response["allowed"]:
        assert response["status"]["code"] in (403, 422)
        assert response["status"]["message"]
    assert all(len(warning) <= 120 for warning in response.get("warnings", ()))
    return response


def any_review(path: str, kind: str) -> Any:
    """The property of one webhook and one kind of review."""

    @ANY
    @given(text=texts(REVIEWS[kind], keys=documents.KEYS))
    def check(text: str) -> None:
        well_formed(ask(path, text.encode()))

    return check


@pytest.mark.parametrize(
    ("path", "kind"), [("/validate", "create"), ("/validate", "update"), ("/mutate", "create"), ("/mutate", "pod")]
)
def test_any_review_is_answered(path: str, kind: str) -> None:
    any_review(path, kind)()


@ANY
@given(body=st.binary() | texts(REVIEWS["create"]).map(lambda text: text.encode()[:-7]))
def test_what_is_no_json_is_400(body: bytes) -> None:
    assert ask("/validate", body).status_code == 400


@pytest.mark.parametrize("path", ["/validate", "/mutate"])
@pytest.mark.parametrize("where", ["spec", "template", "pod"])
def test_no_depth_is_too_deep_for_an_answer(path: str, where: str) -> None:
    """At some depth decoding still works, and what comes after it does not."""
    deep: Any = "mark"
    if where == "pod":
        body = review({**documents.pod(), "x": deep}, resource=PODS)
    else:
        value = documents.pool()
        (value["spec"] if where == "spec" else value["spec"]["template"]["spec"])["x"] = deep
        body = review(value)
    for depth in (10, 100, *range(300, 1000, 25), *range(900, 1000, 3)):
        for left, right in (("[", "]"), ('{"a":', "}")):
            well_formed(ask(path, body.replace(b'"mark"', f"{left * depth}1{right * depth}".encode())))
    for nested in NESTED:
        well_formed(ask(path, body.replace(b'"mark"', nested.encode())))


def large() -> dict[str, Any]:
    """Specs of the largest size, each with as many mistakes, hints or parts as fit in."""
    specs = {}
    for name in ("args", "containers", "volumes", "labels", "keys", "image", "good"):
        spec = specs[name] = pool()["spec"]
        template = spec["template"]
        container = template["spec"]["containers"][0]
        if name == "args":
            container["args"] = [1] * (LARGEST // 3)
        elif name == "containers":
            template["spec"]["containers"] = [{"name": "a", "image": "A"}] * (LARGEST // 32)
        elif name == "volumes":
            template["spec"]["volumes"] = [{}] * (LARGEST // 4)
        elif name == "labels":
            template["metadata"]["labels"] = {f"-{number}": "-" for number in range(LARGEST // 24)}
        elif name == "keys":
            spec["autoscaler"] |= {f"maxReplica{number}": 1 for number in range(LARGEST // 24)}
        elif name == "image":
            container["image"] = "a" * (LARGEST - 4096)
        else:
            container["env"] = [{"name": "A", "value": "b" * 1000}] * (LARGEST // 1100)
    return specs


@pytest.mark.parametrize("name", large())
@pytest.mark.parametrize("path", ["/validate", "/mutate"])
def test_the_largest_object_gets_a_short_answer(path: str, name: str) -> None:
    body = review({**pool(), "spec": large()[name]})
    assert len(body) <= LARGEST * 1.1
    answer = ask(path, body)
    response = well_formed(answer)
    assert len(answer.content) < 128 * 1024
    if path == "/validate":
        assert response["allowed"] == (name in ("keys", "good"))
        assert len(response.get("status", {}).get("details", {}).get("causes", ())) <= MOST_ERRORS


def test_the_last_of_two_equal_keys_counts_as_in_the_api_server() -> None:
    text = json.dumps(REVIEWS["create"]).replace('"minIdle": 3', '"minIdle": 3, "minIdle": -1')
    response = well_formed(ask("/validate", text.encode()))
    assert [cause["field"] for cause in response["status"]["details"]["causes"]] == ["spec.autoscaler.minIdle"]
