"""Every fault by its name, for the tests and for the figure ``faults``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from tests.faults import control_plane, leadership, machine, network
from tests.faults.scene import World

SCENARIOS: dict[str, Callable[[World], Awaitable[None]]] = {
    "leader killed growing": leadership.killed_growing,
    "leader killed shrinking": leadership.killed_shrinking,
    "leader stopped": leadership.stopped,
    "two that believe": leadership.both_believe,
    "API server restarted": control_plane.api_restarted,
    "etcd restarted": control_plane.etcd_restarted,
    "watch cut": control_plane.watch_cut,
    "watch gone": control_plane.watch_gone,
    "watch silent": control_plane.silent,
    "lists fail": control_plane.lists_fail,
    "list empty": control_plane.list_empty,
    "stale cache": control_plane.stale,
    "API server cut off": network.api_partition,
    "leader cut off": network.leader_partition,
    "agents cut off": network.agents_partition,
    "latency": network.latency,
    "errors": network.errors,
    "agents join twice": network.joins_twice,
    "Secret deleted": machine.secret_deleted,
    "admission flood": machine.admissions,
    "event flood": machine.events,
    "false news": machine.flood,
    "clock jumps": machine.clock_jumps,
    "disk full": machine.disk_full,
    "memory limit": machine.memory,
}
LARGE: dict[str, Callable[[World], Awaitable[None]]] = {
    "stale cache, 500 pools of 40": partial(control_plane.stale, pools=500, size=40, within=600),
    "10,000 events a second": partial(machine.flood, rate=11_000, at_least=10_000),
    "memory limit, 1,000 pools": partial(machine.memory, pools=1000),
}
"""The same at a size that takes minutes: for the figure alone."""
