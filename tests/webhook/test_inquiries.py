"""What the API server said in favour of a pool is believed for seconds; what it said against it is asked again."""

from __future__ import annotations

from typing import Any, cast

import pytest

from app.kube.answers import RENEWED
from app.kube.client import Client
from app.kube.errors import ApiError
from app.webhook.inquiries import SECONDS, Inquiries
from app.webhook.pools import review_pool
from app.webhook.review import Answer
from tests.webhook.questions import USER, Api, pool, question

BUSY = ApiError(status=503, reason="", message="overloaded")


class Asking:
    """Reviews over one Api, at the time ``now``."""

    def __init__(self, **answers: Any) -> None:
        self.api = Api(**answers)
        self.now = 0.0
        self._inquiries = Inquiries(cast(Client, self.api), clock=lambda: self.now)

    async def review(self, value: Any, config_map: str = "velda-config", **request: Any) -> Answer:
        return await review_pool(self._inquiries, question(value, **request), config_map=config_map)

    @property
    def asked(self) -> tuple[int, int, int]:
        """About authors, pods and quotas."""
        return len(self.api.asked), len(self.api.rehearsed), self.api.listed


async def test_equal_pools_are_one_question_for_seconds() -> None:
    asking = Asking()
    for name in ("a", "b"):
        assert (await asking.review(pool(name))).allowed
    asking.now = SECONDS * RENEWED - 0.1
    await asking.review(pool("c"))
    assert asking.asked == (1, 1, 1)
    asking.now = SECONDS
    await asking.review(pool("d"))
    assert asking.asked == (2, 2, 2)


async def test_pools_that_were_injected_differ_in_their_names_alone() -> None:
    asking = Asking()
    for name, args in (("a", ["--pool=a"]), ("b", ["--pool=b"]), ("c", ["--pool=c", "--quiet"])):
        value = pool(name)
        value["spec"]["template"]["spec"]["containers"][0]["args"] = args
        assert (await asking.review(value)).allowed
    assert asking.asked == (1, 2, 1)


async def test_another_author_is_asked_about() -> None:
    asking = Asking(access=[{"status": {"allowed": True}}, *[{"status": {"allowed": False}}] * 4])
    assert (await asking.review(pool())).allowed
    changes: tuple[dict[str, Any], ...] = ({"username": "joe"}, {"uid": "8"}, {"groups": []}, {"extra": {}})
    for other in changes:
        assert not (await asking.review(pool(), userInfo={**USER, **other})).allowed
    assert (await asking.review(pool())).allowed
    assert asking.asked == (5, 1, 1)


async def test_another_namespace_is_another_question() -> None:
    asking = Asking()
    await asking.review(pool())
    await asking.review(pool(namespace="other"))
    assert (len(asking.api.created), asking.api.listed) == (4, 2)


@pytest.mark.parametrize("change", ["template", "config map", "annotation"])
async def test_another_pod_is_rehearsed(change: str) -> None:
    asking, value = Asking(), pool()
    await asking.review(pool())
    if change == "template":
        value["spec"]["template"]["spec"]["nodeSelector"] = {"a": "b"}
    elif change == "annotation":
        value["metadata"]["annotations"] = {"velda.io/config-map": "mine"}
    await asking.review(value, config_map="mine" if change == "config map" else "velda-config")
    assert asking.asked == (1, 2, 1)


async def test_a_no_is_asked_again_at_once() -> None:
    asking = Asking(access=[{"status": {"allowed": False}}, {"status": {"allowed": True}}])
    assert not (await asking.review(pool())).allowed
    assert (await asking.review(pool())).allowed


@pytest.mark.parametrize("refusal", [BUSY, ApiError(422, "", "no"), ApiError(403, "", "exceeded quota: tight")])
async def test_a_pod_that_is_not_taken_is_rehearsed_again_at_once(refusal: ApiError) -> None:
    asking = Asking(pods=[refusal, {"spec": {"containers": []}}])
    first = await asking.review(pool())
    assert first.warnings or not first.allowed
    again = await asking.review(pool())
    assert (again.allowed, again.warnings) == (True, ())


async def test_a_pool_that_is_wrong_elsewhere_is_rehearsed_as_it_will_be() -> None:
    asking, wrong = Asking(), pool()
    wrong["spec"]["autoscaler"]["maxIdle"] = 0
    assert not (await asking.review(wrong)).allowed
    assert (await asking.review(pool())).allowed
    assert asking.asked == (1, 1, 1)
