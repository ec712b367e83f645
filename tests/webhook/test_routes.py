"""The two routes over HTTP: status codes, the uid, and what is counted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.obs.metrics import REGISTRY
from app.webhook.routes import router
from tests.webhook.questions import PODS, Api, admission, pool, review


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(admission(Api())))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://webhook") as client:
        yield client


def counted(**labels: str) -> float:
    return REGISTRY.get_sample_value("velda_admission_total", labels) or 0.0


def timed(webhook: str) -> float:
    return REGISTRY.get_sample_value("velda_admission_seconds_count", {"webhook": webhook}) or 0.0


async def test_a_refusal_is_http_200_with_the_uid(http: httpx.AsyncClient) -> None:
    before = counted(webhook="validate", operation="CREATE", code="422"), timed("validate")
    answer = await http.post("/validate", content=review({**pool(), "spec": {}}))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    response = answer.json()["response"]
    assert (response["uid"], response["allowed"], response["status"]["code"]) == ("r-1", False, 422)
    after = counted(webhook="validate", operation="CREATE", code="422"), timed("validate")
    assert after == (before[0] + 1, before[1] + 1)


async def test_validate_allows(http: httpx.AsyncClient) -> None:
    answer = await http.post("/validate?timeout=5s", content=review(pool()))
    assert answer.json()["response"] == {"uid": "r-1", "allowed": True}


async def test_mutate_patches(http: httpx.AsyncClient) -> None:
    value = {"metadata": {"labels": {"velda.io/pool": "cpu"}}, "spec": {"containers": [{"name": "agent"}]}}
    answer = await http.post("/mutate", content=review(value, resource=PODS))
    assert answer.json()["response"]["patchType"] == "JSONPatch"


@pytest.mark.parametrize("path", ["/validate", "/mutate"])
async def test_a_malformed_review_is_400_and_says_why(http: httpx.AsyncClient, path: str) -> None:
    labels = {"webhook": path[1:], "operation": "unknown", "code": "400"}
    before = counted(**labels)
    for body in (b"", b"\x00\xff", b"{}", json.dumps({"apiVersion": "v1", "kind": "AdmissionReview"}).encode()):
        answer = await http.post(path, content=body)
        assert answer.status_code == 400
        assert answer.text.startswith("not an AdmissionReview of admission.k8s.io/v1: ")
    assert counted(**labels) == before + 4


async def test_an_object_that_does_not_decode_is_400(http: httpx.AsyncClient) -> None:
    answer = await http.post("/validate", content=review({"metadata": []}))
    assert answer.status_code == 400
    assert answer.text.startswith("request.object is no AgentPool: ")
