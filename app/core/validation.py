"""Whether an AgentPool is good: its mistakes all at once, by field, in words for whoever wrote it.

The CRD's schema and rules say the same while the webhook is down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec

from app.core import scheduleshape
from app.core.fields import (
    INT32_MAX,
    INVALID,
    REQUIRED,
    Errors,
    invalid,
    is_deeper,
    missing_or_wrong,
    unknown_field,
    whole_number,
    wrong_type,
)
from app.core.injection import agent_index, config_mounts, named_pools
from app.core.podshape import check_pod
from app.core.podspec import template_hash
from app.core.syntax import LABEL_SYNTAX, is_label_value
from app.model.agentpool import Autoscaler, FieldError, PoolSpec, Rollout
from app.model.meta import POOL_LABEL

WARNING_LENGTH = 120
"""Above it a warning may be cut (source: the API documentation of AdmissionResponse.warnings)."""
MOST_ERRORS = 100
MOST_HINTS = 20
"""That are told at once: a thousand times as many can stand in one object."""
DEEPEST = 64
"""Levels of a template, several times as many as a pod of Kubernetes has: encoders and patches fail at hundreds."""


class _Limit(NamedTuple):
    minimum: int
    required: str = ""
    """What the field is for, where it has no default."""


LIMITS: Mapping[str, _Limit] = {
    "minReplicas": _Limit(0),
    "maxReplicas": _Limit(0, "the most agents that the pool may have"),
    "minIdle": _Limit(0, "how many slots to keep ready"),
    "maxIdle": _Limit(0, "how many slots may stay unused before agents are removed"),
    "idleDecaySecond": _Limit(0),
    "killUnknownAfterSecond": _Limit(0),
    "defaultSlotsPerAgent": _Limit(1),
    "joinTimeoutSecond": _Limit(1),
}
"""The autoscaler's whole numbers; none may exceed int32."""
HIT_RATE = "targetHitRate"
STRATEGIES = ("RollingUpdate", "OnDelete")
ROLLOUT_FIELDS = ("strategy", "maxSurge", "maxUnavailable", "progressDeadlineSecond")

_SHARE = re.compile(r"(100|[0-9]{1,2})%")


def validate(name: str, spec: Any) -> PoolSpec | list[FieldError]:
    """The spec of the pool ``name``, or what is wrong with it (and with the name). Raises on no JSON value.

    Fields that we do not know are ignored, as they may be a later version's; ``unknown_fields`` lists them.
    """
    if not isinstance(spec, dict):
        return [*_name(name), missing_or_wrong("spec", spec, "an object", "autoscaler and template")]
    schedules = scheduleshape.parse(spec.get("schedules"))
    mistakes = chain(
        _name(name),
        _autoscaler(spec.get("autoscaler")),
        _rollout(spec.get("rollout")),
        schedules if isinstance(schedules, list) else (),
        _template(name, spec.get("template")),
    )
    errors = list(islice(mistakes, MOST_ERRORS))
    if errors or isinstance(schedules, list):
        return errors
    template, target = spec["template"], spec["autoscaler"].get(HIT_RATE)
    limits = msgspec.convert(_given(spec["autoscaler"], LIMITS), Autoscaler)
    return PoolSpec(
        autoscaler=limits if target is None else msgspec.structs.replace(limits, target_hit_rate=float(target)),
        schedules=schedules,
        rollout=msgspec.convert(_given(spec.get("rollout") or {}, ROLLOUT_FIELDS), Rollout),
        template=template,
        template_hash=template_hash(template),
    )


def unknown_fields(spec: Any) -> list[FieldError]:
    """Fields of ours in the spec that we do not know: typos, or a later version's."""
    found: list[FieldError] = []
    parts = spec if isinstance(spec, dict) else {}
    for path, value, known in (
        ("spec", parts, ("autoscaler", "template", "rollout", "schedules")),
        ("spec.autoscaler", parts.get("autoscaler"), (*LIMITS, HIT_RATE)),
        ("spec.rollout", parts.get("rollout"), ROLLOUT_FIELDS),
    ):
        unknown = (key for key in (value if isinstance(value, dict) else ()) if key not in known)
        hints = islice(unknown, MOST_HINTS)
        found += [FieldError(f"{path}.{key}", INVALID, unknown_field(key, known)) for key in hints]
    return found


def warnings(spec: PoolSpec) -> list[str]:
    """What is allowed and probably not meant, each in at most 120 characters."""
    return [shorten(text) for text in (*_scaling_warnings(spec.autoscaler), *_agent_warnings(spec.template["spec"]))]


def _name(name: str) -> Errors:
    if not name:
        yield FieldError("metadata.name", REQUIRED, "Required value: the pool's name")
    elif not is_label_value(name):
        yield invalid("metadata.name", name, f"must be {LABEL_SYNTAX}, since it is a label of each agent")


def _autoscaler(limits: Any) -> Errors:
    if not isinstance(limits, dict):
        yield missing_or_wrong("spec.autoscaler", limits, "an object", "maxReplicas, minIdle and maxIdle")
        return
    checked = {field: _number(f"spec.autoscaler.{field}", limit, limits.get(field)) for field, limit in LIMITS.items()}
    bad = {field: error for field, error in checked.items() if error}
    yield from bad.values()
    for upper, lower in (("maxReplicas", "minReplicas"), ("maxIdle", "minIdle")):
        floor = limits.get(lower) or 0
        if not {upper, lower} & bad.keys() and limits[upper] < floor:
            yield invalid(f"spec.autoscaler.{upper}", limits[upper], f"must be at least {lower}, which is {floor}")
    yield from _hit_rate(f"spec.autoscaler.{HIT_RATE}", limits.get(HIT_RATE))


