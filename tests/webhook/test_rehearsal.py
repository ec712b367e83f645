"""The rehearsal's verdicts. The messages are those of a Kubernetes 1.36, word for word."""

from __future__ import annotations

from typing import Any, cast

import pytest

from app.kube.client import Client
from app.kube.errors import ApiError
from app.model.agentpool import FieldError
from app.webhook import rehearsal
from app.webhook.rehearsal import judge, rehearse
from tests.webhook.questions import NEVER, Api

DEFAULTED = {"name": "agent", "image": "agent", "resources": {"limits": {"cpu": "1"}}}
POD = {"metadata": {"name": "cpu-1", "namespace": "team"}, "spec": {"containers": []}}
BAD = 'Pod in version "v1" cannot be handled as a Pod: '
STRICT = BAD + 'strict decoding error: unknown field "spec.containers[0].imagee", unknown field "spec.z"'


def error(status: int, message: str, *causes: FieldError) -> ApiError:
    return ApiError(status=status, reason="", message=message, causes=causes)


@pytest.mark.parametrize(
    ("refusal", "field", "message"),
    [
        (
            error(
                422,
                'Pod "cpu-1" is invalid: spec.containers[0].image: Required value',
                FieldError("spec.containers[0].image", "FieldValueRequired", "Required value"),
            ),
            "spec.template.spec.containers[0].image",
            "Required value",
        ),
        (
            error(
                400,
                BAD
                + "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
            ),
            "spec.template.spec.containers.image",
            "must be a string, not a number",
        ),
        (
            error(
                400, BAD + "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            ),
            "spec.template",
            "has a quantity that cannot be read, they are written like 4, 500m or 8Gi",
        ),
        (
            error(403, 'pods "cpu-1" is forbidden: violates PodSecurity "restricted:latest": privileged (…)'),
            "spec.template",
            'violates PodSecurity "restricted:latest": privileged (…)',
        ),
        (
            error(403, 'pods "cpu-1" is forbidden: failed quota: q: must specify cpu for: agent'),
            "spec.template",
            "failed quota: q: must specify cpu for: agent",
        ),
        (
            error(403, 'pods "cpu-1" is forbidden: no PriorityClass with name nope was found'),
            "spec.template",
            "no PriorityClass with name nope was found",
        ),
        (
            error(400, 'admission webhook "policy.example.com" denied the request: no latest tags'),
            "spec.template",
            'admission webhook "policy.example.com" denied the request: no latest tags',
        ),
    ],
)
def test_what_the_user_must_mend(refusal: ApiError, field: str, message: str) -> None:
    verdict = judge(refusal)
    assert [(cause.field, cause.message) for cause in verdict.errors] == [(field, message)]
    assert not verdict.warnings


@pytest.mark.parametrize(
    ("refusal", "warning"),
    [
        (
            error(
                403, 'pods "cpu-1" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0'
            ),
            "no agent can be created now: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0",
        ),
        (
            error(
                403,
                'pods "cpu-1" is forbidden: error looking up service account team/ci: serviceaccount "ci" not found',
            ),
            'no agent can be created now: error looking up service account team/ci: serviceaccount "ci" not found',
        ),
        (
            error(
                403,
                'pods is forbidden: User "system:serviceaccount:velda:x" cannot create resource "pods" in API group ""',
            ),
            "template could not be rehearsed: pods is forbidden: User",
        ),
        (error(404, 'namespaces "team" not found'), 'template could not be rehearsed: namespaces "team" not found'),
        (error(401, "Unauthorized"), "template could not be rehearsed: Unauthorized"),
        (error(429, "too many requests"), "template could not be rehearsed: too many requests"),
        (error(500, 'failed calling webhook "x"'), 'template could not be rehearsed: failed calling webhook "x"'),
        (error(0, "connection refused"), "template could not be rehearsed: connection refused"),
    ],
)
def test_what_is_not_the_templates_fault_is_a_warning(refusal: ApiError, warning: str) -> None:
    verdict = judge(refusal)
    assert not verdict.errors
    (found,) = verdict.warnings
    assert found.startswith(warning)
    assert len(found) <= 120


async def rehearsed(api: Api) -> rehearsal.Verdict:
    return await rehearse(cast(Client, api), POD)


async def test_a_good_pod_comes_back_as_stored() -> None:
    api = Api(pods={"spec": {"containers": [DEFAULTED], "restartPolicy": "Always"}})
    verdict = await rehearsed(api)
    assert verdict == rehearsal.Verdict(pod={"spec": {"containers": [{"resources": DEFAULTED["resources"]}]}})
    ((pod, params),) = api.rehearsed
    assert pod == POD
    assert params == {"dryRun": "All", "fieldManager": "velda-apiserver", "fieldValidation": "Strict"}


async def test_unknown_fields_are_warnings_and_the_rest_is_still_rehearsed() -> None:
    required = FieldError("spec.containers[0].image", "FieldValueRequired", "Required value")
    api = Api(pods=[error(400, STRICT), error(422, "…", required)])
    verdict = await rehearsed(api)
    assert [cause.field for cause in verdict.errors] == ["spec.template.spec.containers[0].image"]
    assert verdict.warnings == (
        "spec.template.spec.containers[0].imagee: unknown field, it has no effect",
        "spec.template.spec.z: unknown field, it has no effect",
    )
    assert [params["fieldValidation"] for _, params in api.rehearsed] == ["Strict", "Ignore"]


async def test_no_answer_in_time_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "BUDGET", 0.01)
    verdict = await rehearsed(Api(pods=NEVER))
    assert not verdict.errors
    assert verdict.warnings[0].startswith("template could not be rehearsed: no answer within")


async def test_a_name_that_is_taken_says_nothing_about_the_template() -> None:
    taken: Any = ApiError(status=409, reason="AlreadyExists", message='pods "cpu-1" already exists')
    assert judge(taken) == rehearsal.Verdict()
