"""The decision on an AgentPool: its fields, its rehearsed pod, its author's rights."""

from __future__ import annotations

from typing import Any

import pytest

from app.kube.errors import ApiError
from app.model.agentpool import FieldError
from app.webhook import inquiries
from app.webhook.review import Answer, MalformedError
from tests.webhook.questions import NEVER, USER, Api, admission, fields, pool, question


async def decide(api: Api, value: Any, **request: Any) -> Answer:
    return await admission(api).validate(question(value, **request))


def refused(status: int, message: str, *causes: FieldError) -> ApiError:
    return ApiError(status=status, reason="", message=message, causes=causes)


async def test_a_good_pool_is_rehearsed_as_the_controller_would_create_it() -> None:
    api = Api()
    answer = await decide(api, pool())
    assert (answer.allowed, answer.code, answer.warnings) == (True, 200, ())
    ((pod, params),) = api.rehearsed
    assert params["dryRun"] == "All"
    assert pod["metadata"]["name"].startswith("cpu-")
    assert pod["metadata"]["labels"]["velda.io/pool"] == "cpu"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert pod["spec"]["containers"][0]["args"] == ["--pool=cpu"]
    assert pod["spec"]["volumes"] == [{"name": "velda-config", "configMap": {"name": "velda-config"}}]


async def test_the_pools_annotation_names_the_config_map() -> None:
    api = Api()
    await decide(api, pool(annotations={"velda.io/config-map": "mine"}))
    ((pod, _),) = api.rehearsed
    assert pod["spec"]["volumes"][0]["configMap"] == {"name": "mine"}


async def test_the_author_is_asked_about_with_all_that_is_known_of_them() -> None:
    api = Api()
    await decide(api, pool())
    (spec,) = api.asked
    assert (spec["user"], spec["uid"], spec["groups"], spec["extra"]) == ("jane", "7", ["dev"], USER["extra"])
    wanted = {"verb": "create", "resource": "pods", "namespace": "team"}
    assert wanted.items() <= spec["resourceAttributes"].items()


async def test_who_may_not_create_pods_may_not_have_them_created() -> None:
    answer = await decide(Api(access=False), pool())
    assert answer.status is not None
    assert (answer.allowed, answer.code, answer.status.reason) == (False, 403, "Forbidden")
    for word in ('"jane"', "create pods", '"team"'):
        assert word in answer.status.message


@pytest.mark.parametrize("access", [refused(500, "etcd is down"), refused(0, "connection refused")])
async def test_a_right_that_cannot_be_looked_up_is_not_granted(access: ApiError) -> None:
    answer = await decide(Api(access=access), pool())
    assert answer.status is not None
    assert (answer.allowed, answer.code) == (False, 503)
    assert access.message in answer.status.message


async def test_nor_is_one_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "ACCESS_BUDGET", 0.01)
    answer = await decide(Api(access=NEVER), pool())
    assert (answer.allowed, answer.code) == (False, 503)


async def test_a_rehearsal_that_fails_technically_is_a_warning() -> None:
    answer = await decide(Api(pods=refused(503, "overloaded")), pool())
    assert answer.allowed
    assert answer.warnings == ("template could not be rehearsed: overloaded",)


async def test_all_is_asked_at_once() -> None:
    answer = await decide(Api(meet=3), pool())
    assert answer.allowed


async def test_all_errors_at_once() -> None:
    value = pool()
    value["spec"]["autoscaler"] = {"maxReplicas": 1, "minReplicas": 2, "minIdle": 3, "maxIdle": 2}
    image = FieldError("spec.containers[0].image", "FieldValueRequired", "Required value")
    answer = await decide(Api(pods=refused(422, "…", image)), value)
    assert fields(answer) == [
        "spec.autoscaler.maxReplicas",
        "spec.autoscaler.maxIdle",
        "spec.template.spec.containers[0].image",
    ]


async def test_a_template_that_is_no_pod_is_not_rehearsed() -> None:
    value = pool()
    value["spec"]["template"] = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}
    api = Api()
    answer = await decide(api, value)
    assert fields(answer) == ["spec.template.spec.containers"]
    assert api.rehearsed == []


@pytest.mark.parametrize("spec", [None, [], "x", {}, {"autoscaler": {}, "template": {"spec": 1}}])
async def test_any_spec_gets_an_answer(spec: Any) -> None:
    answer = await decide(Api(), {**pool(), "spec": spec})
    assert (answer.allowed, answer.code) == (False, 422)


async def test_warnings_of_every_kind() -> None:
    value = pool()
    value["spec"]["autoscaler"]["maxIdel"] = 3
    del value["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "4"}}}
    answer = await decide(Api(quotas=[quota]), value)
    assert answer.allowed
    assert answer.warnings == (
        "spec.autoscaler.maxIdel: unknown field, did you mean maxIdle?",
        "spec.template.spec.containers[0].securityContext.privileged: "
        "not true, agents usually need it to isolate sessions",
        "ResourceQuota q has room for 4 agents (pods: 4), maxReplicas is 5",
    )


async def test_quotas_that_cannot_be_read_are_no_matter() -> None:
    answer = await decide(Api(quotas=refused(403, "no")), pool())
    assert (answer.allowed, answer.warnings) == (True, ())


async def test_an_update_of_the_spec_is_judged() -> None:
    value = pool()
    value["spec"]["autoscaler"]["maxIdle"] = 0
    answer = await decide(Api(), value, old=pool(), operation="UPDATE")
    assert fields(answer) == ["spec.autoscaler.maxIdle"]


async def test_a_template_that_stays_is_no_reason_to_refuse_other_numbers() -> None:
    value = pool()
    value["spec"]["autoscaler"]["maxReplicas"] = 6
    api = Api(pods=refused(403, 'pods "x" is forbidden: violates PodSecurity'))
    answer = await decide(api, value, old=pool(), operation="UPDATE")
    assert (answer.allowed, answer.warnings) == (True, ("spec.template: violates PodSecurity",))
    value["spec"]["template"]["metadata"]["labels"]["app"] = "other"
    answer = await decide(api, value, old=pool(), operation="UPDATE")
    assert fields(answer) == ["spec.template"]


BAD = {**pool(), "spec": {}}
DELETED = {**pool(deletionTimestamp="2026-11-25T00:00:00Z", deletionGracePeriodSeconds=0), "spec": {}}


@pytest.mark.parametrize(
    ("value", "request_"),
    [
        ({**BAD, "metadata": {**BAD["metadata"], "finalizers": []}}, {"operation": "UPDATE", "old": BAD}),
        (DELETED, {"operation": "UPDATE", "old": pool()}),
        (None, {"operation": "DELETE", "old": BAD}),
        (BAD, {"operation": "UPDATE", "old": pool(), "subResource": "status"}),
        (BAD, {"resource": {"group": "", "version": "v1", "resource": "configmaps"}}),
    ],
)
async def test_never_in_the_way(value: Any, request_: dict[str, Any]) -> None:
    api = Api(access=False)
    answer = await decide(api, value, **request_)
    assert answer.allowed
    assert api.created == []


@pytest.mark.parametrize("value", [None, [], 7, {"metadata": []}, {"metadata": {"labels": {"a": 1}}}])
async def test_an_object_that_is_no_agent_pool_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        await decide(Api(), value)
