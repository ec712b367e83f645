"""All refusals are counted; the log has as many as it can take, and says how many it has not."""

from __future__ import annotations

from structlog.testing import capture_logs

from app.broker.refusal import Reason, RefusedError
from app.broker.reports import LINES, LINES_PER_SECOND, LONGEST, Reports
from tests.support.limits import refusals


def test_a_flood_is_counted_and_told_in_few_lines() -> None:
    now, before = 0.0, refusals("forbidden")
    reports = Reports(lambda: now)
    refused = RefusedError(Reason.FORBIDDEN, 'user "ada" may not')
    with capture_logs() as lines:
        for _ in range(LINES + 100):
            reports.refused(refused, call="GetPool", peer="ipv4:10.0.0.1:5")
        assert len(lines) == LINES
        now += 1 / LINES_PER_SECOND
        reports.refused(refused, call="GetPool", peer="ipv4:10.0.0.1:5")
        reports.refused(refused, call="GetPool", peer="ipv4:10.0.0.1:5")
    assert refusals("forbidden") == before + LINES + 102
    assert "untold_before" not in lines[0]
    assert lines[LINES:] == [
        {
            "event": "refused",
            "log_level": "info",
            "call": "GetPool",
            "peer": "ipv4:10.0.0.1:5",
            "reason": "forbidden",
            "error": 'user "ada" may not',
            "untold_before": 100,
        }
    ]


def test_a_line_is_no_longer_than_that() -> None:
    with capture_logs() as lines:
        Reports().refused(RefusedError(Reason.FORBIDDEN, "x" * 10_000), call="GetPool", peer="")
    assert len(lines[0]["error"]) <= LONGEST + 1
