"""Words for numbers, so that logs, events, status and warnings count in one way."""

from __future__ import annotations


def agents(count: int) -> str:
    return "1 agent" if count == 1 else f"{count} agents"
