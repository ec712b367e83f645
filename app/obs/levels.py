"""Log levels that change while the server runs: velda-config.yaml is read again when it changes, or at SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import structlog

from app.obs.logging import set_levels
from app.settings import Settings, SettingsError, load

POLL = 2.0
"""Seconds between two looks at the file; a kubelet renews a ConfigMap's files within a minute or two."""

log = structlog.get_logger()


async def follow(path: Path, settings: Settings) -> None:
    """Apply the file's ``log`` each time that it changes, until cancelled; ``settings`` are those that hold."""
    asked, seen = asyncio.Event(), _stamp(path)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    try:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), POLL)
            if asked.is_set() or _stamp(path) != seen:
                asked.clear()
                seen = _stamp(path)
                settings = reload(path, settings)
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def reload(path: Path, settings: Settings) -> Settings:
    """Set the levels that the file says, and return what holds now. A file that cannot be used changes nothing."""
    try:
        wanted = load(path)
    except SettingsError as error:
        log.error("velda-config.yaml not read again", error=str(error))
        return settings
    if (wanted.log.level, wanted.log.levels) != (settings.log.level, settings.log.levels):
        set_levels(wanted.log)
        log.warning("log levels changed", to=wanted.log.level, levels=wanted.log.levels)
    held = settings.model_copy(update={"log": wanted.log.model_copy(update={"format": settings.log.format})})
    if others := [key for key in Settings.model_fields if getattr(wanted, key) != getattr(held, key)]:
        log.warning("velda-config.yaml has changed, restart to apply it", keys=others)
    return held


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when the file does; None while there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
