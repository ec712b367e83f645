"""Whether the quotas of a namespace can hold all agents that a pool may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from app.core.words import agents
from app.model.quota import ResourceQuota

_SUFFIXES = {
    **{
        suffix: Decimal(10) ** power
        for suffix, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
    },
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}


def shortfalls(pod: Mapping[str, Any], quotas: Sequence[ResourceQuota], *, replicas: int) -> list[str]:
    """One sentence for each limit of a quota under which ``replicas`` such pods cannot exist, others left out.

    ``pod`` is as the API server would store it. Quotas with a scope are passed over: they may not mean this pod.
    """
    found = []
    for quota in quotas:
        if quota.spec.scopes or quota.spec.scope_selector:
            continue
        for resource, hard in (quota.spec.hard or {}).items():
            need = _need(pod, resource)
            room = int(_amount(hard) / need) if need else replicas
            if room < replicas:
                name = quota.metadata.name
                found.append(
                    f"ResourceQuota {name} has room for {agents(room)} ({resource}: {hard}), maxReplicas is {replicas}"
                )
    return found


def _need(pod: Mapping[str, Any], resource: str) -> Decimal:
    """How much of a quota's resource one pod takes; 0 if it takes none."""
    if resource in ("pods", "count/pods"):
        return Decimal(1)
    kind, dot, name = resource.partition(".")
    if kind == "limits" and dot:
        return _total(pod["spec"], "limits", name)
    return _total(pod["spec"], "requests", name if kind == "requests" and dot else resource)


def _total(spec: Mapping[str, Any], kind: str, name: str) -> Decimal:
    """As the scheduler counts: all containers together or the greediest step of the start, whichever is more."""
    initial = spec.get("initContainers") or []
    sidecars = [container for container in initial if container.get("restartPolicy") == "Always"]
    steps = [container for container in initial if container not in sidecars]
    lasting = sum(_amounts([*spec["containers"], *sidecars], kind, name), Decimal(0))
    return max([lasting, *_amounts(steps, kind, name)]) + _amount((spec.get("overhead") or {}).get(name, 0))


def _amounts(containers: Sequence[Mapping[str, Any]], kind: str, name: str) -> Iterator[Decimal]:
    for container in containers:
        yield _amount(((container.get("resources") or {}).get(kind) or {}).get(name, 0))


def _amount(quantity: str | float) -> Decimal:
    text = str(quantity)
    suffix = next((suffix for suffix in _SUFFIXES if text.endswith(suffix)), "")
    return Decimal(text.removesuffix(suffix)) * _SUFFIXES.get(suffix, 1)
