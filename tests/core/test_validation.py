"""Validation: each mistake is found by field, all at once, and no JSON value makes it raise."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.fields import INT32_MAX
from app.core.podshape import check_pod
from app.core.podspec import template_hash
from app.core.validation import (
    HIT_RATE,
    LIMITS,
    ROLLOUT_FIELDS,
    STRATEGIES,
    unknown_fields,
    validate,
    warnings,
)
from app.model.agentpool import Autoscaler, PoolSpec, Rollout
from crd.schema import AUTOSCALER, ROLLOUT

Spec = dict[str, Any]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def good() -> Spec:
    return {
        "autoscaler": {"maxReplicas": 5, "minIdle": 1, "maxIdle": 2},
        "template": {
            "metadata": {"labels": {"app": "velda-agent"}},
            "spec": {
                "containers": [
                    {
                        "name": "agent",
                        "image": "veldaio/agent:latest",
                        "args": ["--pool=cpu-pool"],
                        "securityContext": {"privileged": True},
                        "resources": {"limits": {"cpu": "1"}},
                    }
                ]
            },
        },
    }


def change(path: str, value: Any) -> Callable[[Spec], None]:
    """Sets ``a.b.0.c`` in a spec; a value of ``...`` removes it."""

    def apply(spec: Spec) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        target: Any = spec
        for part in parents:
            target = target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value

    return apply


def errors_of(spec: Any, name: str = "cpu-pool") -> list[str]:
    result = validate(name, spec)
    return [] if isinstance(result, PoolSpec) else [str(error) for error in result]


def test_good_spec_with_defaults() -> None:
    spec = good()
    result = validate("cpu-pool", spec)
    assert isinstance(result, PoolSpec)
    limits = result.autoscaler
    assert (limits.max_replicas, limits.min_idle, limits.max_idle) == (5, 1, 2)
    assert (limits.min_replicas, limits.idle_decay_second, limits.kill_unknown_after_second) == (0, 60, 300)
    assert (limits.default_slots_per_agent, limits.join_timeout_second) == (1, 600)
    assert result.rollout == Rollout()
    assert (result.template, result.template_hash) == (spec["template"], template_hash(spec["template"]))
    assert warnings(result) == []


def test_numbers_are_integers_however_they_are_written() -> None:
    spec = good()
    spec["autoscaler"]["maxReplicas"] = 7.0
    spec["rollout"] = {"maxSurge": 2.0, "maxUnavailable": "10%"}
    result = validate("cpu-pool", spec)
    assert isinstance(result, PoolSpec)
    numbers = (result.autoscaler.max_replicas, result.rollout.max_surge, result.rollout.max_unavailable)
    assert numbers == (7, 2, "10%")
    assert [type(number) for number in numbers] == [int, int, str]


AGENT = "template.spec.containers.0"
LABELS = "template.metadata.labels"


MISTAKES = [
    (change("autoscaler", ...), "spec.autoscaler: Required value"),
    (change("autoscaler", []), "spec.autoscaler: must be an object, not a list"),
    (change("autoscaler.maxReplicas", ...), "spec.autoscaler.maxReplicas: Required value"),
    (change("autoscaler.maxReplicas", None), "spec.autoscaler.maxReplicas: Required value"),
    (change("autoscaler.minIdle", ...), "spec.autoscaler.minIdle: Required value"),
    (change("autoscaler.maxIdle", ...), "spec.autoscaler.maxIdle: Required value"),
    (change("autoscaler.maxReplicas", True), "spec.autoscaler.maxReplicas: must be an integer, not a boolean"),
    (change("autoscaler.maxReplicas", "5"), "spec.autoscaler.maxReplicas: must be an integer, not a string"),
    (change("autoscaler.maxReplicas", 5.5), "spec.autoscaler.maxReplicas: Invalid value: 5.5: must be an integer"),
    (change("autoscaler.maxReplicas", 2**31), "spec.autoscaler.maxReplicas: Invalid value: 2147483648: must be at"),
    (change("autoscaler.minIdle", -1), "spec.autoscaler.minIdle: Invalid value: -1: must be at least 0"),
    (change("autoscaler.idleDecaySecond", -1), "spec.autoscaler.idleDecaySecond: Invalid value: -1"),
    (change("autoscaler.killUnknownAfterSecond", -1), "spec.autoscaler.killUnknownAfterSecond: Invalid value: -1"),
    (change("autoscaler.defaultSlotsPerAgent", 0), "spec.autoscaler.defaultSlotsPerAgent: Invalid value: 0: must"),
    (change("autoscaler.maxIdle", 0), "spec.autoscaler.maxIdle: Invalid value: 0: must be at least minIdle"),
    (change("autoscaler.minReplicas", 6), "spec.autoscaler.maxReplicas: Invalid value: 5: must be at least minRep"),
    (change("autoscaler.joinTimeoutSecond", 0), "spec.autoscaler.joinTimeoutSecond: Invalid value: 0: must be at"),
    (change("rollout", "fast"), "spec.rollout: must be an object, not a string"),
    (
        change("rollout", {"strategy": "Recreate"}),
        'spec.rollout.strategy: Invalid value: "Recreate": must be Rolli',
    ),
    (change("rollout", {"strategy": 1}), "spec.rollout.strategy: must be a string, not a number"),
    (change("rollout", {"maxSurge": -1}), "spec.rollout.maxSurge: Invalid value: -1: must be at least 0"),
    (change("rollout", {"maxSurge": "101%"}), 'spec.rollout.maxSurge: Invalid value: "101%": must be a number of'),
    (change("rollout", {"maxUnavailable": True}), "spec.rollout.maxUnavailable: must be an integer, not a boolean"),
    (change("rollout", {"maxSurge": 0, "maxUnavailable": "0%"}), "spec.rollout.maxUnavailable: Invalid value"),
    (change("rollout", {"progressDeadlineSecond": 0}), "spec.rollout.progressDeadlineSecond: Invalid value: 0"),
    (change("template", ...), "spec.template: Required value"),
    (change("template", "x"), "spec.template: must be an object, not a string"),
    (change("template.metadata", ...), "spec.template.metadata.labels: Required value: at least one label"),
    (change(LABELS, {}), "spec.template.metadata.labels: Required value: at least one label"),
    (change(LABELS, {"a": 1}), "spec.template.metadata.labels[a]: must be a string"),
    (change(LABELS, {"a b": "c"}), 'spec.template.metadata.labels: Invalid value: "a b": a label\'s name'),
    (change(LABELS, {"a": "c d"}), 'spec.template.metadata.labels[a]: Invalid value: "c d": a label\'s value'),
    (change(LABELS, {"A/b": "c"}), 'spec.template.metadata.labels: Invalid value: "A/b": what stands before'),
    (change(LABELS, {"/b": "c"}), 'spec.template.metadata.labels: Invalid value: "/b": what stands before'),
    (
        change(LABELS, {"velda.io/pool": "gpu"}),
        'spec.template.metadata.labels[velda.io/pool]: Invalid value: "gpu": must be cpu-pool or be left out',
    ),
    (change("template.metadata.annotations", {"a": True}), "spec.template.metadata.annotations[a]: must be a str"),
    (change("template.spec", ...), "spec.template.spec: Required value"),
    (change("template.spec.containers", ...), "spec.template.spec.containers: Required value: at least one"),
    (change("template.spec.containers", []), "spec.template.spec.containers: Required value: at least one"),
    (change("template.spec.containers", {}), "spec.template.spec.containers: must be a list, not an object"),
    (change(AGENT, None), "spec.template.spec.containers[0]: must be an object, not null"),
    (change(f"{AGENT}.args", "--pool=x"), "spec.template.spec.containers[0].args: must be a list, not a string"),
    (change(f"{AGENT}.args", [1]), "spec.template.spec.containers[0].args[0]: must be a string, not a number"),
    (change(f"{AGENT}.volumeMounts", ["a"]), "spec.template.spec.containers[0].volumeMounts[0]: must be an object"),
    (change(f"{AGENT}.resources", []), "spec.template.spec.containers[0].resources: must be an object"),
    (
        change(f"{AGENT}.resources.limits", {"cpu": "4x"}),
        "spec.template.spec.containers[0].resources.limits[cpu]: I",
    ),
    (
        change(f"{AGENT}.resources.requests", {"cpu": [1]}),
        "spec.template.spec.containers[0].resources.requests[cpu]",
    ),
    (change(f"{AGENT}.image", "velda io/agent"), "spec.template.spec.containers[0].image: Invalid value"),
    (
        change("template.spec.initContainers", [{"name": "a", "image": "a:b:c"}]),
        "spec.template.spec.initContainers[0].image: Invalid value",
    ),
    (change("template.spec.volumes", [{}]), "spec.template.spec.volumes[0].name: Required value"),
    (
        change("template.spec.volumes", [{"name": "a", "configMap": 1}]),
        "spec.template.spec.volumes[0].configMap: m",
    ),
    (change(f"{AGENT}.args", ["--pool=gpu"]), 'spec.template.spec.containers[0].args[0]: Invalid value: "gpu"'),
    (change(f"{AGENT}.args", ["-v", "--pool", "gpu"]), "spec.template.spec.containers[0].args[2]: Invalid value"),
    (change(f"{AGENT}.args", ["--pool"]), "spec.template.spec.containers[0].args[0]: Invalid value: --pool must"),
    (change(f"{AGENT}.args", ["--pool="]), "spec.template.spec.containers[0].args[0]: Invalid value: --pool must"),
    (change(f"{AGENT}.command", ["a", "--pool=b"]), "spec.template.spec.containers[0].command[1]: Invalid value"),
]
"""Changes of a good spec, and how the one error begins that each makes."""


@pytest.mark.parametrize(("edit", "error"), MISTAKES)
def test_one_mistake_is_one_error_with_its_path(edit: Callable[[Spec], None], error: str) -> None:
    spec = good()
    edit(spec)
    found = errors_of(spec)
    assert len(found) == 1
    assert found[0].startswith(error)


@pytest.mark.parametrize(
    "edit",
    [
        change("autoscaler.maxReplicas", 5.0),
        change("autoscaler.minReplicas", None),
        change("autoscaler.idleDecaySecond", 0),
        change("autoscaler.laterField", {"a": 1}),
        change("rollout", None),
        change("rollout", {"maxSurge": 0, "maxUnavailable": 1, "strategy": "OnDelete", "later": 1}),
        change("rollout", {"maxSurge": "0%", "maxUnavailable": "100%", "progressDeadlineSecond": 1}),
        change("template.metadata.labels", {"example.com/a": "", "velda.io/pool": "cpu-pool"}),
        change("template.spec.containers.0.args", ["--pool", "cpu-pool"]),
        change("template.spec.containers.0.args", ["--pool=$(POOL)"]),
        change("template.spec.containers.0.args", ["--pools=x", "--pooling", "x"]),
    ],
)
def test_what_is_right_is_not_an_error(edit: Callable[[Spec], None]) -> None:
    spec = good()
    edit(spec)
    assert errors_of(spec) == []


def test_a_sidecar_may_have_a_pool_flag_of_its_own() -> None:
    spec = good()
    spec["template"]["spec"]["containers"].insert(0, {"name": "db", "args": ["--pool=connections"]})
    assert errors_of(spec) == []


def test_all_mistakes_at_once() -> None:
    spec = good()
    spec["autoscaler"] = {"minReplicas": 9, "maxReplicas": 5, "minIdle": -1, "maxIdle": "x"}
    spec["template"]["metadata"]["labels"] = {}
    spec["template"]["spec"]["containers"][0]["args"] = ["--pool=gpu", 1]
    fields = [error.split(": ")[0] for error in errors_of(spec, name="x" * 64)]
    assert fields == [
        "metadata.name",
        "spec.autoscaler.minIdle",
        "spec.autoscaler.maxIdle",
        "spec.autoscaler.maxReplicas",
        "spec.template.spec.containers[0].args[1]",
        "spec.template.metadata.labels",
        "spec.template.spec.containers[0].args[0]",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "Required value"), ("a" * 64, "at most 63"), ("-a", "at both ends"), ("a/b", "letters, digits")],
)
def test_a_name_that_cannot_be_a_label(name: str, message: str) -> None:
    spec = good()
    del spec["template"]["spec"]["containers"][0]["args"]
    (error,) = errors_of(spec, name=name)
    assert error.startswith("metadata.name: ")
    assert message in error


@given(spec=JSON)
def test_no_json_value_raises(spec: Any) -> None:
    assert errors_of(spec)
    unknown_fields(spec)


PATHS = [
    "autoscaler",
    *(f"autoscaler.{field}" for field in LIMITS),
    "rollout",
    "template",
    "template.metadata",
    "template.metadata.labels",
    "template.metadata.annotations",
    "template.spec",
    "template.spec.containers",
    "template.spec.volumes",
    *(f"{AGENT}{key}" for key in ("", ".name", ".args", ".command", ".volumeMounts", ".resources", ".securityContext")),
]


@given(path=st.sampled_from(PATHS), value=JSON)
def test_a_json_value_anywhere_is_good_or_an_error(path: str, value: Any) -> None:
    spec = good()
    change(path, value)(spec)
    before = copy.deepcopy(spec)
    result = validate("cpu-pool", spec)
    assert spec == before
    if isinstance(result, PoolSpec):
        assert all(len(warning) <= 120 for warning in warnings(result))
    else:
        assert all(re.match(r"(spec|metadata)\b", error.field) and error.message for error in result)


@given(pod=JSON)
def test_the_shape_of_any_value_can_be_checked(pod: Any) -> None:
    assert list(check_pod(pod, ""))


def test_unknown_fields_are_named_with_what_was_meant() -> None:
    spec = {"autoscaler": {"maxIdel": 1, "other": 2, "maxIdle": 1}, "tempalte": {}, "rollout": {"surge": 1}}
    assert [str(error) for error in unknown_fields(spec)] == [
        "spec.tempalte: unknown field, did you mean template?",
        "spec.autoscaler.maxIdel: unknown field, did you mean maxIdle?",
        "spec.autoscaler.other: unknown field",
        "spec.rollout.surge: unknown field, did you mean maxSurge?",
    ]


@pytest.mark.parametrize(
    ("edit", "warning"),
    [
        (change(f"{AGENT}.resources", ...), "spec.template.spec.containers[0].resources.limits: none are set"),
        (change(f"{AGENT}.securityContext", ...), "spec.template.spec.containers[0].securityContext.privileged: not"),
        (change("autoscaler.maxReplicas", 0), "spec.autoscaler.maxReplicas: 0 means"),
        (change("autoscaler.killUnknownAfterSecond", 0), "spec.autoscaler.killUnknownAfterSecond: agents whose"),
        (change("autoscaler.defaultSlotsPerAgent", 4), "spec.autoscaler.maxIdle: taken as 4"),
        (change("autoscaler", {"maxReplicas": 1, "minIdle": 3, "maxIdle": 3}), "spec.autoscaler.minIdle: 3 slots"),
    ],
)
def test_warnings(edit: Callable[[Spec], None], warning: str) -> None:
    spec = good()
    edit(spec)
    result = validate("cpu-pool", spec)
    assert isinstance(result, PoolSpec)
    (found,) = warnings(result)
    assert found.startswith(warning)
    assert len(found) <= 120


def test_a_warning_when_run_velda_is_no_config_map() -> None:
    spec = good()
    spec["template"]["spec"]["volumes"] = [{"name": "x", "emptyDir": {}}]
    spec["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "x", "mountPath": "/run/velda/"}]
    result = validate("cpu-pool", spec)
    assert isinstance(result, PoolSpec)
    (found,) = warnings(result)
    assert found.startswith("spec.template.spec.containers[0].volumeMounts[0]: /run/velda does not come from")
    spec["template"]["spec"]["volumes"][0] = {"name": "x", "configMap": {"name": "mine"}}
    assert warnings(result) == []


def test_the_crd_says_the_same() -> None:
    fields = AUTOSCALER["properties"]
    assert set(fields) == {*LIMITS, HIT_RATE}
    assert set(AUTOSCALER["required"]) == {field for field, limit in LIMITS.items() if limit.required}
    for field, limit in LIMITS.items():
        assert (fields[field]["minimum"], fields[field]["maximum"]) == (limit.minimum, INT32_MAX)
    defaults = Autoscaler(max_replicas=1, min_idle=1, max_idle=1)
    ours = {
        field: value
        for field, value in msgspec.to_builtins(defaults).items()
        if field not in AUTOSCALER["required"] and value is not None
    }
    assert {field: schema["default"] for field, schema in fields.items() if "default" in schema} == ours
    assert set(ROLLOUT["properties"]) == set(ROLLOUT_FIELDS)
    assert ROLLOUT["properties"]["strategy"]["enum"] == list(STRATEGIES)
