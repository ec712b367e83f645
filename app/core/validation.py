"""Whether an AgentPool is good: every mistake at once, by field, in words for whoever wrote it.

The CRD's schema and rules say the same while the webhook is down. What only a whole Kubernetes can know (images,
quantities, policies) is left to the rehearsal; of the pod, only the parts that we read or extend are looked at here.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from app.core.injection import agent_index, config_mounts, named_pools
from app.model.agentpool import Autoscaler, FieldError, PoolSpec
from app.model.meta import POOL_LABEL

REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
WRONG_TYPE = "FieldValueTypeInvalid"

INT32_MAX = 2**31 - 1
LABEL_LENGTH = 63
PREFIX_LENGTH = 253
WARNING_LENGTH = 120
"""Above it a warning may be cut (source: the API documentation of AdmissionResponse.warnings)."""

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SYNTAX = "letters, digits, '-', '_' or '.', with a letter or digit at both ends"

Errors = Iterator[FieldError]


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
}
"""The autoscaler's fields; none may exceed int32."""


def validate(name: str, spec: Any) -> PoolSpec | list[FieldError]:
    """The spec of the pool ``name``, or all that is wrong with it (and with the name). Raises on no JSON value.

    Fields that we do not know are ignored, as they may be a later version's; ``unknown_fields`` lists them.
    """
    errors = list(_name(name))
    if not isinstance(spec, dict):
        return [*errors, _missing_or_wrong("spec", spec, "an object", "autoscaler and template")]
    errors += _autoscaler(spec.get("autoscaler"))
    errors += _template(name, spec.get("template"))
    if errors:
        return errors
    limits = {field: int(value) for field, value in spec["autoscaler"].items() if field in LIMITS and value is not None}
    return PoolSpec(autoscaler=msgspec.convert(limits, Autoscaler), template=spec["template"])


def check_pod(pod: Any, path: str) -> Errors:
    """What is wrong with the shape of a Pod or PodTemplateSpec, in the parts that injection reads and extends."""
    if not isinstance(pod, dict):
        yield _missing_or_wrong(path, pod, "an object", "the pod to make agents from")
        return
    meta = pod.get("metadata")
    yield from _optional(f"{_dot(path)}metadata", meta, dict)
    if isinstance(meta, dict):
        yield from _strings(f"{_dot(path)}metadata.annotations", meta.get("annotations"))
        yield from _labels(f"{_dot(path)}metadata.labels", meta.get("labels"))
    yield from _pod_spec(f"{_dot(path)}spec", pod.get("spec"))


def unknown_fields(spec: Any) -> list[FieldError]:
    """Fields of the spec and its autoscaler that we do not know: typos, or a later version's."""
    found: list[FieldError] = []
    for path, value, known in (
        ("spec", spec, ("autoscaler", "template")),
        ("spec.autoscaler", spec.get("autoscaler") if isinstance(spec, dict) else None, tuple(LIMITS)),
    ):
        for key in value if isinstance(value, dict) else ():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                found.append(FieldError(f"{path}.{key}", INVALID, f"unknown field{hint}"))
    return found


def warnings(spec: PoolSpec) -> list[str]:
    """What is allowed and probably not meant, each in at most 120 characters."""
    return [_cut(text) for text in (*_scaling_warnings(spec.autoscaler), *_agent_warnings(spec.template["spec"]))]


def _name(name: str) -> Errors:
    if not name:
        yield FieldError("metadata.name", REQUIRED, "Required value: the pool's name")
    elif len(name) > LABEL_LENGTH:
        yield _invalid("metadata.name", name, f"must be at most {LABEL_LENGTH} characters: it is a label of each agent")
    elif not _LABEL.fullmatch(name):
        yield _invalid("metadata.name", name, f"must consist of {_SYNTAX}: it is a label of each agent")


def _autoscaler(limits: Any) -> Errors:
    if not isinstance(limits, dict):
        yield _missing_or_wrong("spec.autoscaler", limits, "an object", "maxReplicas, minIdle and maxIdle")
        return
    bad = {field: error for field, limit in LIMITS.items() if (error := _number(field, limit, limits.get(field)))}
    yield from bad.values()
    for upper, lower in (("maxReplicas", "minReplicas"), ("maxIdle", "minIdle")):
        floor = limits.get(lower) or 0
        if not {upper, lower} & bad.keys() and limits[upper] < floor:
            yield _invalid(f"spec.autoscaler.{upper}", limits[upper], f"must be at least {lower}, which is {floor}")


def _number(field: str, limit: _Limit, value: Any) -> FieldError | None:
    path = f"spec.autoscaler.{field}"
    if value is None:
        return FieldError(path, REQUIRED, f"Required value: {limit.required}") if limit.required else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _wrong_type(path, value, "an integer")
    if isinstance(value, float) and not value.is_integer():
        return _invalid(path, value, "must be an integer")
    if value < limit.minimum:
        return _invalid(path, value, f"must be at least {limit.minimum}")
    if value > INT32_MAX:
        return _invalid(path, value, f"must be at most {INT32_MAX}")
    return None


