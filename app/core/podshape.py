"""Whether a pod is well formed, in the parts that we read or extend and where the API server would not name the field.

It takes images unread and refuses quantities without a path. All the rest is left to it: the rehearsal asks.
"""

from __future__ import annotations

from typing import Any

from app.core.fields import Errors, invalid, missing_or_wrong, objects, optional, strings, wrong_type
from app.core.syntax import LABEL_SYNTAX, is_dns_name, is_image, is_label_value, is_quantity


def check_pod(pod: Any, path: str) -> Errors:
    """What is wrong with the shape of a Pod or PodTemplateSpec, in the parts that injection reads and extends."""
    if not isinstance(pod, dict):
        yield missing_or_wrong(path, pod, "an object", "the pod to make agents from")
        return
    meta = pod.get("metadata")
    yield from optional(f"{_dot(path)}metadata", meta, dict)
    if isinstance(meta, dict):
        yield from strings(f"{_dot(path)}metadata.annotations", meta.get("annotations"))
        yield from _labels(f"{_dot(path)}metadata.labels", meta.get("labels"))
    yield from _pod_spec(f"{_dot(path)}spec", pod.get("spec"))


def _pod_spec(path: str, spec: Any) -> Errors:
    if not isinstance(spec, dict):
        yield missing_or_wrong(path, spec, "an object", "the pod's containers")
        return
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        wrong = containers if containers != [] else None
        yield missing_or_wrong(f"{path}.containers", wrong, "a list", "at least one container, the agent")
    else:
        for i, container in enumerate(containers):
            yield from _container(f"{path}.containers[{i}]", container)
    initial = spec.get("initContainers")
    yield from optional(f"{path}.initContainers", initial, list)
    for i, container in enumerate(initial if isinstance(initial, list) else ()):
        yield from _container(f"{path}.initContainers[{i}]", container)
    volumes = spec.get("volumes")
    yield from objects(f"{path}.volumes", volumes)
    for i, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        if isinstance(volume, dict):
            yield from _volume(f"{path}.volumes[{i}]", volume)


def _container(path: str, container: Any) -> Errors:
    if not isinstance(container, dict):
        yield wrong_type(path, container, "an object")
        return
    for key in ("command", "args"):
        words = container.get(key)
        yield from optional(f"{path}.{key}", words, list)
        for i, word in enumerate(words if isinstance(words, list) else ()):
            if not isinstance(word, str):
                yield wrong_type(f"{path}.{key}[{i}]", word, "a string")
    yield from objects(f"{path}.volumeMounts", container.get("volumeMounts"))
    image = container.get("image")
    if isinstance(image, str) and image and not is_image(image):
        yield invalid(f"{path}.image", image, "must be an image's name, such as veldaio/agent:latest")
    yield from _resources(f"{path}.resources", container.get("resources"))
    yield from optional(f"{path}.securityContext", container.get("securityContext"), dict)


def _resources(path: str, resources: Any) -> Errors:
    yield from optional(path, resources, dict)
    for key in ("limits", "requests"):
        amounts = resources.get(key) if isinstance(resources, dict) else None
        yield from optional(f"{path}.{key}", amounts, dict)
        for name, amount in amounts.items() if isinstance(amounts, dict) else ():
            if isinstance(amount, bool) or not isinstance(amount, str | int | float):
                yield wrong_type(f"{path}.{key}[{name}]", amount, "a quantity")
            elif not is_quantity(amount):
                yield invalid(f"{path}.{key}[{name}]", amount, "must be a quantity, such as 4, 500m or 8Gi")


def _volume(path: str, volume: dict[str, Any]) -> Errors:
    if not isinstance(volume.get("name"), str):
        yield missing_or_wrong(f"{path}.name", volume.get("name"), "a string", "the volume's name")
    yield from optional(f"{path}.configMap", volume.get("configMap"), dict)


def _labels(path: str, labels: Any) -> Errors:
    yield from strings(path, labels)
    for key, value in labels.items() if isinstance(labels, dict) else ():
        prefix, slash, short = key.rpartition("/")
        if not short or not is_label_value(short):
            yield invalid(path, key, f"a label's name must be {LABEL_SYNTAX}")
        elif slash and not is_dns_name(prefix):
            yield invalid(path, key, "what stands before the '/' must be a lower-case DNS name")
        if isinstance(value, str) and not is_label_value(value):
            yield invalid(f"{path}[{key}]", value, f"a label's value must be {LABEL_SYNTAX}")


def _dot(path: str) -> str:
    return f"{path}." if path else ""
