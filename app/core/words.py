"""Words for numbers and for what strangers say, so that logs, events, status and warnings do it in one way."""

from __future__ import annotations


def agents(count: int) -> str:
    return "1 agent" if count == 1 else f"{count} agents"


def sessions_wait(count: int) -> str:
    return "1 session waits" if count == 1 else f"{count} sessions wait"


def printable(text: str, *, limit: int = 100) -> str:
    """What a stranger sent, as it may stand in a log: cut, and without characters that move a terminal's cursor."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:limit])
    return shown + "…" if len(text) > limit else shown