def _template(name: str, template: Any) -> Errors:
    path = "spec.template"
    yield from check_pod(template, path)
    if not isinstance(template, dict):
        return
    meta = template.get("metadata")
    labels = meta.get("labels") if isinstance(meta, dict) else None
    if (meta is None or isinstance(meta, dict)) and (labels is None or labels == {}):
        yield FieldError(
            f"{path}.metadata.labels", REQUIRED, "Required value: at least one label, by which you find the pool's pods"
        )
    if isinstance(labels, dict) and labels.get(POOL_LABEL, name) != name:
        yield _invalid(f"{path}.metadata.labels[{POOL_LABEL}]", labels[POOL_LABEL], f"must be {name} or be left out")
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
            yield _invalid(path, value, f"--pool names another pool, must be {name} or be left out")


def _pod_spec(path: str, spec: Any) -> Errors:
    if not isinstance(spec, dict):
        yield _missing_or_wrong(path, spec, "an object", "the pod's containers")
        return
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        wrong = containers if containers != [] else None
        yield _missing_or_wrong(f"{path}.containers", wrong, "a list", "at least one container, the agent")
    else:
        for i, container in enumerate(containers):
            yield from _container(f"{path}.containers[{i}]", container)
    volumes = spec.get("volumes")
    yield from _objects(f"{path}.volumes", volumes)
    for i, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        if isinstance(volume, dict):
            yield from _volume(f"{path}.volumes[{i}]", volume)


def _container(path: str, container: Any) -> Errors:
    if not isinstance(container, dict):
        yield _wrong_type(path, container, "an object")
        return
    for key in ("command", "args"):
        words = container.get(key)
        yield from _optional(f"{path}.{key}", words, list)
        for i, word in enumerate(words if isinstance(words, list) else ()):
            if not isinstance(word, str):
                yield _wrong_type(f"{path}.{key}[{i}]", word, "a string")
    yield from _objects(f"{path}.volumeMounts", container.get("volumeMounts"))
    yield from _optional(f"{path}.resources", container.get("resources"), dict)
    yield from _optional(f"{path}.securityContext", container.get("securityContext"), dict)


def _volume(path: str, volume: dict[str, Any]) -> Errors:
    if not isinstance(volume.get("name"), str):
        yield _missing_or_wrong(f"{path}.name", volume.get("name"), "a string", "the volume's name")
    yield from _optional(f"{path}.configMap", volume.get("configMap"), dict)


def _labels(path: str, labels: Any) -> Errors:
    yield from _strings(path, labels)
    for key, value in labels.items() if isinstance(labels, dict) else ():
        prefix, slash, short = key.rpartition("/")
        if len(short) > LABEL_LENGTH or not _LABEL.fullmatch(short):
            yield _invalid(path, key, f"a label's name must be 1 to {LABEL_LENGTH} {_SYNTAX}")
        elif slash and (len(prefix) > PREFIX_LENGTH or not _PREFIX.fullmatch(prefix)):
            yield _invalid(path, key, "what stands before the '/' must be a lower-case DNS name")
        if isinstance(value, str) and value and (len(value) > LABEL_LENGTH or not _LABEL.fullmatch(value)):
            yield _invalid(f"{path}[{key}]", value, f"a label's value must be at most {LABEL_LENGTH} {_SYNTAX}")


def _strings(path: str, values: Any) -> Errors:
    yield from _optional(path, values, dict)
    for key, value in values.items() if isinstance(values, dict) else ():
        if not isinstance(value, str):
            yield _wrong_type(f"{path}[{key}]", value, 'a string (write it in quotes: "true", "1")')


def _objects(path: str, values: Any) -> Errors:
    yield from _optional(path, values, list)
    for i, value in enumerate(values if isinstance(values, list) else ()):
        if not isinstance(value, dict):
            yield _wrong_type(f"{path}[{i}]", value, "an object")


def _optional(path: str, value: Any, kind: type) -> Errors:
    if value is not None and not isinstance(value, kind):
        yield _wrong_type(path, value, "an object" if kind is dict else "a list")


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


def _missing_or_wrong(path: str, value: Any, kind: str, purpose: str) -> FieldError:
    if value is None:
        return FieldError(path, REQUIRED, f"Required value: {purpose}")
    return _wrong_type(path, value, kind)


def _wrong_type(path: str, value: Any, wanted: str) -> FieldError:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return FieldError(path, WRONG_TYPE, f"must be {wanted}, not {names.get(type(value), 'a number')}")


def _invalid(path: str, value: str | float, message: str) -> FieldError:
    return FieldError(path, INVALID, f"Invalid value: {_short(value)}: {message}")


def _short(value: str | float) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _cut(text: str) -> str:
    return text if len(text) <= WARNING_LENGTH else f"{text[: WARNING_LENGTH - 1]}…"


def _dot(path: str) -> str:
    return f"{path}." if path else ""
