"""Where each problem is, and which documents of a text are judged at all."""

from __future__ import annotations

import json
import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.check.manifest import ADVICE, SYNTAX, Problem, check, parts
from app.check.report import RULES
from app.check.schema import UNKNOWN

POOL = """\
apiVersion: velda.io/v1
kind: AgentPool
metadata:
  name: cpu
spec:
  autoscaler:
    maxReplicas: 4
    minIdle: 1
    maxIdle: 2
  template:
    metadata:
      labels:
        app: cpu
    spec:
      containers:
        - name: agent
          image: veldaio/agent:latest
          resources: {limits: {cpu: 1}}
          securityContext: {privileged: true}
"""


def problems(text: str) -> list[Problem]:
    return check(text).problems


def one(text: str) -> Problem:
    (problem,) = problems(text)
    assert problem.rule in RULES
    return problem


def told(text: str) -> str:
    problem = one(text)
    return f"{problem.place.line}:{problem.place.column} {problem.severity} {problem.field}: {problem.message}"


def test_a_good_pool() -> None:
    assert check(POOL) == (1, [])
    assert check(json.dumps(yaml.safe_load(POOL), indent="\t")) == (1, [])
    assert check(json.dumps(yaml.safe_load(POOL))) == (1, [])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("maxIdle: 2", "maxIdle: 0", "9:14 error spec.autoscaler.maxIdle: Invalid value: 0: must be at least minIdle"),
        ("    maxIdle: 2\n", "", "6:3 error spec.autoscaler.maxIdle: Required value"),
        ("maxIdle: 2", "maxIdle: [2]", "9:5 error spec.autoscaler.maxIdle: must be an integer, not a list"),
        ("maxIdle: 2", "maxIdle: 2\n    maxIdel: 3", "10:5 error spec.autoscaler.maxIdel: unknown field, did you me"),
        ("spec:\n", "spec:\n  templates: {}\n", "6:3 error spec.templates: unknown field, did you mean template?"),
        ("name: cpu\n", "name: CPU\n", '4:9 error metadata.name: Invalid value: "CPU": must be a DNS name'),
        ("name: cpu\n", "name: 12\n", "4:9 error metadata.name: must be a string, not a number"),
        ("  name: cpu\n", "  labels: {}\n", "3:1 error metadata.name: Required value"),
        (
            "velda.io/v1",
            "velda.io/v2",
            '1:13 error apiVersion: Unsupported value: "velda.io/v2": must be "velda.io/v1"',
        ),
        ("name: cpu\n", "name: cpu\nstatuss: {}\n", "5:1 error statuss: unknown field, did you mean status?"),
        (
            "name: cpu\n",
            "name: cpu\n  labels: {a: 1}\n",
            "5:15 error metadata.labels.a: must be a string, not a number",
        ),
        (
            "- name: agent\n",
            "- name: agent\n          ports: [{containerPort: ssh}]\n",
            "17:35 error spec.template.spec.containers[0].ports[0].containerPort: must be an integer, not a string",
        ),
        (
            "- name: agent\n",
            "- name: a\n          image: a\n        - name: a\n          image: b\n        - name: agent\n",
            "18:17 error spec.template.spec.containers[1].name: Duplicate value: a",
        ),
        (
            "- name: agent\n",
            "- imagePullPolice: Always\n          name: agent\n",
            "16:11 warning spec.template.spec.containers[0].imagePullPolice: unknown field, did you mean imagePullPol",
        ),
        (
            "labels:",
            "lables:\n        app: cpu\n      labels:",
            "12:7 error spec.template.metadata.lables: unknown field",
        ),
        ("cpu: 1", "cpu: 1x", "18:37 error spec.template.spec.containers[0].resources.limits[cpu]: Invalid value"),
        (", privileged: true", "", ""),
        (
            "{privileged: true}",
            "{}",
            "19:11 warning spec.template.spec.containers[0].securityContext.privileged: not true",
        ),
    ],
)
def test_a_mistake_and_its_place(old: str, new: str, said: str) -> None:
    text = POOL.replace(old, new, 1)
    if said:
        assert told(text).startswith(said)
    else:
        assert problems(text) == []