def _hit_rate(path: str, value: Any) -> Errors:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield wrong_type(path, value, "a number")
    elif not 0 < value < 1:
        yield invalid(path, value, "must be above 0 and below 1, as 0.99")


def _number(path: str, limit: _Limit, value: Any) -> FieldError | None:
    if value is None:
        return FieldError(path, REQUIRED, f"Required value: {limit.required}") if limit.required else None
    if error := whole_number(path, value):
        return error
    if value < limit.minimum:
        return invalid(path, value, f"must be at least {limit.minimum}")
    if value > INT32_MAX:
        return invalid(path, value, f"must be at most {INT32_MAX}")
    return None


def _rollout(rollout: Any) -> Errors:
    path = "spec.rollout"
    if rollout is None:
        return
    if not isinstance(rollout, dict):
        yield wrong_type(path, rollout, "an object")
        return
    strategy = rollout.get("strategy")
    if strategy is not None and not isinstance(strategy, str):
        yield wrong_type(f"{path}.strategy", strategy, "a string")
    elif strategy is not None and strategy not in STRATEGIES:
        yield invalid(f"{path}.strategy", strategy, f"must be {' or '.join(STRATEGIES)}")
    shares = {field: _share(f"{path}.{field}", rollout.get(field)) for field in ("maxSurge", "maxUnavailable")}
    yield from (error for error in shares.values() if error)
    if all(_is_zero(rollout.get(field)) for field in shares):
        text = "must not be 0 when maxSurge is 0 too: nothing could be replaced"
        yield invalid(f"{path}.maxUnavailable", rollout["maxUnavailable"], text)
    deadline = _number(f"{path}.progressDeadlineSecond", _Limit(1), rollout.get("progressDeadlineSecond"))
    yield from (deadline,) if deadline else ()


def _share(path: str, value: Any) -> FieldError | None:
    if isinstance(value, str):
        return None if _SHARE.fullmatch(value) else invalid(path, value, "must be a number of agents, or 0% to 100%")
    return _number(path, _Limit(0), value)


def _is_zero(value: Any) -> bool:
    return value == "0%" or (isinstance(value, int | float) and not isinstance(value, bool) and value == 0)


def _given(values: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The fields of a part known to be good that are set, with whole numbers as integers however they were written."""
    given = {field: values[field] for field in fields if values.get(field) is not None}
    return {field: int(value) if isinstance(value, float) else value for field, value in given.items()}


def _template(name: str, template: Any) -> Errors:
    path = "spec.template"
    if is_deeper(template, DEEPEST):
        yield FieldError(path, INVALID, f"is nested more than {DEEPEST} levels deep, which no pod is")
        return
    yield from check_pod(template, path)
    if not isinstance(template, dict):
        return
    meta = template.get("metadata")
    labels = meta.get("labels") if isinstance(meta, dict) else None
    if (meta is None or isinstance(meta, dict)) and (labels is None or labels == {}):
        yield FieldError(
            f"{path}.metadata.labels", REQUIRED, "Required value: at least one label, by which you find the pool's pods"
        )
    other = labels.get(POOL_LABEL) if isinstance(labels, dict) else None
    if isinstance(other, str) and other != name:
        yield invalid(f"{path}.metadata.labels[{POOL_LABEL}]", other, f"must be {name} or be left out")
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    if isinstance(containers, list) and containers and all(isinstance(container, dict) for container in containers):
        yield from _pool_arguments(name, containers)


def _pool_arguments(name: str, containers: list[Any]) -> Errors:
    index = agent_index(containers)
    for where, value in named_pools(containers[index]):
        path = f"spec.template.spec.containers[{index}].{where}"
        if value is None:
            yield FieldError(path, INVALID, f"Invalid value: --pool must be followed by the pool's name, {name}")
        elif value != name and "$(" not in value:  # what Kubernetes expands at the start cannot be judged now
            yield invalid(path, value, f"--pool names another pool, must be {name} or be left out")


def _scaling_warnings(limits: Autoscaler) -> Iterator[str]:
    path, slots = "spec.autoscaler", limits.default_slots_per_agent
    settled = limits.min_idle + slots - 1
    if limits.max_replicas == 0:
        yield f"{path}.maxReplicas: 0 means that this pool never has an agent"
    elif limits.min_idle > limits.max_replicas * slots:
        yield f"{path}.minIdle: {limits.min_idle} slots cannot be kept ready by {limits.max_replicas} agents of {slots}"
    if limits.max_idle < settled:
        yield f"{path}.maxIdle: taken as {settled}, since agents come and go with {slots} slots at once"
    if limits.kill_unknown_after_second < 10:
        yield f"{path}.killUnknownAfterSecond: agents whose connection breaks have little time to come back"


def _agent_warnings(spec: Mapping[str, Any]) -> Iterator[str]:
    index = agent_index(spec["containers"])
    container, path = spec["containers"][index], f"spec.template.spec.containers[{index}]"
    if not (container.get("resources") or {}).get("limits"):
        yield f"{path}.resources.limits: none are set, so an agent may use all of its node"
    if (container.get("securityContext") or {}).get("privileged") is not True:
        yield f"{path}.securityContext.privileged: not true, agents usually need it to isolate sessions"
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
    for i, name in config_mounts(container):
        if name in volumes and not volumes[name].keys() & {"configMap", "projected", "secret", "csi"}:
            yield f"{path}.volumeMounts[{i}]: /run/velda does not come from a ConfigMap, will it hold velda.yaml?"


def shorten(text: str) -> str:
    """The text of a warning in 120 characters."""
    return text if len(text) <= WARNING_LENGTH else f"{text[: WARNING_LENGTH - 1]}…"
