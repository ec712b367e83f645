"""Keeps the pods' hints (core/hints) as their agents are: late rather than often, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from app.controller.actuator import Answer
from app.controller.parts import Parts, SentHint, Subject
from app.core.hints import Hint
from app.model.meta import NamespacedName

AT_ONCE = 100
"""Hints of one pool that wait or are under way; more are looked for when these are done."""
INTERVAL = 1.0
"""Seconds between two hints of one pod: what changes more often is told as it is then."""
AGAIN = 10.0
"""Seconds after which a hint that is not seen on the pod is sent again."""

log = structlog.get_logger()


class Hints:
    """Sends hints by merge patch, at most one at a time for a pod."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def offer(self, subject: Subject, due: Sequence[Hint]) -> None:
        """All that is due now, whether or not it was offered before."""
        now, hinted = asyncio.get_running_loop().time(), subject.state.hinted
        for hint in due:
            sent = hinted.sent.get(hint.uid)
            if hinted.in_flight >= AT_ONCE or (sent and sent.at is None):
                hinted.left = True
                continue
            wait = AGAIN if sent and sent.annotations == hint.annotations else INTERVAL
            if sent and sent.at is not None and now < sent.at + wait:
                self._parts.queue.add_at(subject.key, sent.at + wait)
            else:
                self._send(subject, hint)

    def _send(self, subject: Subject, hint: Hint) -> None:
        hinted = subject.state.hinted
        hinted.sent[hint.uid] = SentHint(hint.annotations)
        hinted.in_flight += 1
        pod = NamespacedName(subject.key.namespace, hint.name)
        answer = self._parts.actuator.annotate(pod, hint.annotations, uid=hint.uid, pool=subject.key)
        answer.add_done_callback(partial(self._answered, subject, hint))

    def _answered(self, subject: Subject, hint: Hint, answer: Answer) -> None:
        hinted = subject.state.hinted
        hinted.in_flight -= 1
        if hint.uid in hinted.sent:
            hinted.sent[hint.uid] = SentHint(hint.annotations, asyncio.get_running_loop().time())
        if not answer.cancelled() and (error := answer.result()) and not (error.not_found or error.conflict):
            log.info("hint not written", pool=str(subject.key), pod=hint.name, error=str(error))
        if hinted.left and not hinted.in_flight:
            hinted.left = False
            self._parts.queue.add(subject.key)
