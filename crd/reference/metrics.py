"""The metrics, from where they are defined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.metrics import MetricWrapperBase

from app.obs import metrics
from app.obs.pools import FAMILIES, LABELS
from crd.reference.tables import HEADER, code, table

INTRODUCTION = """\
# Metrics

What `/metrics` has, in Prometheus' text format. [How to scrape it](../metrics.md), and which [alerts](../alerts.md) are
made of it, is told elsewhere.

## Of each pool

The leader alone has these, labelled `pool_namespace` and `pool`. The gauges are the figures of the pool's status.
All go when the pool is deleted; the counters begin anew when the leader changes, as Prometheus expects of counters.

"""
OTHERS = """\
## Of each replica

The values of each label are few, and none is a client's to choose.

"""


class Described(NamedTuple):
    """One metric. A histogram's series end in ``_bucket`` (with the label ``le``), ``_sum`` and ``_count``."""

    name: str
    type: str
    labels: tuple[str, ...]
    words: str


def page() -> str:
    """The page's text."""
    return "".join([HEADER, INTRODUCTION, _table(of_pools()), OTHERS, _table(of_replicas())])


def of_pools() -> list[Described]:
    return [Described(name, kind, LABELS, words) for name, kind, words, _ in FAMILIES]


def of_replicas() -> list[Described]:
    """In the order in which they are printed."""
    return list(_described(_labels()))


def _described(labels: Mapping[str, tuple[str, ...]]) -> Iterator[Described]:
    for family in metrics.REGISTRY.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        yield Described(family.name + suffix, kind, labels.get(family.name, ()), family.documentation)


def _labels() -> dict[str, tuple[str, ...]]:
    """By a family's name; the library tells them to nobody who asks by a public name."""
    wrapped = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    found = {next(iter(each.describe())).name: tuple(each._labelnames) for each in wrapped}
    return found | {"velda_build": ("version",)}


def _table(described: list[Described]) -> str:
    rows = ([code(name), kind, ", ".join(map(code, labels)), words] for name, kind, labels, words in described)
    return table(["Metric", "Type", "Labels", "What it is"], rows)