def test_a_place_ends_where_the_value_does() -> None:
    assert one(POOL.replace("maxIdle: 2", "maxIdle: 'two'")).place == (9, 14, 9, 19)
    assert one(POOL.replace("    maxIdle: 2\n", "")).place == (6, 3, 6, 13)


def test_all_documents_and_lists_are_judged_and_nothing_else() -> None:
    bad = POOL.replace("maxIdle: 2", "maxIdle: 0")
    other = "apiVersion: v1\nkind: ConfigMap\ndata: {kind: AgentPool}\n"
    theirs = bad.replace("velda.io/v1", "example.com/v1")
    listed = "apiVersion: v1\nkind: List\nitems:\n" + textwrap.indent(bad, "    ").replace("    api", "  - api", 1)
    text = "---\n".join((POOL, other, theirs, bad, listed))
    found = check(text)
    lines = text.splitlines()
    assert found.pools == 3
    assert [lines[problem.place.line - 1].strip() for problem in found.problems] == ["maxIdle: 0"] * 2
    assert check("").pools == check("- a\n---\n# nothing\n").pools == 0


def test_text_that_is_no_yaml_is_told_after_what_could_be_read() -> None:
    text = POOL.replace("maxIdle: 2", "maxIdle: 0") + "---\nkind: AgentPool\n  a: b\n"
    first, second = problems(text)
    assert (first.field, second.rule, second.pool) == ("spec.autoscaler.maxIdle", SYNTAX, "")
    assert (second.place.line, second.place.column) == (22, 4)
    twice = one(POOL.replace("maxIdle: 2", "maxIdle: 2\n    maxIdle: 3"))
    assert (twice.place[:2], twice.message) == ((10, 5), "maxIdle: the key is there twice")


def test_what_yaml_knows_and_json_does_not() -> None:
    for value in ("2026-01-01", "22:22", "1:30.5"):
        assert problems(POOL.replace("app: cpu", f"app: a\n      annotations: {{a: {value}}}")) == []
    (problem,) = problems(POOL.replace("app: cpu", "app: !!binary aGVsbG8="))
    assert (problem.rule, "bytes" in problem.message) == (SYNTAX, True)
    assert problems(POOL.replace("maxIdle: 2", "maxIdle: 2\n    minReplicas: null\n  rollout:")) == []
    assert told(POOL.replace("app: cpu", "app: yes")).endswith('(write it in quotes: "true", "1"), not a boolean')


def test_aliases_are_followed_within_bounds() -> None:
    anchored = POOL.replace("maxReplicas: 4", "maxReplicas: &n 0").replace("minIdle: 1", "minIdle: *n")
    (advice,) = problems(anchored)
    assert advice.rule == ADVICE
    bomb = "".join(f"  l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 12))
    (problem,) = problems(POOL.replace("spec:\n", f"spec:\n  l0: &l0 [a]\n{bomb}", 1))
    assert (problem.rule, "more than" in problem.message) == (SYNTAX, True)
    (problem,) = problems(POOL.replace("spec:\n", "spec:\n  a: &a [*a]\n", 1))
    assert "levels deep" in problem.message


def test_a_name_that_the_cluster_will_make() -> None:
    assert problems(POOL.replace("name: cpu", "generateName: cpu-", 1)) == []


def test_paths_are_read_as_they_are_written() -> None:
    assert parts("spec.a[0].b[velda.io/pool].c") == ("spec", "a", 0, "b", "velda.io/pool", "c")


@given(st.text())
def test_no_text_raises(text: str) -> None:
    check(f"kind: AgentPool\n{text}")
    check(POOL + text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(max_size=50), x)
    )
)
def test_no_pool_raises(value: object) -> None:
    for key in ("metadata", "spec", "status"):
        pool = {"apiVersion": "velda.io/v1", "kind": "AgentPool", "metadata": {"name": "a"}, key: value}
        found = check(json.dumps(pool))
        assert found.pools == 1
        assert {problem.rule for problem in found.problems} <= RULES.keys()


def test_unknown_fields_have_a_rule_of_their_own() -> None:
    assert one(POOL.replace("name: cpu\n", "name: cpu\nstatuss: {}\n")).rule == UNKNOWN
