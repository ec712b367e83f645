"""Writes traces: a file for each pool in one directory. Whoever calls is never held up and never sees an error.

A call only appends to a bounded list; a thread writes what has gathered once a second.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

from app.core.trace import VERSION, Header, Living, Record, encode
from app.model.meta import NamespacedName
from app.obs import metrics

PERIOD = 1.0
"""Seconds between writes."""
BACKLOG = 100_000
"""Records that may wait to be written; what comes beyond them is dropped."""

WRITTEN, DROPPED, FAILED = (metrics.TRACE_RECORDS.labels(result) for result in ("written", "dropped", "failed"))

log = structlog.get_logger()


class TraceWriter:
    """A file is replaced once it has ``max_bytes``; ``keep`` older ones of each pool stay, .1 the youngest."""

    def __init__(self, directory: Path, *, max_bytes: int = 64 * 2**20, keep: int = 3, backlog: int = BACKLOG) -> None:
        self._directory, self._max_bytes, self._keep, self._limit = directory, max_bytes, keep, backlog
        self._backlog: deque[tuple[NamespacedName, Record | None]] = deque()
        self._living: dict[NamespacedName, Living] = {}
        self._begun: set[NamespacedName] = set()
        """Pools whose file has all that this process has said so far."""
        self._failing = False
        self._flushing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def path(self, pool: NamespacedName) -> Path:
        """Neither part may hold an underscore, so no two pools share a file."""
        return self._directory / f"{pool.namespace}_{pool.name}.jsonl"

    def write(self, pool: NamespacedName, record: Record) -> None:
        """Have it written soon. Limits that are as they were are left out, so they may be told as often as one likes.

        For one thread: the event loop's.
        """
        self._append(pool, record)

    def forget(self, pool: NamespacedName) -> None:
        """The pool is gone; its files stay."""
        self._append(pool, None)

    def _append(self, pool: NamespacedName, record: Record | None) -> None:
        if len(self._backlog) >= self._limit:
            DROPPED.inc()
        else:
            self._backlog.append((pool, record))

    def close(self) -> None:
        """Stop, once all is written. May take as long as the disk does."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Write what waits, now and in this thread."""
        with self._flushing:
            gathered: dict[NamespacedName, list[Record | None]] = {}
            for _ in range(len(self._backlog)):
                pool, record = self._backlog.popleft()
                gathered.setdefault(pool, []).append(record)
            for pool, records in gathered.items():
                self._write(pool, records)

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD):
            self.flush()

    def _write(self, pool: NamespacedName, gathered: Sequence[Record | None]) -> None:
        records = [record for record in gathered if record is not None]
        try:
            if records:
                self._extend(pool, records)
                self._failing = False
        except Exception as error:  # whatever it is, the thread must go on with the other pools
            FAILED.inc(len(records))
            self._begun.discard(pool)
            if not self._failing:
                log.error("trace not written", pool=str(pool), error=str(error))
            self._failing = True
        if gathered[-1] is None:
            self._living.pop(pool, None)
            self._begun.discard(pool)

    def _extend(self, pool: NamespacedName, records: Sequence[Record]) -> None:
        path, living = self.path(pool), self._living.setdefault(pool, Living())
        self._directory.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        begin = pool not in self._begun or size == 0 or size >= self._max_bytes
        lines = [encode(Header(records[0].at, pool, VERSION)), *map(encode, living.records())] if begin else []
        lines += [encode(record) for record in records if living.apply(record)]
        if size >= self._max_bytes:
            self._rotate(path)
        with path.open("ab+") as file:
            file.write((b"" if _ends_a_line(file) else b"\n") + b"".join(lines))
        self._begun.add(pool)
        WRITTEN.inc(len(records))

    def _rotate(self, path: Path) -> None:
        for age in range(self._keep, 0, -1):
            older = path.with_name(f"{path.name}.{age}")
            younger = path.with_name(f"{path.name}.{age - 1}") if age > 1 else path
            if younger.exists():
                younger.replace(older)


def _ends_a_line(file: BinaryIO) -> bool:
    """False if a write was cut short there."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
