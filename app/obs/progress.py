"""Why someone waits, on standard error: a spinner or a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from app.core.words import printable

SOON = 2.0
"""Seconds after which who waits is told so."""
REPEAT = 30.0
"""Seconds after which plain lines say again that nothing has changed."""
LINE = 1000
"""Characters of a reason."""

T = TypeVar("T")


class Waiting(Protocol):
    """``reason`` is the last that was said; empty as long as there is none."""

    reason: str

    def say(self, reason: str) -> None: ...


@contextlib.contextmanager
def waiting(what: str, *, after: float = 0.0) -> Iterator[Waiting]:
    """Shown for as long as the context lasts, from ``after`` seconds on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    what = printable(what, limit=LINE)
    shown: _Spinner | _Lines = _Spinner(what, console) if console.is_terminal else _Lines(what, console)
    ended = threading.Event()
    # A thread: the wait may be one of the processor's, or one in a library.
    telling = threading.Thread(target=shown.run, args=(ended, after), daemon=True)
    telling.start()
    try:
        yield shown
    finally:
        ended.set()
        telling.join()


def progressing(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with how many of them are done once that takes long."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar, due = Progress(*columns, console=console, transient=True), time.monotonic() + SOON
    task = bar.add_task(what, total=len(items))
    try:
        for done, item in enumerate(items):
            bar.update(task, completed=done)
            if time.monotonic() >= due and console.is_terminal:
                bar.start()  # once more does nothing
            elif time.monotonic() >= due:
                console.print(f"{what}: {done} of {len(items)} done", markup=False)
                due = time.monotonic() + REPEAT
            yield item
    finally:
        if bar.live.is_started:
            bar.stop()


class _Spinner:
    def __init__(self, what: str, console: Console) -> None:
        self.reason = ""
        shown = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=len(what)))
        reason = TextColumn("{task.fields[reason]}", markup=False, table_column=Column(ratio=1))
        columns = (SpinnerColumn(), shown, TimeElapsedColumn(table_column=Column(min_width=7)), reason)
        self._progress = Progress(*columns, console=console, transient=True, expand=True)
        self._task = self._progress.add_task(what, total=None, reason="")

    def run(self, ended: threading.Event, after: float) -> None:
        if not ended.wait(after):
            with self._progress:
                ended.wait()

    def say(self, reason: str) -> None:
        self.reason = printable(reason, limit=LINE)
        self._progress.update(self._task, reason=self.reason)


class _Lines:
    def __init__(self, what: str, console: Console) -> None:
        self.reason = ""
        self._what = what
        self._console = console
        self._began = time.monotonic()

    def run(self, ended: threading.Event, after: float) -> None:
        if ended.wait(after):
            return
        self._print(self._what)
        while not ended.wait(REPEAT):
            seconds = f"{time.monotonic() - self._began:.0f} s"
            self._print(f"still {self._what} after {seconds}{f': {self.reason}' if self.reason else ''}")

    def say(self, reason: str) -> None:
        if (reason := printable(reason, limit=LINE)) != self.reason:
            self.reason = reason
            self._print(f"still {self._what}: {self.reason or 'it has room again'}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False)
