"""Every refusal and failure is counted, and told in the log as far as the log can take it."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from app.broker.refusal import Reason, RefusedError
from app.core.words import printable
from app.obs import metrics

LINES = 20
"""Log lines at once; who asks without end does not fill the disk."""
LINES_PER_SECOND = 2.0
LONGEST = 500
"""Characters of a message, which may have names in it that a client made."""

log = structlog.get_logger()


class Reports:
    """``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines = float(LINES)
        self._then = clock()
        self._untold = 0

    def refused(self, refused: RefusedError, *, call: str, peer: str) -> None:
        """``call`` must not be text of the client's."""
        metrics.BROKER_REFUSALS.labels(refused.reason.label).inc()
        if self._may_tell():
            error = printable(refused.message, limit=LONGEST)
            about = {**refused.about, **self._more()}
            log.info("refused", call=call, peer=peer, reason=refused.reason.label, error=error, **about)

    def failed(self, error: Exception, *, call: str, peer: str) -> RefusedError:
        """A fault of ours: its traceback is for the log, and what is returned for the client."""
        metrics.BROKER_REFUSALS.labels(Reason.INTERNAL.label).inc()
        if self._may_tell():
            log.error("a call failed", call=call, peer=peer, exc_info=error, **self._more())
        return RefusedError(Reason.INTERNAL, "internal error")

    def _may_tell(self) -> bool:
        now = self._clock()
        self._lines = min(LINES, self._lines + (now - self._then) * LINES_PER_SECOND)
        self._then = now
        if self._lines < 1:
            self._untold += 1
            return False
        self._lines -= 1
        return True

    def _more(self) -> dict[str, int]:
        untold, self._untold = self._untold, 0
        return {"untold_before": untold} if untold else {}


reports = Reports()
"""Of this process, as its metrics are."""
